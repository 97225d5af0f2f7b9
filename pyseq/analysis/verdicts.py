"""Plain verdicts from the bits that predictors spent on the same held-out symbols."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.analysis.baselines import hindsight_bits
from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.intervals import Interval, block_bootstrap

# Fitting noise costs a model a little on unpredictable data; more than this share of the
# marginal's bits is no longer that, and the sentence says so.
_WORSE_BY = 0.01
# Bits per symbol: the bits of a float64 sum round by far less, and no finding is as small.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What a held-out range shows about a model.

    Attributes:
        kind (str): "structure" where the model surely needs fewer bits than the marginal and than
            any fixed frequencies could; "worse than the marginal" where it is behind the marginal
            by over 1 % of its bits, and surely so; "at chance" otherwise, also where the symbols
            are all equal.
        sentence (str): the same in words, with the numbers.
        gain (Interval): bits per symbol saved against the marginal; negative where the model loses.
    """

    kind: Literal["at chance", "structure", "worse than the marginal"]
    sentence: str
    gain: Interval


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
) -> Verdict:
    """Say whether a model found structure in held-out symbols.

    Structure is claimed only where the 95 % intervals of two gains lie above zero: the gain over
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
    gain = block_bootstrap(marginal - model, block=block, seed=seed)
    if model.size > 1 and coded.min() == coded.max():
        return Verdict("at chance", _all_equal(name, model, marginal), gain)
    safe = block_bootstrap(hindsight - model, block=block, seed=seed)
    kind: Literal["at chance", "structure", "worse than the marginal"] = "at chance"
    if gain.low > _ROUNDING and safe.low > _ROUNDING:
        kind = "structure"
    elif gain.high < -_ROUNDING and -gain.value > _WORSE_BY * float(marginal.mean()):
        kind = "worse than the marginal"
    needs = (
        f"{name} needs {model.mean():.4f} bits/symbol, the marginal {marginal.mean():.4f}, and "
        f"{ceiling.allowance} {ceiling.bits:.4f}"
    )
    # Both intervals must clear zero, and a model that gains g nats per symbol is itself uncertain
    # by about sqrt(2 g / N), so that less than 2 z^2 / N cannot be told from nothing.
    ahead = float((marginal - hindsight).mean())
    least = 2 * 1.96**2 / math.log(2) / model.size
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
        found += _against(rivals, name, model, block, seed)
    else:
        found += _elsewhere(rivals, name, hindsight, block, seed)
    return Verdict(kind, found, gain)


def compare(
    a_bits: ArrayLike,
    b_bits: ArrayLike,
    *,
    block: int,
    name_a: str,
    name_b: str,
    seed: int = 0,
) -> Comparison:
    """Say which of two predictors needs fewer bits on the same symbols.

    Args:
        a_bits (array (N,), float): bits per symbol of the first; finite.
        b_bits (array (N,), float): bits per symbol of the second, on the same symbols.
        block (int): length of a bootstrap block; at least a window of the models.
        name_a (str): what the sentence calls the first.
        name_b (str): what the sentence calls the second.
        seed (int): of the bootstrap.

    Returns:
        Comparison: "better" or "worse" where the 95 % interval of the paired difference leaves out
        zero by more than rounding, "no difference" otherwise.

    Raises:
        ValueError: arrays of different lengths, empty or not finite.
    """
    first, second = _paired("compare", a_bits, b_bits)
    gain = block_bootstrap(second - first, block=block, seed=seed)
    means = f"{first.mean():.4f} against {second.mean():.4f} bits/symbol"
    if gain.low > _ROUNDING:
        return Comparison(
            "better", f"{name_a} is better than {name_b}: {means}, a gain of {gain}", gain
        )
    if gain.high < -_ROUNDING:
        loss = Interval(-gain.value, -gain.high, -gain.low)
        return Comparison(
            "worse", f"{name_a} is worse than {name_b}: {means}, a loss of {loss}", gain
        )
    return Comparison(
        "no difference",
        f"no difference that the data can show between {name_a} and {name_b}: {means}, "
        f"difference {gain}",
        gain,
    )


def _against(
    rivals: Mapping[str, NDArray[np.float64]],
    name: str,
    model: NDArray[np.float64],
    block: int,
    seed: int,
) -> str:
    """A clause for each other predictor, on how a model that found structure stands to it."""
    pairs = [
        compare(model, bits, block=block, name_a=name, name_b=other, seed=seed)
        for other, bits in rivals.items()
    ]
    return "".join(f"; {pair.sentence}" for pair in pairs)


def _elsewhere(
    rivals: Mapping[str, NDArray[np.float64]],
    name: str,
    hindsight: NDArray[np.float64],
    block: int,
    seed: int,
) -> str:
    """What the other predictors found where the model found nothing, and what that leaves open."""
    finders = [
        f"{other} needs {bits.mean():.4f}"
        for other, bits in rivals.items()
        if block_bootstrap(hindsight - bits, block=block, seed=seed).low > _ROUNDING
    ]
    if finders:
        return (
            f"; yet knowing the past helps: {' and '.join(finders)} bits/symbol, fewer than any "
            f"fixed frequencies could, and {name} shows no such gain"
        )
    either = f"; {' and '.join(rivals)} found nothing either" if rivals else ""
    return f"{either}; a pass is not a certificate: another model may find what this one did not"


def _all_equal(name: str, model: NDArray[np.float64], marginal: NDArray[np.float64]) -> str:
    """The sentence on a range without a second symbol."""
    return (
        f"at chance: the held-out symbols are all equal: nothing to predict; {name} needs "
        f"{model.mean():.4f} bits/symbol, the marginal {marginal.mean():.4f}"
    )


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
