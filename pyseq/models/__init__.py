"""Models built from pyseq's layers, their files, and the predictor that serves them."""

from pyseq.models.baseline import Baseline, BaselineConfig
from pyseq.models.checkpoint import ModelCard, load_model, save_model
from pyseq.models.predictor import Prediction, Predictor, load
from pyseq.models.supercharged import Supercharged, SuperchargedConfig

__all__ = [
    "Baseline",
    "BaselineConfig",
    "ModelCard",
    "Prediction",
    "Predictor",
    "Supercharged",
    "SuperchargedConfig",
    "load",
    "load_model",
    "save_model",
]
