"""Small trainings on grammars, and what of two of them must be alike."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pyseq.models.rules import LinearConfig, LSTMConfig, TransformerConfig
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.rules.config import RulesConfig

TINY: dict[str, Any] = {
    "transformer": TransformerConfig(width=8, heads=2, layers=1, feed_forward=16, dropout=0.0),
    "lstm": LSTMConfig(embedding=6, hidden=12, layers=1, dropout=0.0),
    "linear": LinearConfig(embedding=4, variant="fixed"),
}
SMALL: dict[str, Any] = {
    "max_length": 12, "prompt_length": 4, "num_train": 40, "num_validation": 20, "batch": 16,
    "warmup": 5, "validate_every": 6, "max_steps": 24, "seeds": 2, "lr": 1e-2, "device": "cpu",
}  # fmt: skip


def rules_config(folder: Path, name: str = "run", **changes: Any) -> RulesConfig:
    """A training of a second or so."""
    return RulesConfig(**{"out": str(folder / name), "model": "lstm", **TINY, **SMALL} | changes)


def timeless(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, without the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in MetricsFile.read(folder)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model file."""
    return safetensors.torch.load_file(path)
