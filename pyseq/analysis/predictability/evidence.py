"""Evidence against a declared null, valid at any time: e-processes of a predictor.

A predictor q gives each symbol a probability before it comes. Under a null that gives it p0 the
product of q(x_i | past) / p0(x_i) is a martingale that starts at 1 and cannot be expected to grow,
whatever q is and however it learns on the way. That it ever reaches 1 / a has a probability of at
most a (Ville), so that who looks after every symbol, and stops when it looks good, is not fooled.

Where the null is "independent draws of a law that nobody knows", the product is divided by the
largest likelihood that any fixed law gives to the **same prefix**, known only in hindsight. This is
never more than the product with the true law, whichever that is, so it is covered by the same
bound. The price is about (k - 1) / 2 ln N nats for k classes.

A law fitted on training symbols is no such divisor. It is off by about (k - 1) / (2 M) nats per
symbol for M training symbols, and a predictor that goes on counting comes nearer to the true law,
so that the quotient grows on symbols that depend on nothing: with k = 64, M = 1,000 and 10,000
further symbols, 300 of 300 independent streams crossed 20 that way, and 0 of 300 with the law of
the prefix.

Logarithms are natural (nats) where nothing else is said.

Sources: Ville 1939, Etude critique de la notion de collectif; Wasserman, Ramdas and Balakrishnan
2020, Universal inference; Grünwald, de Heide and Koolen 2024, Safe testing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.analysis.intervals import Interval, block_bootstrap

MOST_CLASSES = 256
MOST_POINTS = 1000  # of a path that is kept
_CHUNK = 1 << 20  # symbols whose increments are made at once
_ROW = 1 << 12  # terms that are added one after the other before their sum is compensated
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Evidence:
    """What an e-process shows against its null.

    Attributes:
        null (str): what the evidence is against, in words.
        symbols (int): how many were seen, N.
        log_e (float): after the last symbol, nats.
        log_e_max (float): the largest of any time, nats; at least 0, for E is 1 at the start.
        level (float): of `first_exceeds`; no unit.
        first_exceeds (int | None): symbols after which E first was at least 1 / level.
        p_value (float): min(1, 1 / largest E), valid at any time; 0 where it is below 1e-323.
        path (tuple of (M,) int64 and (M,) float64): symbols seen, from 0, and log10 of E after
            them; M <= 1000 points, half of them evenly spread, half by equal factors, the last and
            the largest among them.
        saved_bits (Interval): bits per symbol that the predictor saves against the null's code, for
            independent draws the shortest one in hindsight; mean with a 95 % interval by blocks.
    """

    null: str
    symbols: int
    log_e: float
    log_e_max: float
    level: float
    first_exceeds: int | None
    p_value: float
    path: tuple[NDArray[np.int64], NDArray[np.float64]]
    saved_bits: Interval


def evidence_against_law(
    log_q: ArrayLike,
    classes: ArrayLike,
    law: int | ArrayLike,
    *,
    level: float = 0.01,
    block: int = 256,
    seed: int = 0,
) -> Evidence:
    """Evidence that symbols are no independent draws of a declared law.

    Args:
        log_q (array (N,), float): log-probability, in nats, that the predictor gave to each class
            before it came; N >= 1.
        classes (array (N,), integer): what came.
        law (int or array (k,), float): k for the uniform law over k classes, or the probability of
            each class.
        level (float): in (0, 1); see `Evidence`.
        block (int): length of a bootstrap block; at least the predictor's context.
        seed (int): of the bootstrap.

    Returns:
        Evidence: rejects at any level a where the p-value is at most a.

    Raises:
        ValueError: what does not fit; see `log_e_against_law`.
    """
    path = log_e_against_law(log_q, classes, law)
    if isinstance(law, int):
        null = f"independent draws, uniform over {law:,} classes"
    else:
        null = f"independent draws of the declared law over {np.size(law):,} classes"
    gains = np.asarray(log_q, np.float64) - _log_law(law)[np.asarray(classes)]
    return conclude(path, null, gains, level=level, block=block, seed=seed)


def evidence_against_independence(
    log_q: ArrayLike,
    classes: ArrayLike,
    k: int,
    *,
    level: float = 0.01,
    block: int = 256,
    seed: int = 0,
) -> Evidence:
    """Evidence that symbols are no independent draws of one law, whichever.

    Args:
        log_q (array (N,), float): log-probability, in nats, that the predictor gave to each class
            before it came; N >= 1.
        classes (array (N,), integer): what came, 0..k-1.
        k (int): number of classes, 1 to 256.
        level (float): in (0, 1); see `Evidence`.
        block (int): length of a bootstrap block; at least the predictor's context.
        seed (int): of the bootstrap.

    Returns:
        Evidence: rejects at any level a where the p-value is at most a. A law that drifts is no one
        law, and counts as structure.

    Raises:
        ValueError: what does not fit; see `log_e_against_independence`.
    """
    path = log_e_against_independence(log_q, classes, k)
    came = np.asarray(classes)
    frequency = np.bincount(came, minlength=k) / came.size
    gains = np.asarray(log_q, np.float64) - np.log(frequency[came])
    null = f"independent draws of one unknown law over {k:,} classes"
    return conclude(path, null, gains, level=level, block=block, seed=seed)


def log_e_against_law(
    log_q: ArrayLike, classes: ArrayLike, law: int | ArrayLike
) -> NDArray[np.float64]:
    """The e-process against a declared law: sum of log q - log p0.

    Args:
        log_q (array (N,), float): log-probability of each class before it came, nats.
        classes (array (N,), integer): what came.
        law (int or array (k,), float): k for the uniform law, or probabilities.

    Returns:
        array (N,), float64: log E after each symbol, nats.

    Raises:
        ValueError: arrays of different lengths or empty; log_q above 0 or not finite; a law that
            does not sum to 1; a class outside of it, or one to which it gives probability 0.
    """
    log_law = _log_law(law)
    given, came = _checked("log_e_against_law", log_q, classes, log_law.size)
    if np.isneginf(log_law).any():
        excluded = np.flatnonzero(np.isneginf(log_law[came]))
        if excluded.size:
            raise ValueError(
                f"log_e_against_law: class {int(came[excluded[0]])} came after"
                f" {int(excluded[0])} symbols, and the law gives it probability 0: such a law is"
                " refuted without any evidence; positive probabilities of all that came fit"
            )
    return _cumulated(given - log_law[came])


def log_e_against_independence(log_q: ArrayLike, classes: ArrayLike, k: int) -> NDArray[np.float64]:
    """The e-process against independent draws of an unknown law.

    Args:
        log_q (array (N,), float): log-probability of each class before it came, nats.
        classes (array (N,), integer): what came, 0..k-1.
        k (int): number of classes, 1 to 256.

    Returns:
        array (N,), float64: log E after each symbol, nats.

    Raises:
        ValueError: k out of range; arrays of different lengths or empty; log_q above 0 or not
            finite; a class outside 0..k-1.

    Source: Wasserman, Ramdas and Balakrishnan 2020, Universal inference, section 7.
    """
    _check_classes("log_e_against_independence", k)
    given, came = _checked("log_e_against_independence", log_q, classes, k)
    return _cumulated(given - _likelihood_increments(came, k))


def running_maximum_likelihood(classes: ArrayLike, k: int) -> NDArray[np.float64]:
    """The largest log-likelihood that any one law gives to each prefix.

    With n_j the counts of the first t symbols it is the sum of n_j ln n_j, less t ln t. Off by less
    than 1e-6 nats at ten million symbols.

    Args:
        classes (array (N,), integer): 0..k-1; N >= 1.
        k (int): number of classes, 1 to 256.

    Returns:
        array (N,), float64: after each symbol, nats.

    Raises:
        ValueError: k out of range, no symbols, or a class outside 0..k-1.
    """
    _check_classes("running_maximum_likelihood", k)
    came = _checked("running_maximum_likelihood", np.zeros(np.shape(classes)), classes, k)[1]
    return _cumulated(_likelihood_increments(came, k))


def average(paths: Sequence[ArrayLike], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """The weighted mean of e-processes, which is one again.

    All must look at the same symbols in the same order and be against the same null, or against
    what follows from it: classes of independent draws are independent draws.

    Args:
        paths (sequence of W arrays (N,), float): log E after each symbol, nats.
        weights (array (W,), float, or None): positive, chosen before the symbols were seen; they
            are divided by their sum. None: equal ones.

    Returns:
        array (N,), float64: log of the mean E after each symbol, nats.

    Raises:
        ValueError: no paths, paths of different lengths, or weights that do not fit them.
    """
    shares = np.ones(len(paths)) if weights is None else np.asarray(weights, np.float64)
    lengths = {np.shape(path) for path in paths}
    fits = len(lengths) == 1 and len(next(iter(lengths))) == 1
    if not fits or shares.shape != (len(paths),) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(
            f"average: {len(paths)} paths of shapes {sorted(lengths)} and weights"
            f" {shares.tolist()}; paths of one shape (N,) and a positive weight for each fit"
        )
    mean = np.full(next(iter(lengths)), -np.inf)
    for path, share in zip(paths, shares / shares.sum(), strict=True):
        np.logaddexp(mean, np.asarray(path, np.float64) + math.log(share), out=mean)
    return mean


def conclude(
    log_e: ArrayLike,
    null: str,
    gains: ArrayLike | None = None,
    *,
    level: float = 0.01,
    block: int = 256,
    seed: int = 0,
) -> Evidence:
    """What an e-process shows.

    Args:
        log_e (array (N,), float): log E after each symbol, nats; N >= 1, finite.
        null (str): what it is evidence against, in words.
        gains (array (N,), float, or None): what the predictor saved at each symbol, nats; None: the
            steps of `log_e`.
        level (float): in (0, 1); see `Evidence`.
        block (int): length of a bootstrap block.
        seed (int): of the bootstrap.

    Returns:
        Evidence: in `first_exceeds` at the given level.

    Raises:
        ValueError: an empty path or one that is not finite, or a level out of range.
    """
    path = np.asarray(log_e, np.float64)
    if path.ndim != 1 or path.size == 0 or not np.isfinite(path).all() or not 0 < level < 1:
        raise ValueError(
            f"conclude: a path of shape {path.shape} at level {level}; (N,) with N >= 1, finite,"
            " and a level between 0 and 1 fit"
        )
    bound = -math.log(level)
    top = int(path.argmax())
    largest = max(0.0, float(path[top]))
    crossed = int((path >= bound).argmax()) + 1 if largest >= bound else None
    saved = np.diff(path, prepend=0.0) if gains is None else np.asarray(gains, np.float64)
    return Evidence(
        null=null,
        symbols=path.size,
        log_e=float(path[-1]),
        log_e_max=largest,
        level=level,
        first_exceeds=crossed,
        p_value=math.exp(-largest),
        path=_thinned(path, top),
        saved_bits=block_bootstrap(saved / math.log(2), block=block, seed=seed),
    )


def _thinned(path: np.ndarray, top: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most MOST_POINTS of a path, from E = 1 before the first symbol; `top` is kept."""
    count = path.size
    # Half of them evenly, half by equal factors: the page's axis is logarithmic.
    half = min(count + 1, MOST_POINTS // 2 - 1)
    even = np.linspace(0, count, half).round().astype(np.int64)
    factors = np.geomspace(1, count, half).round().astype(np.int64)
    seen = np.union1d(np.union1d(even, factors), [top + 1])
    return seen, np.append(0.0, path)[seen] / math.log(10)


def _log_law(law: int | ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities (k,) of a law; -inf for 0."""
    if isinstance(law, int):
        if law < 1:
            raise ValueError(f"log_e_against_law: uniform over {law} classes; at least 1 fits")
        return np.full(law, -math.log(law))
    chances = np.asarray(law, np.float64)
    total = math.fsum(chances.ravel())
    fits = chances.ndim == 1 and chances.size and (chances >= 0).all()
    if not fits or not abs(total - 1) <= _ROUNDING:
        raise ValueError(
            f"log_e_against_law: a law of shape {chances.shape} that sums to {total}; (k,),"
            " non-negative, with sum 1 fits"
        )
    with np.errstate(divide="ignore"):
        return np.log(chances / total)


def _check_classes(who: str, k: int) -> None:
    if not 1 <= k <= MOST_CLASSES:
        raise ValueError(
            f"{who}: {k} classes; 1 to {MOST_CLASSES} fit, for an unknown law costs about"
            " (k - 1) / 2 ln N nats of evidence; a coarser view of the symbols has fewer"
        )


def _checked(
    who: str, log_q: ArrayLike, classes: ArrayLike, k: int
) -> tuple[NDArray[np.float64], np.ndarray]:
    """Log-probabilities and classes, checked to fit each other."""
    given, came = np.asarray(log_q, np.float64), np.asarray(classes)
    if given.ndim != 1 or given.shape != came.shape or given.size == 0:
        raise ValueError(
            f"{who}: log_q of shape {given.shape}, classes {came.shape}; both must be (N,), N >= 1"
        )
    if not np.issubdtype(came.dtype, np.integer):
        raise ValueError(f"{who}: classes are {came.dtype}; integers fit")
    if not 0 <= int(came.min()) <= int(came.max()) < k:
        raise ValueError(f"{who}: classes {came.min()} to {came.max()}; 0 to {k - 1} fit")
    if not np.isfinite(given).all() or given.max() > _ROUNDING:
        raise ValueError(
            f"{who}: log_q from {given.min()} to {given.max()}; finite numbers up to 0 fit, for a"
            " predictor that gives 0 to what may come can never recover"
        )
    return given, came


def _likelihood_increments(came: np.ndarray, k: int) -> NDArray[np.float64]:
    """What each symbol adds to the running maximum of the log-likelihood, (N,), nats."""
    added = np.empty(came.size)
    counts = np.zeros(k, np.int64)
    for first in range(0, came.size, _CHUNK):
        part = came[first : first + _CHUNK].astype(np.uint8)  # whose stable sort is by radix
        order = np.argsort(part, kind="stable")
        here = np.bincount(part, minlength=k)
        ahead = counts - (np.cumsum(here) - here)  # occurrences before, less place in the sort
        before = np.empty(part.size, np.int64)
        before[order] = np.arange(part.size) + ahead[part[order]]
        seen = np.arange(first, first + part.size)
        added[first : first + part.size] = _step(before) - _step(seen)
        counts += here
    return added


def _step(n: np.ndarray) -> NDArray[np.float64]:
    """(n + 1) ln(n + 1) - n ln n, in a form that does not cancel."""
    return np.log(n + 1.0) + n * np.log1p(1.0 / np.maximum(n, 1))


def _cumulated(values: np.ndarray) -> NDArray[np.float64]:
    """Cumulative sums whose rounding does not grow with their number.

    Rows are summed plainly, and their sums with compensation (Neumaier 1974).
    """
    sums = np.empty(values.size)
    total = lost = 0.0
    for first in range(0, values.size, _ROW):
        row = np.cumsum(values[first : first + _ROW])
        sums[first : first + _ROW] = row + (total + lost)
        last = float(row[-1])
        new = total + last
        big, small = (total, last) if abs(total) >= abs(last) else (last, total)
        lost += (big - new) + small
        total = new
    return sums
