"""Evidence by the online mixture: what a predictor that never saw the stream before saves on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.intervals import Interval, binomial_interval, block_bootstrap
from pyseq.analysis.predictability.evidence import (
    MOST_CLASSES,
    Evidence,
    average,
    conclude,
    evidence_against_law,
    log_e_against_independence,
)
from pyseq.analysis.predictability.mixture import MixtureScores, mixture_scores
from pyseq.analysis.randomness.views import SYMBOLS, View, low_bits, quantile_bins, shifted
from pyseq.analysis.stream_analysis import CodeLength

FIRST_LOOK = 1 << 16  # symbols that decide the bins, and count as no evidence
_SHARE_LOOKED_AT = 8  # of a short stream, one in so many
_BINS = (2, 16, 256)
_FEWEST_IN_BLOCK = 256  # symbols that the bootstrap keeps together
_MOST_BLOCKS = 512
_LN2 = float(np.log(2))


@dataclass(frozen=True)
class OnlineEvidence:
    """What the online mixture shows on a sample.

    Attributes:
        dependence (Evidence): the mean of the e-processes of all views, against independent draws
            of an unknown marginal.
        views (sequence of (View, Evidence)): each of them.
        uniform (Evidence): against independent uniform draws over the alphabet.
        code_length (CodeLength): of whole symbols.
        skipped (int): symbols that decided the bins.
    """

    dependence: Evidence
    views: Sequence[tuple[View, Evidence]]
    uniform: Evidence
    code_length: CodeLength
    skipped: int


def evidence_views(first: NDArray[np.uint16], alphabet: int) -> list[View]:
    """Functions of the symbol with at most 256 values, for evidence about an unknown marginal.

    Args:
        first (array (M,), uint16): symbols that decide the bins; no evidence may count them.
        alphabet (int): k, at least 2.

    Returns:
        list of View: symbols where these are few, bins of about equally many symbols, low bits.
    """
    views = []
    if alphabet <= MOST_CLASSES:
        views.append(View("symbols", shifted(0).table, alphabet))
    if first.size:
        counts = np.bincount(first, minlength=SYMBOLS)
        views += [quantile_bins(counts, bins) for bins in _BINS if bins < alphabet]
    if alphabet > MOST_CLASSES:
        views.append(low_bits(8))
    # Few symbols may make the same bins of two kinds.
    different = {view.table.tobytes(): view for view in reversed(views) if view.classes > 1}
    # Two kinds may differ in symbols not seen so far only; views are told apart by name.
    named = {view.name: view for view in different.values()}
    return list(reversed(named.values()))


def online_evidence(
    symbols: NDArray[np.uint16], alphabet: int, *, level: float = 0.01, seed: int = 0
) -> OnlineEvidence:
    """Run the online mixture over whole symbols and over each view of them.

    Args:
        symbols (array (N,), uint16): a stretch of the stream, N >= 2.
        alphabet (int): k, at least 2.
        level (float): for `Evidence.first_exceeds`.
        seed (int): of the bootstrap.

    Returns:
        OnlineEvidence: valid however N was chosen.
    """
    skipped = min(FIRST_LOOK, symbols.size // _SHARE_LOOKED_AT) if alphabet > 2 else 0
    views = evidence_views(symbols[:skipped], alphabet)
    block = _block(symbols.size)
    paths, shown = [], []
    for view in views:
        classes = view.table[symbols]
        # The mixture may learn from the symbols that decided the bins; it is judged after them.
        log_q = -_LN2 * mixture_scores(classes, view.classes).bits[skipped:]
        judged = classes[skipped:]
        path = log_e_against_independence(log_q, judged, view.classes)
        null = f"independent draws of one unknown law, {view.name}"
        gains = log_q - _log_frequency(judged, view.classes)
        shown.append((view, conclude(path, null, gains, level=level, block=block, seed=seed)))
        paths.append(path)
    mean = average(paths)
    scores = mixture_scores(symbols, alphabet)
    return OnlineEvidence(
        conclude(mean, "independent draws of one unknown law", level=level, block=block, seed=seed),
        shown,
        evidence_against_law(
            -_LN2 * scores.bits, symbols, alphabet, level=level, block=block, seed=seed
        ),
        code_length(scores, symbols, alphabet, seed=seed),
        skipped,
    )


def code_length(
    scores: MixtureScores, symbols: NDArray[np.uint16], alphabet: int, *, seed: int = 0
) -> CodeLength:
    """The mixture's scores on whole symbols, with intervals.

    Args:
        scores (MixtureScores): of the symbols.
        symbols (array (N,), uint16): N >= 2.
        alphabet (int): k.
        seed (int): of the bootstrap.
    """
    half, block = symbols.size // 2, _block(symbols.size)
    share = np.bincount(symbols, minlength=alphabet) / symbols.size
    share = share[share > 0]
    accuracy = binomial_interval(int(scores.hits.sum()), symbols.size)
    return CodeLength(
        "online mixture of count models",
        int(symbols.size),
        block_bootstrap(scores.bits, block=block, seed=seed),
        block_bootstrap(scores.bits[half:], block=block, seed=seed),
        float(np.log2(alphabet)),
        float(0.0 - (share * np.log2(share)).sum()),
        accuracy,
        surprise_of(accuracy),
        scores.weights,
        alphabet,
    )


def _block(symbols: int) -> int:
    return max(_FEWEST_IN_BLOCK, symbols // _MOST_BLOCKS)


def surprise_of(accuracy: Interval) -> Interval:
    """-log2 of a share of right guesses and of its interval: average min-entropy, bits/symbol."""

    def bits(share: float) -> float:
        return float(0.0 - np.log2(share)) if share > 0 else float("inf")

    return Interval(bits(accuracy.value), bits(accuracy.high), bits(accuracy.low))


def _log_frequency(classes: NDArray, k: int) -> NDArray[np.float64]:
    frequency = np.bincount(classes, minlength=k) / classes.size
    return np.log(np.maximum(frequency, 1e-300))[classes]
