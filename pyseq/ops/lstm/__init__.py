"""One LSTM layer over time, for a stack of models."""

from pyseq.ops.lstm.api import lstm

__all__ = ["lstm"]
