"""Lightning's Trainer as every training of this package uses it."""

import logging
import warnings
from typing import Any

import lightning
import torch

from pyseq.models.device import mixed_precision
from pyseq.training.config import TrainConfig


def make_trainer(config: TrainConfig, device: torch.device, **more: Any) -> lightning.Trainer:
    """A Trainer that computes where and how the flags say, and writes nothing by itself.

    Args:
        config (TrainConfig): precision, accumulation and clipping.
        device (torch.device): where the model runs.
        more: what else `lightning.Trainer` is to be told.
    """
    return quietly(
        lightning.Trainer,
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed" if mixed_precision(config.use_amp, device)[0] else "32-true",
        max_epochs=1,  # TrainingBatches strings the epochs together
        accumulate_grad_batches=config.gradient_accumulation,
        gradient_clip_val=config.clip or None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        **more,
    )


def quietly(call, *args, **kwargs):
    """Run a Lightning entry point without its remarks on hardware and data loaders."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            return call(*args, **kwargs)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
