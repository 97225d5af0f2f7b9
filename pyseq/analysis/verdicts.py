"""Plain verdicts from the bits that predictors spent on the same held-out symbols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pyseq.analysis.baselines import hindsight_bits
from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.intervals import Interval, block_bootstrap

# Fitting noise costs a model a little on unpredictable data; more than this share of the
# marginal's bits is no longer that, and the sentence says so.
_WORSE_BY = 0.01
_ONE_CLASS = "the held-out symbols are all of one class: nothing to predict among these classes"
# Bits per symbol: the bits of a float64 sum round by far less, and no finding is as small.
_ROUNDING = 1e-9
# The chance that a contest may say anything wrong of unpredictable symbols.
_FALSE_FINDINGS = 0.05

Bootstrap = Callable[[NDArray[np.float64]], Interval]


@dataclass(frozen=True)
class Verdict:
    """What a held-out range shows about a model.

    Attributes:
        kind (str): "structure" where the model surely needs fewer bits than the marginal and than
            any fixed frequencies could; "worse than the marginal" where it is behind the marginal
            by over 1 % of its bits, and surely so; "at chance" otherwise, also where the symbols
            are all of one class.
        sentence (str): the same in words, with the numbers.
        gain (Interval): bits per symbol saved against the marginal; negative where the model loses.
        noticed (float): about the least gain that would have shown, bits per symbol; infinite where
            there is nothing to go by.
    """

    kind: Literal["at chance", "structure", "worse than the marginal"]
    sentence: str
    gain: Interval
    noticed: float = math.inf


@dataclass(frozen=True)
class Comparison:
    """Which of two predictors needs fewer bits on the same symbols.

    Attributes:
        kind (str): "better" (the first needs fewer), "worse" or "no difference".
        sentence (str): the same in words, with the numbers.
        gain (Interval): bits per symbol the first saves against the second.
    """

    kind: Literal["better", "worse", "no difference"]
    sentence: str
    gain: Interval


@dataclass(frozen=True)
class Contest:
    """What held-out symbols show about two models, beside each other and the baselines.

    Attributes:
        kind (str): "at chance" where neither model found structure; otherwise how the second stands
            to the first: "better", "worse" or "no difference".
        sentence (str): the same in words, with the numbers.
        best (str): which of all predictors needs the fewest bits, in words.
        verdicts (dict name -> Verdict): each model's own.
        gain (Interval): bits per symbol the second saves against the first; no finding where the
            kind is "at chance".
        level (float): of every interval here.
    """

    kind: Literal["at chance", "better", "worse", "no difference"]
    sentence: str
    best: str
    verdicts: dict[str, Verdict]
    gain: Interval
    level: float


def judge(
    model_bits: ArrayLike,
    marginal_bits: ArrayLike,
    symbols: ArrayLike,
    *,
    ceiling: Ceiling,
    block: int,
    others: Mapping[str, ArrayLike] | None = None,
    name: str = "the model",
    seed: int = 0,
    level: float = 0.95,
) -> Verdict:
    """Say whether a model found structure in held-out symbols.

    Structure is claimed only where the intervals of two gains lie above zero: the gain over
    the training marginal, which is the one reported, and the gain over the best frequencies in
    hindsight (`baselines.hindsight_bits`). The first alone is not enough: it is also passed, and
    significantly, by any model that sits nearer to the true frequencies than the training
    symbols' own do, for example by an untrained one on uniform symbols. The second cannot be
    passed by any fixed frequencies; the price is about (distinct symbols - 1) / (2 N ln 2) bits per
    symbol of sensitivity, which the sentence takes into account. What is shown is that knowing the
    past helps: symbols depend on each other, or their law drifts and the past tells where it is.

    Args:
        model_bits (array (N,), float): bits per symbol; finite.
        marginal_bits (array (N,), float): the same symbols under `baselines.marginal_bits`.
        symbols (array (N,), integer): the held-out symbols that were scored, binned as they were.
        ceiling (Ceiling): of the same binning.
        block (int): length of a bootstrap block; at least a window of the model.
        others (mapping of str to array (N,) or None): bits of other predictors, such as "order-1",
            told beside the model.
        name (str): what the sentence calls the model.
        seed (int): of the bootstrap.
        level (float): of the intervals; .95 is for one model on its own.

    Returns:
        Verdict: with the gain in bits per symbol.

    Raises:
        ValueError: arrays of different lengths, empty or not finite.

    Source: Wasserman, Ramdas and Balakrishnan 2020, Universal inference (the hindsight bound).
    """
    coded = np.asarray(symbols)
    model, marginal = _paired("judge", model_bits, marginal_bits)
    _paired("judge", model, coded)
    hindsight = hindsight_bits(coded, int(coded.max()) + 1)
    interval = partial(block_bootstrap, block=block, seed=seed, level=level)
    gain = interval(marginal - model)
    if model.size > 1 and coded.min() == coded.max():
        return Verdict("at chance", _all_equal(name, model, marginal), gain)
    safe = interval(hindsight - model)
    kind: Literal["at chance", "structure", "worse than the marginal"] = "at chance"
    if gain.low > _ROUNDING and safe.low > _ROUNDING:
        kind = "structure"
    elif gain.high < -_ROUNDING and -gain.value > _WORSE_BY * float(marginal.mean()):
        kind = "worse than the marginal"
    needs = _needs({name: model, "the marginal": marginal}, ceiling)
    # Both intervals must clear zero, and a model that gains g nats per symbol is itself uncertain
    # by about sqrt(2 g / N), so that less than 2 z^2 / N cannot be told from nothing.
    ahead = float((marginal - hindsight).mean())
    least = 2 * float(stats.norm.ppf((1 + level) / 2)) ** 2 / math.log(2) / model.size
    noticed = max(gain.half_width, ahead + safe.half_width, least)
    if kind == "structure":
        found = (
            f"structure: {needs}; the gain is {gain} bits/symbol over {model.size:,} symbols, more "
            "than any fixed frequencies could give"
        )
    else:
        start = (
            "at chance" if kind == "at chance" else "at chance, and worse than the marginal itself"
        )
        found = f"{start}: {needs}; {_sensitivity(noticed, model.size)}"
        if kind == "at chance" and gain.low > _ROUNDING:
            found += (
                f"; the gain of {gain} is not surely more than better frequencies alone could "
                "give, so it does not count"
            )
    rivals = {other: _paired("judge", model, bits)[1] for other, bits in (others or {}).items()}
    if kind == "structure":
        pairs = [_compare(model, bits, name, other, interval) for other, bits in rivals.items()]
        found += "".join(f"; {pair.sentence}" for pair in pairs)
    else:
        found += _elsewhere(rivals, name, hindsight, interval)
    return Verdict(kind, found, gain, noticed)


def compare(
    a_bits: ArrayLike,
    b_bits: ArrayLike,
    *,
    block: int,
    name_a: str,
    name_b: str,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Say which of two predictors needs fewer bits on the same symbols.

    Args:
        a_bits (array (N,), float): bits per symbol of the first; finite.
        b_bits (array (N,), float): bits per symbol of the second, on the same symbols.
        block (int): length of a bootstrap block; at least a window of the models.
        name_a (str): what the sentence calls the first.
        name_b (str): what the sentence calls the second.
        seed (int): of the bootstrap.
        level (float): of the interval.

    Returns:
        Comparison: "better" or "worse" where the interval of the paired difference leaves out zero
        by more than rounding, "no difference" otherwise.

    Raises:
        ValueError: arrays of different lengths, empty or not finite.
    """
    first, second = _paired("compare", a_bits, b_bits)
    interval = partial(block_bootstrap, block=block, seed=seed, level=level)
    return _compare(first, second, name_a, name_b, interval)


