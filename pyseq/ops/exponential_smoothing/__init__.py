"""Exponential smoothing over time, with a trained weight for each head."""

from pyseq.ops.exponential_smoothing.api import exponential_smoothing

__all__ = ["exponential_smoothing"]
