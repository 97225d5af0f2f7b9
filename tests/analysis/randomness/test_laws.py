"""The laws behind the p-values against enumeration and simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.randomness import lag_information, linear, spectrum
from pyseq.analysis.randomness.lags import correlation_scores, correlations, equality_moments
from pyseq.analysis.randomness.runs_and_gaps import gaps_p_value, longest_run_p_value, runs_p_value
from pyseq.analysis.randomness.tails import contingency, count_tail, pooled
from pyseq.analysis.randomness.views import plane, quantile_bins, shifted
from tests.analysis.randomness.batteries import pass_counts


def orders(counts):
    """Every distinct order of counts[s] symbols s."""
    symbols = [s for s, n in enumerate(counts) for _ in range(n)]
    return np.array(sorted(set(itertools.permutations(symbols))))


def runs_of(order):
    return 1 + int(np.count_nonzero(np.diff(order)))


@pytest.mark.parametrize("counts", [(3, 5), (1, 7), (4, 4), (1, 1)])
def test_runs_law_equals_enumeration(counts):
    found = np.array([runs_of(order) for order in orders(counts)])
    for runs in range(1, sum(counts) + 1):
        two_sided = 2 * min((found <= runs).mean(), (found >= runs).mean())
        assert runs_p_value(runs, *counts)[0] == pytest.approx(min(1, two_sided), abs=1e-12)


def test_normal_runs_meet_the_exact_law_where_both_hold(monkeypatch):
    exact, _ = runs_p_value(100_500, 100_000, 100_000)
    monkeypatch.setattr("pyseq.analysis.randomness.runs_and_gaps._MOST_EXACT", 10)
    normal, null = runs_p_value(100_500, 100_000, 100_000)
    assert null == "normal"
    assert normal == pytest.approx(exact, rel=0.03)


def test_runs_of_a_billion_symbols_do_not_overflow():
    """2 n1 n0 (2 n1 n0 - n) has 36 digits here."""
    assert runs_p_value(500_000_001, 500_000_000, 500_000_000)[0] == pytest.approx(1.0, abs=1e-3)
    assert runs_p_value(500_050_000, 500_000_000, 500_000_000)[0] == pytest.approx(
        2 * stats.norm.sf(49_999 / 5e8**0.5 * 2**0.5), rel=0.01
    )


@pytest.mark.parametrize("counts", [(3, 4), (2, 2, 2), (1, 6)])
def test_longest_run_bound_is_no_less_than_the_chance(counts):
    longest = [max(len(list(g)) for _, g in itertools.groupby(order)) for order in orders(counts)]
    for length in range(1, max(counts) + 1):
        bound = longest_run_p_value(length, np.array(counts), sum(counts))
        assert bound >= np.mean(np.array(longest) >= length) - 1e-12
    assert longest_run_p_value(max(counts) + 1, np.array(counts), sum(counts)) == 0


def test_longest_run_bound_has_one_value_across_its_two_formulas():
    counts, total = np.array([900_000_000, 50]), 1_000_000_000
    near, far = (longest_run_p_value(length, counts, total) for length in (1_000, 1_001))
    assert far == pytest.approx(0.9 * near, rel=1e-3)


@pytest.mark.parametrize("counts", [(3, 4), (2, 2, 3), (1, 6), (1, 1, 1, 1, 2)])
@pytest.mark.parametrize("lag", [1, 2, 4])
def test_equality_moments_equal_enumeration(counts, lag):
    x = orders(counts)
    equal = (x[:, lag:] == x[:, :-lag]).sum(axis=1)
    mean, variance = equality_moments(np.array(counts), np.array([lag]))
    assert mean[0] == pytest.approx(equal.mean())
    assert variance[0] == pytest.approx(equal.var(), abs=1e-12)


def test_equality_moments_keep_their_digits_at_a_billion_symbols():
    mean, variance = equality_moments(np.array([500_000_000, 500_000_000]), np.array([1]))
    assert mean[0] == pytest.approx(499_999_999.0, abs=2)
    assert variance[0] == pytest.approx(2.5e8, rel=1e-3)


def test_correlations_equal_the_definition():
    x = np.random.Generator(np.random.PCG64(0)).integers(65_536, size=3_000).astype(np.uint16)
    found = correlations(pass_counts(x))
    c = x - x.mean()
    expected = [(c[k:] * c[:-k]).sum() / (c**2).sum() for k in range(1, 65)]
    assert np.allclose(found, expected, atol=1e-12)


def test_correlation_scores_are_standard_under_shuffles():
    random = np.random.Generator(np.random.PCG64(0))
    x = random.integers(100, size=400).astype(np.uint16)
    scores = np.array([
        correlation_scores(correlations(pass_counts(random.permutation(x))), x.size)
        for _ in range(600)
    ])  # fmt: skip
    assert abs(scores.mean()) < 0.02
    assert scores.std() == pytest.approx(1.0, abs=0.03)


def test_gaps_follow_the_geometric_law():
    random = np.random.Generator(np.random.PCG64(0))
    p_values = []
    for _ in range(300):
        gaps = random.geometric(1 / 16, 3_000)
        counts = np.bincount(np.minimum(gaps, 512) - 1, minlength=512)
        p_values.append(gaps_p_value(counts, 1 / 16)[1])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_count_tail_is_no_smaller_than_the_law_of_rare_and_of_frequent_counts():
    for mean in (0.01, 1.0, 30.0):
        for count in range(int(mean) + 1, int(mean) + 40):
            exact = stats.poisson.sf(count - 1, mean)
            assert count_tail(count - mean, mean) >= min(1, 2 * exact) * (1 - 1e-9)
    assert count_tail(5_000.0, 1e6) == pytest.approx(2 * stats.norm.sf(5), rel=0.1)
    for mean in (0.1, 2.0):  # two at a time, as where one of two symbols dominates
        for pairs in range(int(mean) + 1, int(mean) + 20):
            found = count_tail(2 * (pairs - mean), 4 * mean, step=2)
            assert found >= min(1, 2 * stats.poisson.sf(pairs - 1, mean)) * (1 - 1e-9)
    assert count_tail(0.0, 0.0) == 1
    assert count_tail(3.0, 0.0) == 0


def test_pooling_depends_on_the_expectation_only_and_keeps_sums():
    counts, expected = np.arange(100), np.full(100, 0.7)
    observed, wanted = pooled(counts, expected)
    assert observed.sum() == counts.sum()
    assert wanted.sum() == pytest.approx(70)
    assert wanted.min() >= 10


def test_contingency_agrees_with_scipy():
    table = np.random.Generator(np.random.PCG64(0)).integers(500, 900, size=(5, 7))
    statistic, degrees = contingency(table)
    expected = stats.chi2_contingency(table, correction=False)
    assert (statistic, degrees) == (pytest.approx(expected.statistic), expected.dof)


def test_spectrum_finds_the_power_of_a_line_and_the_correlation_of_a_circle():
    t = np.arange(1_000)
    found = spectrum.spectrum_of(np.cos(2 * np.pi * 50 * t / 1_000))
    assert found.power[49] == pytest.approx(1.0)
    assert found.correlation[19] == pytest.approx(1.0)  # a period of 20
    assert (found.power.size, found.correlation.size) == (499, 500)


def test_spectrum_p_values_of_noise_are_uniform():
    random = np.random.Generator(np.random.PCG64(0))
    found = spectrum.spectrum_of(random.integers(1_000, size=(2_000, 1_200)).astype(float))
    bartlett = [spectrum.bartlett_p_value(d, 599) for d in found.bartlett]
    assert stats.kstest(bartlett, "uniform").pvalue > 1e-3
    fisher = np.array([spectrum.fisher_p_value(g, 599) for g in found.fisher])
    lags = np.array([spectrum.any_lag_p_value(r, 1_200) for r in found.largest_echo])
    for p_values in (fisher, lags):  # bounds, close where they matter
        assert 0.03 <= (p_values <= 0.05).mean() <= 0.066


def test_lag_information_equals_the_definition():
    random = np.random.Generator(np.random.PCG64(0))
    x = random.integers(50, size=2_000).astype(np.uint16)
    found = lag_information.lag_information(x, seed=0)
    view = quantile_bins(np.bincount(x, minlength=65_536), 14)
    c = view.table[x]
    for lag, bits in zip(found.lags, found.bits, strict=True):
        joint = np.zeros((view.classes, view.classes))
        np.add.at(joint, (np.roll(c, lag), c), 1 / x.size)
        outer = np.outer(joint.sum(1), joint.sum(0))
        expected = (joint[joint > 0] * np.log2(joint[joint > 0] / outer[joint > 0])).sum()
        assert bits == pytest.approx(expected, abs=1e-9)
    assert found.classes == view.classes
    # Without a null the estimate would look like dependence: it is biased upward.
    assert found.bits.mean() == pytest.approx(found.null_mean, rel=0.05)
    assert found.null_mean > 0.05


def test_shuffles_depend_on_the_seed_only():
    x = np.arange(500).astype(np.uint16) % 7
    first, again, other = (lag_information.lag_information(x, seed=s) for s in (1, 1, 2))
    assert first.null_mean == again.null_mean != other.null_mean


def brute_complexity(bits):
    """The shortest recurrence by trying all."""
    n = len(bits)
    for length in range(n + 1):
        for taps in itertools.product((0, 1), repeat=length):
            if all(
                bits[t] == sum(c & bits[t - 1 - i] for i, c in enumerate(taps)) % 2
                for t in range(length, n)
            ):
                return length
    raise AssertionError


def test_linear_complexity_equals_trying_every_recurrence():
    found = np.zeros(9, int)
    for bits in itertools.product((0, 1), repeat=8):
        complexity = linear.linear_complexity(np.array(bits, np.uint8))
        assert complexity == brute_complexity(bits)
        found[complexity] += 1
    for complexity in range(9):
        lower, upper = found[: complexity + 1].sum(), found[complexity:].sum()
        expected = min(1, 2 * min(lower, upper) / 256)
        assert linear.complexity_p_value(complexity, 8) == pytest.approx(expected)


def plain_complexity(bits):
    """Massey's algorithm on lists, a bit at a time."""
    connection, before, length, since = [1], [1], 0, 1
    for n in range(len(bits)):
        met = sum(c & bits[n - i] for i, c in enumerate(connection) if i <= n) % 2
        if met:
            size = max(len(connection), len(before) + since)
            new = connection + [0] * (size - len(connection))
            for i, c in enumerate(before):
                new[i + since] ^= c
            if 2 * length <= n:
                connection, before, length, since = new, connection, n + 1 - length, 1
                continue
            connection = new
        since += 1
    return length


