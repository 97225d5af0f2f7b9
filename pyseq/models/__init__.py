"""Models built from pyseq's layers, their files, and the predictor that serves them."""

from pyseq.models.baseline import Baseline, BaselineConfig
from pyseq.models.checkpoint import ModelCard, load_model, save_model
from pyseq.models.predictor import Prediction, Predictor, load

__all__ = [
    "Baseline",
    "BaselineConfig",
    "ModelCard",
    "Prediction",
    "Predictor",
    "load",
    "load_model",
    "save_model",
]
