"""Bits of tokens per byte of the text they stand for, which can be compared across tokenizers."""

import numpy as np
from numpy.typing import ArrayLike

from pyseq.analysis.intervals import Interval, block_bootstrap


def bits_per_byte(bits: ArrayLike, lengths: ArrayLike, *, block: int) -> Interval:
    """The bits of a range of tokens over its bytes, with a 95 % interval.

    Args:
        bits (array (N,), float): of each token, as a predictor was charged.
        lengths (array (N,), integer): bytes that each token stands for, at least 1.
        block (int): length of a bootstrap block, in tokens.

    Returns:
        Interval: bits/byte. Tokens that stand for more bytes also cost more bits, so both vary
            together, and the ratio less than either.

    Raises:
        ValueError: the arrays are empty, of different lengths, or not finite.

    Source: Cochran 1977, Sampling Techniques, section 6.4 (the ratio's error to first order).
    """
    cost, size = np.asarray(bits, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if cost.ndim != 1 or cost.shape != size.shape or cost.size == 0:
        raise ValueError(
            f"bits_per_byte: bits has shape {cost.shape} and lengths {size.shape}; two arrays (N,)"
            " of the same N >= 1 fit"
        )
    ratio = float(cost.sum() / size.sum())
    error = block_bootstrap(cost - ratio * size, block=block)  # of the mean, which is 0
    return Interval(ratio, ratio + error.low / size.mean(), ratio + error.high / size.mean())