def contest(
    models: Mapping[str, ArrayLike],
    baselines: Mapping[str, ArrayLike | float],
    symbols: ArrayLike,
    *,
    ceiling: Ceiling,
    block: int,
    seed: int = 0,
) -> Contest:
    """Say whether the second of two models is better than the first, where the symbols show that.

    Where neither found structure (`judge`) both are at chance and neither is called better, however
    sure their difference is: it then tells which of them fitted less noise, or came nearer to the
    frequencies, and is no finding about the stream.

    Each predictor but the marginal is one more chance of a false finding. With K of them every
    interval here has level 1 - .05 / K (Bonferroni), so that of streams whose past says nothing
    about one in 20 at most is said to have structure, by whichever predictor. The same level guards
    the claim to be best: only comparisons with the truly best predictor, K of them, could give it
    to another one.

    Args:
        models (mapping of 2 str to array (N,), float): bits per symbol; finite.
        baselines (mapping of str to array (N,) or float): bits of the same symbols, or per symbol
            for a code of the range as a whole; "marginal" is among them.
        symbols (array (N,), integer): the held-out symbols that were scored, binned as they were.
        ceiling (Ceiling): of the same binning.
        block (int): length of a bootstrap block; at least a window of the models.
        seed (int): of the bootstrap.

    Returns:
        Contest: the second model beside the first, and both beside the baselines.

    Raises:
        ValueError: arrays of different lengths, empty or not finite.

    Source: Hsu 1981, Simultaneous confidence intervals for all distances from the "best".
    """
    first, second = models
    marginal, coded = baselines["marginal"], np.asarray(symbols)
    level = 1 - _FALSE_FINDINGS / (len(models) + len(baselines) - 1)
    interval = partial(block_bootstrap, block=block, seed=seed, level=level)
    verdicts = {
        name: judge(
            bits, marginal, coded, ceiling=ceiling, block=block, name=name, seed=seed, level=level
        )
        for name, bits in models.items()
    }
    every = {
        name: np.broadcast_to(np.asarray(bits, dtype=np.float64), coded.shape)
        for name, bits in {**models, **baselines}.items()
    }
    rivals = {name: every[name] for name in baselines if name != "marginal"}
    hindsight = hindsight_bits(coded, int(coded.max()) + 1)
    pair = _compare(every[second], every[first], second, first, interval)
    found = [name for name in models if verdicts[name].kind == "structure"]
    best = "none, for no predictor shows that knowing the past helps"
    if found or _finders(rivals, hindsight, interval):
        best = _best(every, interval)
    if found:
        missed = [name for name in models if name not in found]
        apart = "".join(f"; {name} itself is {verdicts[name].kind}" for name in missed)
        return Contest(pair.kind, pair.sentence + apart, best, verdicts, pair.gain, level)
    said = _neither(every, first, second, pair.gain, ceiling)
    if coded.size > 1 and coded.min() == coded.max():
        said += f"; {_ONE_CLASS}"
    else:
        noticed = max(verdict.noticed for verdict in verdicts.values())
        said += f"; {_sensitivity(noticed, coded.size)}"
        said += _elsewhere(rivals, "either model", hindsight, interval)
    return Contest("at chance", said, best, verdicts, pair.gain, level)


