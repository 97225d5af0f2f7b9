"""Streams of 16-bit symbols: files, windows, loaders, generators; formal grammars; modalities."""

from pyseq.data import grammars, modalities, streams
from pyseq.data.u16_stream import U16Stream
from pyseq.data.window_dataset import WindowDataset
from pyseq.data.window_loader import WindowLoader

__all__ = ["U16Stream", "WindowDataset", "WindowLoader", "grammars", "modalities", "streams"]
