"""What a run says it would have noticed, against simulation of the tests alone."""

import itertools

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.randomness.lag_information import LagInformation
from pyseq.analysis.randomness.lags import LAGS
from pyseq.analysis.randomness.power import (
    CHANCE,
    powers,
    single_symbol_bias,
    smallest_correlation,
    smallest_information,
    smallest_saving,
    symbols_for_bias,
)
from pyseq.analysis.randomness.views import plane, shifted

RUNS = 20_000
# Of a share of 0.9 in so many runs the standard deviation is 0.0021.
TOLERANCE = 0.01


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize(
    ("symbols", "k", "p_value"),
    [(20_000, 6, 1e-3), (1_000_000, 10_001, 4e-4), (5_000, 2, 1e-2), (100_000, 65_536, 4e-4)],
)
def test_the_bias_is_found_nine_times_in_ten(symbols, k, p_value):
    """The count test of `marginal_tests`: two sides, times the size of the alphabet."""
    bias = single_symbol_bias(symbols, k, p_value)

    def fires(share):
        counts = random().binomial(symbols, share, RUNS)
        upper = stats.binom.sf(counts - 1, symbols, 1 / k)
        lower = stats.binom.cdf(counts, symbols, 1 / k)
        return (2 * np.minimum(upper, lower) * k <= p_value).mean()

    assert fires((1 + bias) / k) == pytest.approx(CHANCE, abs=TOLERANCE)
    assert fires((1 + 0.7 * bias) / k) < CHANCE - 0.1
    assert fires(1 / k) <= 1.5 * p_value / k + 3 / RUNS


def test_the_test_that_is_run_fires_at_this_bias():
    """The test of the battery itself, on histograms of 2,000 streams."""
    from pyseq.analysis.randomness.marginal import DeclaredLaw

    k, symbols, p_value, runs = 64, 20_000, 4e-4, 2_000
    law = DeclaredLaw("uniform over 64", k)
    share = (1 + single_symbol_bias(symbols, k, p_value)) / k
    shares = np.full(k, (1 - share) / (k - 1))
    shares[9] = share
    fired = 0
    for counts in random().multinomial(symbols, shares, runs):
        symbol, _, p, _ = law.single_symbols(np.append(counts, np.zeros(65_536 - k, np.int64)))
        fired += symbol == 9 and p * k <= p_value
    assert fired / runs == pytest.approx(CHANCE, abs=0.03)


def test_no_bias_is_found_in_too_few_symbols():
    assert single_symbol_bias(1, 6, 1e-3) == np.inf
    assert np.isfinite(single_symbol_bias(10, 6, 1e-3))


@pytest.mark.parametrize(("k", "bias"), [(2, 0.01), (6, 0.5), (10_001, 0.3)])
def test_symbols_for_a_bias_is_its_inverse(k, bias):
    found = symbols_for_bias(bias, k, 4e-4)
    assert single_symbol_bias(found, k, 4e-4) <= bias
    # Counts that fire are whole numbers, so that 1 % fewer symbols may do now and then.
    assert single_symbol_bias(int(0.97 * found), k, 4e-4) > bias


