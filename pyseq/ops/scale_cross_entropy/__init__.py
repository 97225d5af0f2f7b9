"""Next-symbol loss at several resolutions, fused with the projection to the alphabet."""

from pyseq.ops.scale_cross_entropy.api import scale_cross_entropy

__all__ = ["scale_cross_entropy"]
