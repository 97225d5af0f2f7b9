"""Attention that sharpens itself where it is dispersed."""

from pyseq.ops.adaptive_attention.api import adaptive_attention

__all__ = ["adaptive_attention"]
