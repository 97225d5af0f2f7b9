"""Attention in which every query copies the value of its best key."""

from pyseq.ops.hard_attention.api import hard_attention

__all__ = ["hard_attention"]
