"""Two linear layers with an activation and dropout between them, for a stack of models."""

from pyseq.ops.feed_forward.api import feed_forward

__all__ = ["feed_forward"]
