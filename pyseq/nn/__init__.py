"""Modules over the ops."""

from pyseq.nn.cosine_attention import CosineAttention
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.nn.swiglu import SwiGLU

__all__ = ["CosineAttention", "RotaryEmbedding", "SwiGLU"]