@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 127, 129])
def test_linear_complexity_equals_the_plain_algorithm(length):
    random = np.random.Generator(np.random.PCG64(length))
    bits = random.integers(2, size=700).astype(np.uint8)
    assert linear.linear_complexity(bits) == plain_complexity(bits.tolist())
    taps = random.integers(2, size=length)
    for t in range(length, bits.size):
        bits[t] = (taps & bits[t - length : t][::-1]).sum() & 1
    assert linear.linear_complexity(bits) == plain_complexity(bits.tolist()) <= length


def rank_by_elimination(matrix):
    matrix, rank = matrix.copy(), 0
    for column in range(matrix.shape[1]):
        pivots = np.flatnonzero(matrix[rank:, column]) + rank
        if pivots.size:
            matrix[[rank, pivots[0]]] = matrix[[pivots[0], rank]]
            others = np.flatnonzero(matrix[:, column])
            matrix[others[others != rank]] ^= matrix[rank]
            rank += 1
    return rank


def test_ranks_equal_elimination_and_their_law():
    random = np.random.Generator(np.random.PCG64(0))
    bits = random.integers(2, size=64 * 64 * 400).astype(np.uint8)
    found = linear.binary_ranks(bits)
    for k in range(20):
        assert found[k] == rank_by_elimination(bits.reshape(-1, 64, 64)[k].astype(int))
    law = linear.rank_law(64, 62)
    assert law == pytest.approx([0.1336, 0.5776, 0.2888], abs=1e-4)
    observed = np.bincount(np.maximum(found, 62) - 62, minlength=3)
    assert stats.chisquare(observed, law * found.size).pvalue > 1e-4
    assert linear.binary_ranks(np.zeros(4_096, np.uint8)).tolist() == [0]
    assert 1e-3 < linear.rank_p_value(found) <= 1
    assert linear.rank_p_value(np.full(100, 62)) < 1e-80
    small = linear.rank_law(3, 0)  # of 512 matrices
    assert (small * 512).round(6).tolist() == [1, 49, 294, 168]


