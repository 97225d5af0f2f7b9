"""Bits of tokens over bytes of text: exact, and with an interval that knows both vary together."""

import numpy as np
import pytest

from pyseq.analysis.bits_per_byte import bits_per_byte
from pyseq.analysis.intervals import block_bootstrap


def tokens(seed: int, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Bits and lengths of tokens that cost about 2 bits a byte."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, count)
    return np.maximum(2 * lengths + random.normal(0, 1, count), 0), lengths


def test_it_is_all_bits_over_all_bytes():
    bits, lengths = tokens(0)
    found = bits_per_byte(bits, lengths, block=50)
    assert found.value == pytest.approx(bits.sum() / lengths.sum())
    assert found.low < found.value < found.high


def test_tokens_of_one_length_have_the_interval_of_their_mean():
    bits, _ = tokens(0)
    found, mean = bits_per_byte(bits, np.full(2000, 4), block=50), block_bootstrap(bits, block=50)
    assert [found.value, found.low, found.high] == pytest.approx(
        [mean.value / 4, mean.low / 4, mean.high / 4]
    )


def test_the_interval_is_that_of_whole_tokens_drawn_again():
    bits, lengths = tokens(0)
    found = bits_per_byte(bits, lengths, block=1)
    draws = np.random.default_rng(1).integers(2000, size=(4000, 2000))
    ratios = bits[draws].sum(1) / lengths[draws].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    apart = block_bootstrap(bits, block=1).half_width / lengths.mean()
    assert found.half_width < 0.3 * apart


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        lengths = random.integers(1, 9, 500)
        found = bits_per_byte(2 * lengths + random.normal(0, 1, 500), lengths, block=5)
        held += found.low <= 2 <= found.high
    assert 180 <= held <= 199


@pytest.mark.parametrize(("bits", "lengths"), [([], []), ([1.0, 2.0], [1]), ([[1.0]], [[1]])])
def test_what_does_not_fit_is_told(bits, lengths):
    with pytest.raises(ValueError, match="two arrays"):
        bits_per_byte(bits, lengths, block=1)
