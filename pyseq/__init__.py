"""Fused sequence layers for PyTorch, and an engine for raw 16-bit streams."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyseq import data, nn, ops
    from pyseq.models.predictor import load

__version__ = "0.1.0"
__all__ = ["__version__", "data", "load", "nn", "ops"]


def __getattr__(name: str) -> Any:
    """Import parts on first use, so that `import pyseq` stays quick and light."""
    if name in ("data", "nn", "ops"):
        return importlib.import_module(f"pyseq.{name}")
    if name == "load":
        return importlib.import_module("pyseq.models.predictor").load
    raise AttributeError(f"module 'pyseq' has no attribute {name!r}")
