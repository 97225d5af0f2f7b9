"""Keys normalised and rotated once, for a cache."""

from pyseq.ops.prepare_keys.api import prepare_keys

__all__ = ["prepare_keys"]