def test_rank_p_values_are_as_rare_as_they_say():
    """Of 244 matrices, as a million bits make: drawn from the law of the ranks."""
    law = linear.rank_law(64, 62)
    random = np.random.Generator(np.random.PCG64(0))
    draws = random.choice(np.array([62, 63, 64]), size=(20_000, 244), p=law / law.sum())
    p_values = np.array([linear.rank_p_value(ranks) for ranks in draws])
    for level in (0.05, 1e-2, 1e-3):
        assert (p_values <= level).sum() <= stats.binom.isf(1e-4, p_values.size, level)
    assert (p_values <= 0.05).mean() > 0.02


def test_uneven_bits_are_made_fair_or_left_out():
    random = np.random.Generator(np.random.PCG64(0))
    bits = (random.random(2**18) < 0.2).astype(np.uint8)
    fair = linear.fair_bits(bits)
    assert abs(fair.mean() - 0.5) < 0.01
    assert linear.fair_bits((random.random(2**18) < 0.02).astype(np.uint8)) is None


def test_views():
    counts = np.zeros(65_536, np.int64)
    counts[[3, 9, 40_000]] = [50, 25, 25]
    assert quantile_bins(counts, 2).table[[0, 3, 9, 40_000, 65_535]].tolist() == [0, 0, 1, 1, 1]
    assert quantile_bins(counts, 16).classes == 3
    assert shifted(3).fold(np.ones(65_536, int)).tolist() == [8] * 8_192
    assert plane(15).table[[0, 32_767, 32_768]].tolist() == [0, 0, 1]