@pytest.mark.parametrize(("symbols", "p_value"), [(10_000, 4e-4), (4_000, 1e-2)])
def test_the_correlation_is_found_nine_times_in_ten(symbols, p_value):
    """A chain x_t = r x_(t-1) + noise, of which lag 1 is looked at."""
    size = smallest_correlation(symbols, p_value)

    def fires(correlation, runs=4_000):
        draw, found = random(), 0
        for _ in range(runs // 100):
            x = draw.normal(size=(symbols, 100), loc=0.0).astype(np.float32)
            for t in range(1, symbols):
                x[t] = correlation * x[t - 1] + (1 - correlation**2) ** 0.5 * x[t]
            x -= x.mean(axis=0)
            r = (x[1:] * x[:-1]).sum(axis=0) / (x**2).sum(axis=0)
            z = (r + 1 / symbols) * symbols / (symbols - 1) ** 0.5
            found += (2 * stats.norm.sf(np.abs(z)) * LAGS <= p_value).sum()
        return found / runs

    # Of 4,000 runs the share's deviation is 0.005.
    assert fires(size) == pytest.approx(CHANCE, abs=0.02)
    assert fires(0.7 * size, 400) < 0.7


def information(symbols, classes=16, lags=80):
    """What shuffles of so many symbols show: about chi-square over 2 n ln 2."""
    degrees, scale = (classes - 1) ** 2, 2 * symbols * np.log(2)
    return LagInformation(
        lags=np.arange(1, lags + 1), bits=np.zeros(lags), null_mean=degrees / scale,
        null_deviation=(2 * degrees) ** 0.5 / scale, null_low=0.0, null_high=1.0, draws=10**12,
        classes=classes, symbols=symbols, p_values=np.ones(lags), null="", tail=True,
    )  # fmt: skip


def test_less_information_is_found_in_more_symbols():
    sizes = [smallest_information(information(n), 4e-4) for n in (1_000, 10_000, 100_000, 10**6)]
    assert all(later < before for before, later in itertools.pairwise(sizes))
    assert sizes[-1] > 0
    # The null's mean goes as 1 / n, and so does what is added to it.
    assert sizes[2] == pytest.approx(sizes[1] / 10, rel=1e-3)
    assert smallest_information(information(10_000), 1e-9) > sizes[1]
    assert smallest_information(information(10_000, classes=4), 4e-4) < sizes[1]


def test_the_information_is_found_nine_times_in_ten():
    """Pairs of a law with this mutual information: draws of a table (4, 4), estimated plug-in."""
    n, k, p_value = 20_000, 4, 4e-4
    null = information(n, classes=k)
    size = smallest_information(null, p_value)

    def table(strength):
        return (1 - strength) / k**2 + strength * np.eye(k) / k

    def bits(joint):
        outer = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
        return np.where(joint > 0, joint * np.log2(np.maximum(joint, 1e-300) / outer), 0).sum(
            axis=(-1, -2)
        )

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if bits(table(middle)) < size else (low, middle)
    counts = random().multinomial(n, table(high).ravel(), RUNS).reshape(RUNS, k, k)
    shape = (null.null_mean / null.null_deviation) ** 2
    p = stats.gamma.sf(bits(counts / n), shape, scale=null.null_mean / shape) * null.lags.size
    assert (p <= p_value).mean() == pytest.approx(CHANCE, abs=0.015)


def test_the_saving_pays_for_the_marginal_and_for_the_parts():
    nats = np.log(4 / 4e-4) + 0.5 * np.log(100_000)
    assert smallest_saving(100_000, 2, 4, 4e-4) == pytest.approx(nats / 100_000 / np.log(2))
    assert smallest_saving(100_000, 256, 4, 4e-4) > 20 * smallest_saving(100_000, 2, 4, 4e-4)
    assert np.isfinite(smallest_saving(0, 2, 1, 1e-3))


def test_this_saving_makes_the_e_value():
    """Bits of which q knows more than their frequencies, by exactly so much on average."""
    from pyseq.analysis.predictability.evidence import log_e_against_independence

    n, p_value = 50_000, 4e-4
    size = smallest_saving(n, 2, 1, p_value)
    x = random().integers(2, size=n)
    p = np.bincount(x) / n
    log_q = np.log(p[x]) + size * np.log(2)
    found = log_e_against_independence(log_q, x, 2)[-1]
    # The running maximum knows the whole prefix, so the last e-value has nothing to pay but size.
    assert found == pytest.approx(size * n * np.log(2), abs=1e-6)
    assert found - 0.5 * np.log(n) == pytest.approx(-np.log(p_value), abs=1e-6)


def test_what_is_said_of_each_question():
    views = [shifted(8), plane(0), shifted(4)]  # of which the smallest costs least
    found = list(
        powers(20_000, 6, 4e-4, declared_uniform=True, correlation=True,
               information=information(20_000), evidence=(17_500, views))
    )  # fmt: skip
    assert [power.question for power in found] == ["marginal", *["dependence"] * 3]
    assert found[0].size == single_symbol_bias(20_000, 6, 4e-4)
    assert found[1].size == smallest_correlation(20_000, 4e-4)
    assert found[2].size == smallest_information(information(20_000), 4e-4)
    assert found[3].size == smallest_saving(17_500, 2, 3, 4e-4)
    assert all(f"{power.size:.2g}" in power.text for power in found[1:])
    assert f"{found[0].size:.3g}" in found[0].text
    nothing = {"declared_uniform": False, "correlation": False, "information": None,
               "evidence": None}  # fmt: skip
    assert list(powers(20_000, 6, 4e-4, **nothing)) == []
    assert list(powers(20_000, 1, 4e-4, **nothing | {"declared_uniform": True})) == []
    assert list(powers(1, 6, 4e-4, **nothing | {"declared_uniform": True})) == []
