"""What a run would have noticed: the smallest departures that its tests find nine times in ten.

A test of a family of M fires for sure, whatever the others say, where its p-value is at most
level / M (the first step of Holm's procedure); the powers here are those of that one test alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from pyseq.analysis.randomness.lag_information import LagInformation
from pyseq.analysis.randomness.lags import LAGS
from pyseq.analysis.randomness.views import View
from pyseq.analysis.stream_analysis import Power

CHANCE = 0.9


def single_symbol_bias(symbols: int, alphabet: int, p_value: float) -> float:
    """Smallest d so that one symbol of probability (1 + d) / k is found with chance CHANCE.

    Args:
        symbols (int): N.
        alphabet (int): k, at least 2.
        p_value (float): of the test of all symbols (`marginal.marginal_tests`, "single symbols")
            at which it fires.

    Returns:
        float: d, without unit; inf where not even a constant stream would be found.
    """
    each = p_value / alphabet / 2  # of each symbol, on two sides
    # The count that fires: the smallest c with P(count >= c) <= each.
    fires = float(stats.binom.isf(each, symbols, 1 / alphabet)) + 1
    if fires > symbols:
        return float("inf")

    def missing(p: float) -> float:
        return float(stats.binom.sf(fires - 1, symbols, p)) - CHANCE

    p = brentq(missing, 1 / alphabet, 1.0, xtol=1e-15, rtol=1e-9)
    return p * alphabet - 1


def symbols_for_bias(bias: float, alphabet: int, p_value: float) -> int:
    """Smallest N (within a hundredth) at which `single_symbol_bias` is at most `bias`.

    Args:
        bias (float): d > 0.
        alphabet (int): k, at least 2.
        p_value (float): at which the test fires.
    """
    low, high = 1.0, 2.0
    while single_symbol_bias(int(high), alphabet, p_value) > bias:
        low, high = high, 2 * high
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        if single_symbol_bias(int(middle), alphabet, p_value) > bias:
            low = middle
        else:
            high = middle
    return int(high)


def smallest_correlation(symbols: int, p_value: float) -> float:
    """Smallest autocorrelation at one of the lags 1..64 that is found with chance CHANCE."""
    fires = float(stats.norm.isf(p_value / LAGS / 2))
    return float((fires - stats.norm.isf(CHANCE)) / symbols**0.5)


def smallest_information(found: LagInformation, p_value: float) -> float:
    """Smallest mutual information (bits) at one lag that is found with chance CHANCE.

    2 n ln 2 times the estimate is noncentral chi-square, about. Infinite where shuffles alone
    decide, which no dependence of one lag among so many may convince.
    """
    if not found.tail:
        return float("inf")
    scale = 2 * found.symbols * np.log(2)
    fires = found.beyond(p_value / found.lags.size) * scale
    degrees = max(found.null_mean * scale, 1.0)

    def missing(more: float) -> float:
        return float(stats.ncx2.sf(fires, degrees, more)) - CHANCE

    most = 1.0
    while missing(most) < 0:
        most *= 2
    return float(brentq(missing, 0.0, most) / scale) if missing(0.0) < 0 else 0.0


def smallest_saving(symbols: int, classes: int, parts: int, p_value: float) -> float:
    """Bits per symbol that a predictor must save for an e-value of 1 / p_value, on average.

    The running maximum-likelihood marginal costs about (k - 1) / 2 ln N nats, and a mean of several
    e-processes is no smaller than each of them over their number.

    Args:
        symbols (int): N, over which evidence was gathered.
        classes (int): k.
        parts (int): how many e-processes are averaged.
        p_value (float): at which the evidence fires.
    """
    nats = np.log(parts / p_value) + (classes - 1) / 2 * np.log(max(symbols, 2))
    return float(nats / max(symbols, 1) / np.log(2))


def powers(
    symbols: int, alphabet: int, p_value: float, *, declared_uniform: bool,
    correlation: bool, information: LagInformation | None,
    evidence: tuple[int, Sequence[View]] | None,
) -> Iterator[Power]:  # fmt: skip
    """What the run would have noticed, for each question.

    Args:
        symbols (int): N.
        alphabet (int): k.
        p_value (float): at which each test fires, level / M.
        declared_uniform (bool): whether the marginal's null is uniform.
        correlation (bool): whether autocorrelation was tested.
        information (LagInformation or None): of the sample, where it was tested.
        evidence (tuple (symbols, views) or None): of the online mixture's e-processes.
    """
    if alphabet > 1 and declared_uniform:
        bias = single_symbol_bias(symbols, alphabet, p_value)
        if np.isfinite(bias):
            text = (
                f"one symbol of probability (1 + d)/{alphabet:,} with d of {bias:.3g} or more"
                if bias < alphabet - 1
                else "one symbol that comes nearly always"
            )
            yield Power("marginal", "one symbol of probability (1 + d)/k", bias, text, CHANCE)
    if correlation:
        size = smallest_correlation(symbols, p_value)
        text = f"an autocorrelation of {size:.2g} or more at one of the lags 1 to {LAGS}"
        yield Power("dependence", "autocorrelation at one lag", size, text, CHANCE)
    if information is not None:
        size = smallest_information(information, p_value)
        near = int(information.lags[information.lags <= LAGS].max())
        text = (
            f"mutual information of {size:.2g} bits or more between {information.classes} bins of "
            f"a symbol and of one 1 to {near} symbols before"
        )
        if np.isfinite(size):
            yield Power("dependence", "mutual information at one lag, bits", size, text, CHANCE)
    if evidence is not None:
        symbols, views = evidence
        view = min(views, key=lambda view: view.classes)
        size = smallest_saving(symbols, view.classes, len(views), p_value)
        text = f"a rule that saves the online mixture {size:.2g} bits/symbol or more on {view.name}"
        yield Power("dependence", f"bits/symbol saved on {view.name}", size, text, 0.5)
