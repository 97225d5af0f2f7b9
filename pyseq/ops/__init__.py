"""Functional ops: meaning, checks, choice of backend and autograd."""

from pyseq.errors import BackendUnavailable
from pyseq.ops.adaptive_attention import adaptive_attention
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.cosine_decode import cosine_decode
from pyseq.ops.exponential_smoothing import exponential_smoothing
from pyseq.ops.feed_forward import feed_forward
from pyseq.ops.gather_windows import gather_windows
from pyseq.ops.hard_attention import hard_attention
from pyseq.ops.lstm import lstm
from pyseq.ops.patch_embed import patch_embed
from pyseq.ops.prepare_keys import prepare_keys
from pyseq.ops.scale_cross_entropy import scale_cross_entropy
from pyseq.ops.softmax_attention import softmax_attention

__all__ = [
    "BackendUnavailable",
    "adaptive_attention",
    "cosine_attention",
    "cosine_decode",
    "exponential_smoothing",
    "feed_forward",
    "gather_windows",
    "hard_attention",
    "lstm",
    "patch_embed",
    "prepare_keys",
    "scale_cross_entropy",
    "softmax_attention",
]
