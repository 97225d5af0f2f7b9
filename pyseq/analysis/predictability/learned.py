"""A trained model's probabilities on symbols that it has not seen, for estimates and evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyseq.analysis.baselines import hindsight_bits
from pyseq.analysis.intervals import Interval, binomial_interval, block_bootstrap
from pyseq.analysis.scoring import DistributionPredictor, held_out_distributions
from pyseq.data.binning import Binning
from pyseq.data.u16_stream import U16Stream

# A weight of e^-80 is still a normal float32, so that no class ever has probability 0.
_LEAST_LOG_WEIGHT = -80.0


class View(Protocol):
    """A coarser look at the symbols, such as their high bytes."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def table(self) -> NDArray:
        """The class of each symbol, (alphabet,) integer."""

    @property
    def classes(self) -> int:
        """How many classes it has."""


@dataclass(frozen=True)
class LearnedScores:
    """What a model gave to each scored symbol before it came, in the order of the stream.

    Where the model has bins, its law within a bin is taken to be even, as when it generates: this
    makes it a law of symbols, whose code length is `bits` plus log2 of the bin's size, and of the
    classes of every view, aligned with the bins or not.

    Attributes:
        first (int): offset of the first scored symbol in the stream.
        classes (array (N,), int64): the model's class of what came.
        number_of_classes (int): how many the model tells apart.
        bits (array (N,), float64): -log2 of the probability of that class; at least 0.
        symbol_bits (array (N,), float64): -log2 of the probability of the symbol itself.
        hits (array (N,), bool): whether the most likely class came.
        log_q (dict view name -> array (N,), float64): log-probability of the view's class that
            came, nats; for `evidence`.
        view_classes (dict view name -> array (N,), uint16): the view's class that came.
        cross_entropy (Interval): mean of `bits`.
        average_min_entropy (Interval): -log2 of the share of `hits`, bits per symbol in the model's
            classes; the high end is infinite where the data cannot bound it.
        saved_against_uniform (Interval): bits per symbol saved against even chances of all symbols
            of the alphabet; alike in classes and in symbols.
        saved_against_marginal (Interval): bits per symbol saved against the best fixed law of the
            classes in hindsight, which no independent draws allow on average; so many classes
            beside few symbols hide a gain of about (classes - 1) / (2 N ln 2).
    """

    first: int
    classes: NDArray[np.int64]
    number_of_classes: int
    bits: NDArray[np.float64]
    symbol_bits: NDArray[np.float64]
    hits: NDArray[np.bool_]
    log_q: dict[str, NDArray[np.float64]]
    view_classes: dict[str, NDArray[np.uint16]]
    cross_entropy: Interval
    average_min_entropy: Interval
    saved_against_uniform: Interval
    saved_against_marginal: Interval


def score_model(
    predictor: DistributionPredictor,
    stream: U16Stream,
    start: int,
    stop: int,
    *,
    binning: Binning,
    seq_len: int,
    views: Sequence[View] = (),
    autocast: bool = False,
    seed: int = 0,
) -> LearnedScores:
    """Let a model predict every symbol of [start, stop) but the first.

    As evidence its probabilities count only where it has seen nothing of the range, in training or
    in the choice of the best model: see `held_out.unseen_range`.

    Probabilities are sums of the model's float32 weights over their sum, both in float64, so that
    the law of each view sums to 1 to about 1e-15 and a million factors stay a martingale.

    Args:
        predictor (DistributionPredictor): the model; `pyseq.load` gives one.
        stream (U16Stream): the symbols.
        start (int): first symbol that may be seen.
        stop (int): one past the last scored symbol.
        binning (Binning): the model's classes; of a trained model, `predictor.card.binning`.
        seq_len (int): symbols of context at the most; also the block of the bootstrap.
        views (sequence of View): lookup tables of at least the model's alphabet, with any number of
            classes; names differ.
        autocast (bool): compute in bfloat16 where it is safe.
        seed (int): of the bootstrap.

    Returns:
        LearnedScores: of stop - start - 1 symbols, with 95 % intervals by blocks.

    Raises:
        ValueError: the range holds fewer than 2 symbols, or a view does not fit the alphabet.
        UserError: a symbol lies outside the model's alphabet.

    Source: Dawid 1984, Present position and potential developments (prequential scores); Dodis,
        Ostrovsky, Reyzin and Smith 2008, Fuzzy extractors (average min-entropy).
    """
    sums = {view.name: _ViewSums(view, binning) for view in views}
    if len(sums) < len(views):
        names = [view.name for view in views]
        raise ValueError(f"score_model: views are named {names}; every name must differ")
    count = stop - start - 1
    rows = held_out_distributions(
        predictor, stream, start, stop, seq_len=seq_len, autocast=autocast
    )
    classes, log_p = np.empty(max(count, 0), np.int64), np.empty(max(count, 0))
    hits = np.empty(max(count, 0), bool)
    log_q = {name: np.empty(max(count, 0)) for name in sums}
    done = 0
    for _, logp, targets in rows:
        part = slice(done, done + len(targets))
        done = part.stop
        weights = logp.clamp_min(_LEAST_LOG_WEIGHT).exp()
        total = weights.sum(1, dtype=torch.float64)
        given = weights.gather(1, targets[:, None])[:, 0].double()
        classes[part] = targets.cpu().numpy()
        log_p[part] = (given / total).log().cpu().numpy()
        hits[part] = (logp.argmax(1) == targets).cpu().numpy()
        if sums:
            symbols = stream[start + 1 + part.start : start + 1 + part.stop].cpu().numpy()
        for name, of_view in sums.items():
            given = of_view.of(weights, of_view.table[symbols])
            log_q[name][part] = (given / total).clamp_max(1).log().cpu().numpy()
    bits = 0 - np.minimum(log_p, 0) / math.log(2)
    sizes = np.bincount(binning.table(), minlength=binning.classes)
    symbol_bits = bits + np.log2(sizes)[classes]

    def mean(values: np.ndarray) -> Interval:
        return block_bootstrap(values, block=seq_len, seed=seed)

    came = stream[start + 1 : stop].cpu().numpy() if sums else np.empty(0, np.uint16)
    return LearnedScores(
        first=start + 1,
        classes=classes,
        number_of_classes=binning.classes,
        bits=bits,
        symbol_bits=symbol_bits,
        hits=hits,
        log_q=log_q,
        view_classes={name: of_view.table[came] for name, of_view in sums.items()},
        cross_entropy=mean(bits),
        average_min_entropy=average_min_entropy(hits, block=seq_len, seed=seed),
        saved_against_uniform=mean(math.log2(binning.alphabet) - symbol_bits),
        saved_against_marginal=mean(hindsight_bits(classes, binning.classes) - bits),
    )


