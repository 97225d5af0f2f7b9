"""Attention over normalised queries and keys, with a temperature that can be trained."""

from pyseq.ops.cosine_attention.api import cosine_attention

__all__ = ["cosine_attention"]
