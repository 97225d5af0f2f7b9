"""The models of one ensemble as one safetensors file."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyseq.errors import UserError
from pyseq.models.checkpoint import read_tensors, save_tensors
from pyseq.models.fusion.build import build_fusion_model
from pyseq.models.fusion.config import FusionConfig
from pyseq.models.fusion.fusion_model import FusionModel
from pyseq.models.fusion.shape import DataShape

FORMAT_VERSION = 1
KEY = "pyseq_fusion"  # of the header's entry


def save_fusion(
    path: str | os.PathLike, models: Sequence[FusionModel], metadata: dict[str, Any]
) -> None:
    """Write models' file; an existing one is replaced only when the new one is complete.

    Args:
        path (str | PathLike): of the file; its folder must exist.
        models (sequence of FusionModel): at least one; sizes may differ, but all read the same
            modalities and tell the same number of classes apart.
        metadata (dict str -> what JSON can hold): kept beside them; class names, the mean and
            deviation that standardise the data, a temperature, say.

    Raises:
        TypeError: JSON cannot hold the metadata.
        ValueError: there is no model, or they read different data.
        UserError: the file cannot be written; what was there before is left as it was.
    """
    if not models:
        raise ValueError("save_fusion: no models; at least one fits")
    reads = {(model.shape.modalities, model.shape.classes) for model in models}
    if len(reads) > 1:
        raise ValueError(f"save_fusion: models of {len(reads)} kinds of data; one kind fits")
    header = {
        "version": FORMAT_VERSION,
        "models": [
            {"config": dataclasses.asdict(m.config), "shape": dataclasses.asdict(m.shape)}
            for m in models
        ],
        "metadata": metadata,
    }
    tensors = {
        f"{i}.{name}": tensor
        for i, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }
    path = Path(path).resolve()  # a link keeps pointing where it does
    save_tensors(path, tensors, {KEY: json.dumps(header)})


def load_fusion(path: str | os.PathLike) -> tuple[list[FusionModel], dict[str, Any]]:
    """Read models' file; nothing in it is executed.

    Args:
        path (str | PathLike): of the file.

    Returns:
        tuple (list of FusionModel, dict): the models in evaluation mode, on the CPU, in the order
            they were saved in, and their metadata.

    Raises:
        UserError: the file is missing, no safetensors file, or none that `save_fusion` wrote.
    """
    tensors, header = read_tensors(Path(path), "`pyseq fusion train` writes one")
    if KEY not in header:
        raise UserError(f"{path} holds no fusion models that pyseq wrote")
    try:
        fields = json.loads(header[KEY])
        if fields["version"] != FORMAT_VERSION:
            raise ValueError(f"format version {fields['version']}; {FORMAT_VERSION} fits")
        models = []
        for i, saved in enumerate(fields["models"]):
            shape = DataShape.from_dict(saved["shape"])
            model = build_fusion_model(FusionConfig(**saved["config"]), shape, seed=0)
            start = f"{i}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            model.load_state_dict(own)
            models.append(model.eval())
        if not models:
            raise ValueError("no models")
        metadata = fields["metadata"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold models this pyseq can build: {first_line}"
        ) from error
    return models, metadata