def average_min_entropy(hits: np.ndarray, *, block: int, seed: int = 0) -> Interval:
    """-log2 of the share of right first guesses.

    Args:
        hits (array (N,), bool): whether each guess was right; N >= 1.
        block (int): length of a bootstrap block.
        seed (int): of the bootstrap.

    Returns:
        Interval: bits per symbol, 95 %; exact for independent guesses where all or none were right.

    Raises:
        ValueError: no guesses.

    Source: Dodis, Ostrovsky, Reyzin and Smith 2008, Fuzzy extractors, section 2.4.
    """
    right = int(np.count_nonzero(hits))
    if right in (0, len(hits)):
        share = binomial_interval(right, len(hits))
    else:
        share = block_bootstrap(np.asarray(hits, np.float64), block=block, seed=seed)
    return Interval(*(_surprise(p) for p in (share.value, share.high, share.low)))


def _surprise(probability: float) -> float:
    """-log2, at least 0, and infinite where nothing is left."""
    if probability <= 0:
        return math.inf
    return max(0.0, -math.log2(probability))


class _ViewSums:
    """Sums a model's weights over the classes of a view; an even law is taken within each bin."""

    def __init__(self, view: View, binning: Binning):
        table = np.asarray(view.table)
        alphabet = binning.alphabet
        if table.ndim != 1 or len(table) < alphabet or not np.issubdtype(table.dtype, np.integer):
            raise ValueError(
                f"score_model: view {view.name} has a table of {table.dtype} {table.shape}; one"
                f" whole number for each of the model's {alphabet} symbols fits"
            )
        table = table[:alphabet]  # a model gives nothing to symbols beyond its alphabet
        if not 0 <= int(table.min()) <= int(table.max()) < view.classes:
            raise ValueError(
                f"score_model: view {view.name} has classes {table.min()} to {table.max()}; 0 to"
                f" {view.classes - 1} fit"
            )
        self.table = table.astype(np.uint16)
        bins = binning.table()
        sizes = np.bincount(bins, minlength=binning.classes)
        # Each pair of a view's class and a bin that meet, in the order of the view's classes.
        pairs, symbols = np.unique(
            table.astype(np.int64) * binning.classes + bins, return_counts=True
        )
        view_class, met = np.divmod(pairs, binning.classes)
        self._ends = np.searchsorted(view_class, np.arange(view.classes + 1))
        self._bins = torch.from_numpy(met)
        self._shares = torch.from_numpy(symbols / sizes[met])

    def of(self, weights: Tensor, came: np.ndarray) -> Tensor:
        """Sum (N,) float64 of weights (N, bins) over the view's class that came, (N,)."""
        sums = torch.empty(len(came), dtype=torch.float64, device=weights.device)
        bins, shares = self._bins.to(weights.device), self._shares.to(weights.device)
        for class_ in np.unique(came):
            members = slice(self._ends[class_], self._ends[class_ + 1])
            rows = torch.from_numpy(np.flatnonzero(came == class_)).to(weights.device)
            chosen = weights[rows[:, None], bins[members]].double()
            sums[rows] = chosen @ shares[members]
        return sums