def _neither(
    every: Mapping[str, NDArray[np.float64]],
    first: str,
    second: str,
    gain: Interval,
    ceiling: Ceiling,
) -> str:
    """What two models that found nothing needed, and what their difference does not mean."""
    bits = {first: every[first], second: every[second], "the marginal": every["marginal"]}
    behind, ahead, loss = first, second, gain
    if gain.value < 0:
        behind, ahead, loss = second, first, _negated(gain)
    if loss.low > _ROUNDING:
        apart = (
            f"that {behind} needs {loss} bits/symbol more than {ahead} tells how much noise each "
            "fitted, or how far its training came, and nothing of the stream"
        )
    elif max(loss.high, -loss.low) <= _ROUNDING:
        apart = "both need the same"
    else:
        apart = f"the {loss} bits/symbol that {behind} needs more than {ahead} may be chance too"
    return (
        f"at chance: neither {first} nor {second} found structure; {_needs(bits, ceiling)}; {apart}"
        ", so neither is called better"
    )


def _best(every: Mapping[str, NDArray[np.float64]], interval: Bootstrap) -> str:
    """Which predictor needs the fewest bits, and which ones cannot be told from it."""
    leader, *others = sorted(every, key=lambda name: float(every[name].mean()))
    gains = {other: interval(every[other] - every[leader]) for other in others}
    needs = f"{leader}, with {every[leader].mean():.4f} bits/symbol"
    tied = [
        f"{other} ({every[other].mean():.4f})" for other in others if gains[other].low <= _ROUNDING
    ]
    if tied:
        return f"{needs}, which the data cannot tell from {_listed(tied)}"
    return f"{needs}, {gains[others[0]]} fewer than {others[0]}, the next"


