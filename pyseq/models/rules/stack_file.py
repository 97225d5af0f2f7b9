"""A stack of models as one safetensors file."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from pyseq.errors import UserError
from pyseq.models.checkpoint import read_tensors, save_tensors
from pyseq.models.rules.build import MODELS, build_rule_model
from pyseq.models.rules.rule_model import RuleModel

FORMAT_VERSION = 1
KEY = "pyseq_rules"  # of the header's entry; model files of streams have another


def save_stack(path: str | os.PathLike, model: RuleModel, metadata: dict[str, Any]) -> None:
    """Write a stack's file; an existing one is replaced only when the new one is complete.

    Args:
        path (str | PathLike): of the file.
        model (RuleModel): the stack.
        metadata (dict str -> what JSON can hold): kept beside it; what it was trained for, say.

    Raises:
        TypeError: JSON cannot hold the metadata.
        UserError: the file cannot be written; what was there before is left as it was.
    """
    header = {
        "version": FORMAT_VERSION,
        "model": model.kind,
        "config": dataclasses.asdict(model.config),
        "classes": model.classes,
        "max_length": model.max_length,
        "seeds": model.seed_numbers,
        "metadata": metadata,
    }
    path = Path(path).resolve()  # a link keeps pointing where it does
    save_tensors(path, model.state_dict(), {KEY: json.dumps(header)})


def load_stack(path: str | os.PathLike) -> tuple[RuleModel, dict[str, Any]]:
    """Read a stack's file; nothing in it is executed.

    Args:
        path (str | PathLike): of the file.

    Returns:
        tuple (RuleModel, dict): the stack in evaluation mode, on the CPU, and its metadata.

    Raises:
        UserError: the file is missing, no safetensors file, or none that `save_stack` wrote.
    """
    tensors, header = read_tensors(Path(path), "`pyseq rules train` writes one")
    if KEY not in header:
        raise UserError(f"{path} holds no models of grammars that pyseq wrote")
    try:
        fields = json.loads(header[KEY])
        if fields["version"] != FORMAT_VERSION:
            raise ValueError(f"format version {fields['version']}; {FORMAT_VERSION} fits")
        if fields["model"] not in MODELS:
            raise ValueError(f"unknown model {fields['model']!r}; known: {', '.join(MODELS)}")
        model = build_rule_model(
            MODELS[fields["model"]](**fields["config"]),
            classes=fields["classes"],
            max_length=fields["max_length"],
            seeds=fields["seeds"],
        )
        model.load_state_dict(tensors)
        metadata = fields["metadata"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold models this pyseq can build: {first_line}"
        ) from error
    return model.eval(), metadata
