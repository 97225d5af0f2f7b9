"""Structure of each kind is found by the test that is made for it."""

import numpy as np
import pytest

from tests.analysis.randomness.batteries import battery


def random(seed=3):
    return np.random.Generator(np.random.PCG64(seed))


def least(tests, beginning):
    found = [test for test in tests if test.name.startswith(beginning)]
    assert found, (beginning, [test.name for test in tests])
    return min(found, key=lambda test: test.p_value)


def biased_symbol():
    x = random().integers(1_000, size=100_000)
    return np.where(random(4).random(x.size) < 0.002, 17, x), 1_000


def uneven_scale():
    """Even over symbols' parity and size but not over x >> 9: 3 % more in the lower half."""
    x = random().integers(1_024, size=40_000)
    return np.where((x >= 512) & (random(4).random(x.size) < 0.06), x - 512, x), 1_024


def sticky():
    x = random().integers(256, size=30_000)
    stays = random(4).random(x.size) < 0.05
    for t in range(1, x.size):
        x[t] = x[t - 1] if stays[t] else x[t]
    return x, 256


def one_long_run():
    x = random().integers(16, size=50_000)
    x[20_000:20_012] = 5
    return x, 16


def echo():
    x = random().integers(4_096, size=40_000)
    copies = random(4).random(x.size) < 0.08
    x[12_345:][copies[12_345:]] = x[:-12_345][copies[12_345:]]
    return x, 4_096


def sine():
    t = np.arange(60_000)
    return np.rint(2_048 + 1_000 * (random().random(t.size) - 0.5) + 25 * np.sin(t / 7)), 4_096


def shift_register():
    """Bits of x^31 + x^3 + 1, four to a symbol."""
    bits = np.ones(1_300_000, np.uint8)
    bits[:31] = random().integers(2, size=31)
    for t in range(31, bits.size):
        bits[t] = bits[t - 3] ^ bits[t - 31]
    return bits.reshape(-1, 4) @ np.array([8, 4, 2, 1]), 16


def hidden_bit():
    """The low bit is the exclusive or of the two before; all else is noise."""
    x = random().integers(65_536, size=40_000) & 0xFFFE
    bits = random(5).integers(2, size=x.size)
    for t in range(2, x.size):
        if random_chance[t] < 0.9:
            bits[t] = bits[t - 1]
    return x | bits, 65_536


random_chance = random(6).random(40_000)


def magnitude_pairs():
    """Uncorrelated but dependent: the sign is free, the size repeats after 9."""
    size, sign = random().random(60_000), random(4).choice([-1, 1], 60_000)
    for t in range(9, size.size):
        size[t] = 0.5 * size[t] + 0.5 * size[t - 9]
    return np.rint(32_768 + 30_000 * size * sign), 65_536


def restless():
    """A law of one width for 2,000 symbols, of another for the next 2,000."""
    wide = np.arange(40_000) // 2_000 % 2
    return np.rint(32_768 + random().standard_normal(40_000) * (3_000 + 1_000 * wide)), 65_536


def even_pairs():
    """Both symbols of a pair have an even number of ones, or both an odd one; all else is noise."""
    x = random().integers(65_536, size=(20_000, 2))
    odd = np.bitwise_count(x) & 1
    x[:, 1] ^= odd[:, 0] ^ odd[:, 1]
    return x.ravel(), 65_536


CASES = {
    "single symbols": biased_symbol,
    "histogram": biased_symbol,
    "coarser scales": uneven_scale,
    "runs above and below": sticky,
    "equal symbols, one of lags": sticky,
    "pairs: low byte, then low": sticky,
    "autocorrelation": sticky,
    "gaps": sticky,
    "longest run of one symbol": one_long_run,
    "correlation of the symbols at any lag": echo,
    "a single line in the spectrum of the symbols": sine,
    "the whole spectrum of the bits": hidden_bit,
    "pairs of bits": hidden_bit,
    "linear complexity": shift_register,
    "rank": shift_register,
    "mutual information": magnitude_pairs,
    "the whole spectrum of the distances": restless,
    "correlation of the bits": even_pairs,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_found(name):
    symbols, alphabet = CASES[name]()
    found = least(battery(np.asarray(symbols).astype(np.uint16), alphabet), name)
    assert found.p_value < 1e-5, found


def test_a_second_half_that_copies_the_first_is_found():
    half = random().integers(65_536, size=20_000).astype(np.uint16)
    found = least(battery(np.tile(half, 2), 65_536), "correlation of the symbols")
    assert found.p_value < 1e-100
    assert "lag 20,000" in found.statistic


def test_the_echo_is_named():
    symbols, alphabet = echo()
    found = least(battery(symbols.astype(np.uint16), alphabet), "correlation of the symbols")
    assert "lag 12,345" in found.statistic
    assert found.finding == "the symbols correlate with those 12,345 before"
