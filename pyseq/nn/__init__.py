"""Modules over the ops."""

from pyseq.nn.adaptive_attention import AdaptiveAttention
from pyseq.nn.cosine_attention import CosineAttention
from pyseq.nn.exponential_smoothing_attention import ExponentialSmoothingAttention, SmoothingState
from pyseq.nn.fourier_attention import FourierAttention, FourierState
from pyseq.nn.hard_attention import HardAttention
from pyseq.nn.key_value_cache import KeyValueCache
from pyseq.nn.memory_tokens import MemoryTokens
from pyseq.nn.patch_embedding import PatchEmbedding, Patches
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.nn.scale_aware_head import ScaleAwareHead
from pyseq.nn.scale_aware_loss import ScaleAwareLoss
from pyseq.nn.swiglu import SwiGLU

__all__ = [
    "AdaptiveAttention",
    "CosineAttention",
    "ExponentialSmoothingAttention",
    "FourierAttention",
    "FourierState",
    "HardAttention",
    "KeyValueCache",
    "MemoryTokens",
    "PatchEmbedding",
    "Patches",
    "RotaryEmbedding",
    "ScaleAwareHead",
    "ScaleAwareLoss",
    "SmoothingState",
    "SwiGLU",
]
