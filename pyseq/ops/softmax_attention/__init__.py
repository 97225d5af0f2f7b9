"""Softmax attention, with lengths and with dropout of its weights."""

from pyseq.ops.softmax_attention.api import softmax_attention

__all__ = ["softmax_attention"]
