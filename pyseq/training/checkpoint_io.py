"""Lightning's checkpoints as safetensors and JSON: nothing in them is ever executed."""

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError

from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError
from pyseq.models.checkpoint import save_tensors

STATE = "state.json"


class SafetensorsCheckpointIO(CheckpointIO):
    """A checkpoint is a folder: state.json, and the tensors it names in one safetensors file.

    The tensors are written first under a name of their own; renaming state.json into place is the
    moment at which the new checkpoint replaces the old one, so a kill or a power cut leaves one of
    the two whole, and a full disk the old one.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        skeleton = _split(checkpoint, tensors)
        name = f"tensors-{secrets.token_hex(8)}.safetensors"
        text = json.dumps({"tensors": name, "checkpoint": skeleton}, indent=1)
        try:
            save_tensors(folder / name, tensors, {})
            replace_file(folder / STATE, lambda file: file.write_text(text))
        except UserError:
            (folder / name).unlink(missing_ok=True)  # a full disk has no room for it
            raise
        _remove_all_but(folder, (name, STATE))

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict[str, Any]:
        folder = Path(path)
        try:
            state = json.loads((folder / STATE).read_text())
            tensors = safetensors.torch.load_file(folder / state["tensors"])
            return _join(state["checkpoint"], tensors)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder} holds no training state that can be read: {error}; --resume never"
                " begins anew"
            ) from error

    def remove_checkpoint(self, path) -> None:
        (Path(path) / STATE).unlink(missing_ok=True)  # first: without it there is no checkpoint
        shutil.rmtree(path, ignore_errors=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a whole checkpoint lies in `folder`."""
    return (folder / STATE).is_file()


def _remove_all_but(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the last checkpoint's tensors, and what kills in the middle of writing have left."""
    for old in folder.iterdir():
        if old.name in names:
            continue
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()


def _split(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON in place of nested containers; tensors move to `tensors` and leave their key."""
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"items": [[_split(k, tensors), _split(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_split(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_split(v, tensors) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds a {type(value).__name__}, which JSON cannot say")


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_join(v, tensors) for v in value["tuple"])
    return {_join(k, tensors): _join(v, tensors) for k, v in value["items"]}
