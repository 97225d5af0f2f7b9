"""Classifiers of objects that are seen in several modalities, some of which may be missing."""

from pyseq.models.fusion.attention import CrossModalAttention
from pyseq.models.fusion.build import build_fusion_model
from pyseq.models.fusion.config import FusionConfig
from pyseq.models.fusion.fusion_model import FusionModel, drop_modalities
from pyseq.models.fusion.model_file import load_fusion, save_fusion
from pyseq.models.fusion.shape import DataShape, ModalityShape

__all__ = [
    "CrossModalAttention",
    "DataShape",
    "FusionConfig",
    "FusionModel",
    "ModalityShape",
    "build_fusion_model",
    "drop_modalities",
    "load_fusion",
    "save_fusion",
]
