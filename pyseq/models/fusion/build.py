"""A fusion model with fresh parameters."""

import torch

from pyseq.models.fusion.config import FusionConfig
from pyseq.models.fusion.fusion_model import FusionModel
from pyseq.models.fusion.shape import DataShape


def build_fusion_model(config: FusionConfig, shape: DataShape, seed: int) -> FusionModel:
    """Make a model; its parameters are drawn from the seed alone.

    Args:
        config (FusionConfig): sizes and options.
        shape (DataShape): of the data.
        seed (int): of the parameters; torch's own generator is left as it is.

    Returns:
        FusionModel: in training mode, on the CPU.

    Raises:
        UserError: the model cannot read such data; see `FusionModel`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return FusionModel(config, shape)
