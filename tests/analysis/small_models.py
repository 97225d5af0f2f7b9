"""Small models with fresh weights, and streams to ask them about."""

from dataclasses import asdict

import numpy as np
import torch

from pyseq.data import U16Stream
from pyseq.data.binning import Binning
from pyseq.models.checkpoint import MODELS, ModelCard
from pyseq.models.predictor import Predictor

SIZES = {
    "baseline": {"d_model": 32, "nlayers": 2, "nhead": 4, "nhead_kv": 2, "dim_ff": 48},
    "supercharged": {
        "d_model": 32,
        "nlayers": 3,
        "nhead": 4,
        "nhead_kv": 2,
        "dim_ff": 48,
        "patch": 8,
        "local_width": 32,
        "local_layers": 1,
        "memory": 3,
        "scale_bins": (),
    },
}


def small_predictor(
    model: str, binning: Binning, *, kind: str = "tokens", seq_len: int = 32, **options
) -> Predictor:
    """A model with the same fresh weights every time."""
    torch.manual_seed(0)
    config_type, model_type = MODELS[model]
    config = config_type(classes=binning.classes, kind=kind, **SIZES[model] | options)
    card = ModelCard(model, asdict(config), binning, kind, seq_len)
    return Predictor(model_type(config), card)


def write(path, symbols) -> U16Stream:
    """A stream of these symbols; to be closed."""
    np.asarray(symbols).astype("<u2").tofile(path)
    return U16Stream(path)