def _compare(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    name_a: str,
    name_b: str,
    interval: Bootstrap,
) -> Comparison:
    """`compare` with the interval to use."""
    gain = interval(second - first)
    means = f"{first.mean():.4f} against {second.mean():.4f} bits/symbol"
    if gain.low > _ROUNDING:
        return Comparison(
            "better", f"{name_a} is better than {name_b}: {means}, a gain of {gain}", gain
        )
    if gain.high < -_ROUNDING:
        return Comparison(
            "worse", f"{name_a} is worse than {name_b}: {means}, a loss of {_negated(gain)}", gain
        )
    return Comparison(
        "no difference",
        f"no difference that the data can show between {name_a} and {name_b}: {means}, "
        f"difference {gain}",
        gain,
    )


def _elsewhere(
    rivals: Mapping[str, NDArray[np.float64]],
    name: str,
    hindsight: NDArray[np.float64],
    interval: Bootstrap,
) -> str:
    """What the other predictors found where the model found nothing, and what that leaves open."""
    finders = _finders(rivals, hindsight, interval)
    if finders:
        needs = _listed([f"{other} needs {rivals[other].mean():.4f}" for other in finders])
        return (
            f"; yet knowing the past helps: {needs} bits/symbol, fewer than any fixed frequencies "
            f"could, and no such gain shows in {name}"
        )
    either = f"; {_listed(list(rivals))} found nothing either" if rivals else ""
    return f"{either}; a pass is not a certificate: another model may find what was not found here"


def _finders(
    rivals: Mapping[str, NDArray[np.float64]], hindsight: NDArray[np.float64], interval: Bootstrap
) -> list[str]:
    """Those that surely need fewer bits than any fixed frequencies could."""
    return [other for other, bits in rivals.items() if interval(hindsight - bits).low > _ROUNDING]


def _all_equal(name: str, model: NDArray[np.float64], marginal: NDArray[np.float64]) -> str:
    """The sentence on a range without a second symbol."""
    return (
        f"at chance: {_ONE_CLASS}; {name} needs {model.mean():.4f} bits/symbol, the marginal "
        f"{marginal.mean():.4f}"
    )


def _needs(bits: Mapping[str, NDArray[np.float64]], ceiling: Ceiling) -> str:
    """What each predictor needs, the first with the unit, and what independent symbols allow."""
    first, *others = bits
    said = [f"{first} needs {bits[first].mean():.4f} bits/symbol"]
    said += [f"{other} {bits[other].mean():.4f}" for other in others]
    return ", ".join([*said, f"and {ceiling.allowance} {ceiling.bits:.4f}"])


def _listed(names: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _negated(gain: Interval) -> Interval:
    return Interval(-gain.value, -gain.high, -gain.low)


def _sensitivity(noticed: float, count: int) -> str:
    """What gain would have been seen."""
    if not math.isfinite(noticed):
        return f"{count:,} symbols are too few to notice any gain"
    return (
        f"a measured gain of about {noticed:.2g} bits/symbol or more would have shown in "
        f"{count:,} symbols"
    )


def _paired(
    who: str, first: ArrayLike, second: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64, checked to belong to the same symbols."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(
            f"{who}: arrays of shapes {a.shape} and {b.shape}; both must be (N,), N >= 1, "
            "and belong to the same symbols"
        )
    return a, b
