"""Attention of the newest queries over a cache of prepared keys."""

from pyseq.ops.cosine_decode.api import cosine_decode

__all__ = ["cosine_decode"]
