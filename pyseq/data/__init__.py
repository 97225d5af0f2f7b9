"""Streams of 16-bit symbols: files, windows, loaders, and generators with a known entropy."""

from pyseq.data import streams
from pyseq.data.u16_stream import U16Stream
from pyseq.data.window_dataset import WindowDataset
from pyseq.data.window_loader import WindowLoader

__all__ = ["U16Stream", "WindowDataset", "WindowLoader", "streams"]
