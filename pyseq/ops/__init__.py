"""Functional ops: meaning, checks, choice of backend and autograd."""

from pyseq.errors import BackendUnavailable
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.gather_windows import gather_windows

__all__ = ["BackendUnavailable", "cosine_attention", "gather_windows"]
