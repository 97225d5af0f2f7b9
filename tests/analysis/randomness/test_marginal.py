"""Tests of the marginal: exact expectations, what passes, what is found, entropies."""

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.randomness.marginal import DeclaredLaw, entropies, marginal_tests
from pyseq.analysis.randomness.views import View, shifted
from pyseq.data.streams import make


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def histogram(symbols):
    return np.bincount(symbols, minlength=65_536)


def p_values(counts, law):
    return {test.name: test.p_value for test in marginal_tests(counts, law)}


def cut_into(bins, k):
    """Symbols 0..k-1 in `bins` bins that look equal, but hold k // bins or one more."""
    table = np.minimum(np.arange(65_536) * bins // k, bins - 1).astype(np.uint16)
    return View(f"{bins} bins", table, bins)


def test_bins_that_hold_9_or_10_symbols_raise_no_alarm():
    """10,001 is no multiple of 1,024: equal expectations accuse every fair die of that many faces.

    The chance that one of 10 fair dice has a p-value below 1e-6 with exact ones is 1e-5.
    """
    k, view = 10_001, cut_into(1_024, 10_001)
    held = np.bincount(view.table[:k])
    assert set(held) == {9, 10}
    law = DeclaredLaw("uniform over 10,001", k)
    for seed in range(10):
        counts = histogram(random(seed).integers(k, size=1_000_000))
        _, exact, null = law.chi_square(counts, view)
        assert null == "chi-square, 1,023 df"
        assert exact > 1e-6
        equal = stats.chisquare(view.fold(counts)).pvalue
        assert equal < 1e-30


def test_p_values_with_exact_expectations_are_uniform():
    k, view = 1_001, cut_into(128, 1_001)
    law = DeclaredLaw("uniform over 1,001", k)
    found = [
        law.chi_square(histogram(random(seed).integers(k, size=20_000)), view)[1]
        for seed in range(300)
    ]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_rolls_of_a_fair_game_pass():
    counts = histogram(make("hmac_rolls").generate(300_000, 7).numpy())
    found = p_values(counts, DeclaredLaw("uniform over 10,001", 10_001))
    assert set(found) == {"histogram", "single symbols", "coarser scales", "low bits"}
    assert min(found.values()) > 1e-3


def test_a_biased_die_is_found_and_named():
    counts = histogram(make("biased").generate(5_000, 1).numpy())
    tests = {test.name: test for test in marginal_tests(counts, DeclaredLaw("a die", 6))}
    assert tests["histogram"].p_value < 1e-20
    assert tests["single symbols"].p_value < 1e-20
    assert tests["single symbols"].finding == "symbol 0 comes too often"
    assert f"symbol 0: {counts[0]:,} times, 833.3 expected" in tests["single symbols"].statistic
    assert all(test.question == "marginal" and test.symbols == 5_000 for test in tests.values())


def test_a_symbol_that_never_comes_is_found():
    x = random().integers(15, size=3_000)
    tests = list(marginal_tests(histogram(x + (x >= 4)), DeclaredLaw("uniform over 16", 16)))
    [single] = [test for test in tests if test.name == "single symbols"]
    assert single.finding == "symbol 4 comes too rarely"
    assert single.p_value == pytest.approx(2 * 16 * (15 / 16) ** 3_000, rel=1e-6)


@pytest.mark.parametrize(("count", "k"), [(50, 6), (300, 2), (40, 3)])
def test_single_symbols_equal_the_smallest_of_exact_tails(count, k):
    counts = np.bincount(random(count).integers(k, size=count), minlength=65_536)
    _, _, p, _ = DeclaredLaw("", k).single_symbols(counts)
    tails = [
        min(1.0, 2 * min(stats.binom.sf(n - 1, count, 1 / k), stats.binom.cdf(n, count, 1 / k)))
        for n in counts[:k]
    ]
    assert p == pytest.approx(min(tails))


def test_two_samples_of_one_law_pass_and_others_are_found():
    weights = np.arange(1, 301) ** -0.8
    weights /= weights.sum()
    ours, theirs, least = random(1), random(2), []
    for _ in range(100):
        law = DeclaredLaw(
            "that of a sample", 300,
            np.append(theirs.multinomial(20_000, weights), np.zeros(65_236, np.int64)),
        )  # fmt: skip
        counts = np.append(ours.multinomial(10_000, weights), np.zeros(65_236, np.int64))
        least.append(p_values(counts, law)["histogram"])
    assert stats.kstest(least, "uniform").pvalue > 1e-3
    changed = weights.copy()
    changed[[0, 1]] += [0.02, -0.02]
    tests = {
        test.name: test
        for test in marginal_tests(
            np.append(ours.multinomial(10_000, changed), np.zeros(65_236, np.int64)), law
        )
    }
    assert tests["histogram"].p_value < 1e-5
    assert tests["single symbols"].p_value < 1e-3
    assert tests["single symbols"].finding.startswith(("symbol 0 comes too often",
                                                       "symbol 1 comes too rarely"))  # fmt: skip


def test_a_symbol_that_the_sample_never_held_is_found():
    law = DeclaredLaw("that of a sample", 8, histogram(random(1).integers(7, size=20_000)))
    counts = histogram(random(2).integers(8, size=20_000))
    [single] = [test for test in marginal_tests(counts, law) if test.name == "single symbols"]
    assert single.finding == "symbol 7 comes too often"
    assert single.p_value < 1e-100


def test_the_sample_weighs_as_the_law_that_it_came_from():
    """With a large sample the two-sample test nears the one of the declared law itself."""
    even = DeclaredLaw("uniform over 50", 50)
    large = DeclaredLaw("that of a sample", 50, np.where(np.arange(65_536) < 50, 1_000_000_000, 0))
    counts = histogram(random(3).integers(50, size=5_000))
    ours, theirs = (law.chi_square(counts, shifted(0)) for law in (even, large))
    assert theirs[0] == pytest.approx(ours[0], rel=1e-4)
    assert theirs[1] == pytest.approx(ours[1], rel=1e-3)


def test_entropies():
    counts = np.zeros(65_536, np.int64)
    assert entropies(counts) == (0.0, 0.0)
    counts[3] = 10
    assert entropies(counts) == (0.0, 0.0)
    counts[[5, 9]] = [20, 10]
    assert entropies(counts) == (1.5, 1.0)
    assert entropies(np.ones(65_536, np.int64)) == pytest.approx((16.0, 16.0))
    x = random().integers(100, size=10_000)
    p = np.bincount(x) / x.size
    assert entropies(histogram(x)) == pytest.approx((stats.entropy(p, base=2), -np.log2(p.max())))
