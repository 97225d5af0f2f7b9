"""Samples of a series straight to embeddings of its patches."""

from pyseq.ops.patch_embed.api import patch_embed

__all__ = ["patch_embed"]
