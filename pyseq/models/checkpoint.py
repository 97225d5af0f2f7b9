"""A trained model as one safetensors file: weights, and everything needed to use them again."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyseq.data.binning import Binning
from pyseq.data.durable_file import replace_file
from pyseq.data.stream_info import Kind
from pyseq.data.tokenizer import Bytes, Codec, Tokenizer
from pyseq.errors import UserError
from pyseq.models.baseline import Baseline, BaselineConfig
from pyseq.models.sequence_model import SequenceModel
from pyseq.models.supercharged import Supercharged, SuperchargedConfig

FORMAT_VERSION = 1
MODELS: dict[str, tuple[type, type[SequenceModel]]] = {
    "baseline": (BaselineConfig, Baseline),
    "supercharged": (SuperchargedConfig, Supercharged),
}


@dataclass(frozen=True)
class ModelCard:
    """What a model is and what it was made for; saved as JSON beside the weights.

    Attributes:
        model (str): a key of `MODELS`.
        config (dict): fields of the model's config.
        binning (Binning): how symbols become the model's classes, with the exact edges of its bins.
        kind (str): "tokens" or "values".
        seq_len (int): symbols of context it was trained with.
        data (dict): fingerprint, symbols and ranges of the stream it was trained on.
        training (dict): the resolved training configuration.
        tokenizer (str | None): `Tokenizer.json`, where the symbols are the tokens of one.
    """

    model: str
    config: dict[str, Any]
    binning: Binning
    kind: Kind
    seq_len: int
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None

    @cached_property
    def codec(self) -> Codec | None:
        """How the symbols are text: by the tokenizer, as bytes, or not at all."""
        if self.tokenizer is not None:
            return Tokenizer(self.tokenizer)
        return Bytes() if self.kind == "tokens" and self.binning.alphabet == 256 else None

    @property
    def symbol_bytes(self) -> np.ndarray | None:
        """Bytes that each class stands for, (classes,) int64, where a tokenizer says so."""
        if self.binning.edges is None and isinstance(self.codec, Tokenizer):
            return self.codec.lengths
        return None

    def build(self) -> SequenceModel:
        """The model with fresh weights."""
        if self.model not in MODELS:
            raise UserError(f"unknown model {self.model!r}; known: {', '.join(MODELS)}")
        config_type, model_type = MODELS[self.model]
        return model_type(config_type(**self.config))

    def to_json(self) -> str:
        """The card as JSON, with the version of the format."""
        return json.dumps({"version": FORMAT_VERSION, **dataclasses.asdict(self)})

    @staticmethod
    def from_json(text: str) -> "ModelCard":
        """The card that `to_json` made `text` of."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"it describes a {type(fields).__name__}; a mapping fits")
        version = fields.pop("version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}; {FORMAT_VERSION} fits")
        binning = fields.pop("binning")
        edges = None if binning["edges"] is None else tuple(binning["edges"])
        return ModelCard(binning=Binning(binning["alphabet"], edges), **fields)


def save_model(path: str | os.PathLike, weights: dict[str, Tensor], card: ModelCard) -> None:
    """Write a model file; an existing one is replaced only when the new one is complete.

    Args:
        path (str | PathLike): of the file.
        weights (dict name -> Tensor): the model's state_dict.
        card (ModelCard): what the model is.

    Raises:
        UserError: the file cannot be written; what was there before is left as it was.
    """
    path = Path(path).resolve()  # a link keeps pointing where it does
    save_tensors(path, weights, {"pyseq": card.to_json()})


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; an existing one is replaced only when the new one is complete.

    Args:
        path (Path): of the file; its folder must exist.
        tensors (dict name -> Tensor): what it holds; moved to the CPU for that.
        metadata (dict str -> str): what its header says.

    Raises:
        UserError: the file cannot be written; what was there before is left as it was.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        safetensors.torch.save_file(plain, temporary, metadata=metadata)
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors lets only the owner read

    try:
        replace_file(path, write)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def read_tensors(path: Path, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file; nothing in it is executed.

    Args:
        path (Path): of the file.
        advice (str): how such a file is made, for where there is none.

    Returns:
        tuple (dict name -> Tensor, dict str -> str): what it holds, on the CPU, and what its header
            says.

    Raises:
        UserError: the file is missing, or no safetensors file.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; {advice}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no safetensors file: {error}") from error


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def is_model_file(path: Path) -> bool:
    """Whether pyseq wrote the file at `path`."""
    if not path.is_file():  # opening a pipe would wait for ever
        return False
    try:
        with safe_open(path, "pt") as file:
            return "pyseq" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_model(path: str | os.PathLike) -> tuple[SequenceModel, ModelCard]:
    """Read a model file; nothing in it is executed.

    Args:
        path (str | PathLike): of the file.

    Returns:
        tuple (SequenceModel, ModelCard): the model with its weights, on the CPU.

    Raises:
        UserError: the file is missing, no safetensors file (a pickle, say), or none of pyseq's.
    """
    tensors, metadata = read_tensors(Path(path), f"train a model with --ckpt {path} first")
    if "pyseq" not in metadata:
        raise UserError(f"{path} is a safetensors file, but pyseq did not write it")
    try:
        card = ModelCard.from_json(metadata["pyseq"])
        model = card.build()
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold a model this pyseq can build: {first_line}"
        ) from error
    return model, card
