"""How small general compressors make a sample: a description beside the tests, and no test."""

from __future__ import annotations

import lzma

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.stream_analysis import Compressed

SAMPLE = 1 << 19  # symbols: a second or two of xz


def compressed_sizes(symbols: NDArray[np.uint16], alphabet: int, seed: int) -> list[Compressed]:
    """Bits per symbol under xz and zstd, beside the same symbols in random order.

    Args:
        symbols (array (n,), uint16): n >= 1; one byte each where the alphabet has at most 256.
        alphabet (int): k.
        seed (int): of the shuffle.

    Returns:
        list of Compressed; without zstd where its package is not installed.
    """
    packed = symbols.astype("u1" if alphabet <= 256 else "<u2")
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(packed)
    sizes = []
    for name, compress in _compressors():
        bits, shuffled_bits = (8 * len(compress(x.tobytes())) / x.size for x in (packed, shuffled))
        sizes.append(Compressed(name, int(symbols.size), bits, shuffled_bits))
    return sizes


def _compressors():
    yield "xz -9e", lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    try:
        import zstandard
    except ImportError:
        return
    yield "zstd -19", zstandard.ZstdCompressor(level=19).compress
