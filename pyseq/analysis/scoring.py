"""A predictor's scores on every symbol of a held-out range."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pyseq.data.u16_stream import U16Stream
from pyseq.ops import gather_windows

TOP_K = (1, 3, 5)
MAX_PROBABILITIES = 1 << 25  # elements of one batch's distributions: 128 MiB in float32
_SCORED_AT_ONCE = (
    1 << 20
)  # of them; what is made of more leaves the caches and takes thrice as long


class DistributionPredictor(Protocol):
    """What scoring asks of a model; `pyseq.models.Predictor` is one.

    Top-k, entropy and calibration need the whole distribution; measures that need only the
    probability of what came ask a predictor for `log_prob(window)` instead.
    """

    def distribution(self, window: Tensor) -> Tensor:
        """Log-probabilities (B, T, classes) of the next class after each of window (B, T)."""

    def classes_of(self, symbols: Tensor) -> Tensor:
        """Classes of symbols."""


class LookAheadPredictor(DistributionPredictor, Protocol):
    """A predictor with a head for each of several horizons; `pyseq.models.Predictor` is one."""

    @property
    def horizons(self) -> int:
        """How many steps ahead the farthest head predicts; 1 is the next symbol."""

    def distributions_ahead(self, window: Tensor) -> Iterator[Tensor]:
        """Log-probabilities (B, T, classes) of the classes 1, 2, ... `horizons` steps ahead."""


@dataclass(frozen=True)
class Scores:
    """One entry per scored symbol, in the order of the stream.

    Attributes:
        first (int): offset of the first scored symbol in the stream.
        classes (array (N,), int64): what came.
        predicted (array (N,), int64): the most likely class.
        bits (array (N,), float64): -log2 of the probability that it was given; at least 0.
        entropy (array (N,), float64): bits, of the predicted distribution.
        confidence (array (N,), float64): probability of the most likely class.
        hits (array (N, 3), bool): whether it was among the top 1, 3, 5.
        number_of_classes (int): how many the model tells apart.
    """

    first: int
    classes: np.ndarray
    predicted: np.ndarray
    bits: np.ndarray
    entropy: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    number_of_classes: int


class ScoreSheet:
    """The scores of a range that is scored piece by piece, in arrays of their final size.

    Many small arrays, kept between large ones that come and go, would leave the heap full of holes.

    Args:
        first (int): offset of the first scored symbol in the stream.
        count (int): symbols that will be scored.
    """

    def __init__(self, first: int, count: int):
        self._first, self._filled, self._number_of_classes = first, 0, 0
        self._columns = {
            "classes": np.empty(count, np.int64),
            "predicted": np.empty(count, np.int64),
            "bits": np.empty(count),
            "entropy": np.empty(count),
            "confidence": np.empty(count),
            "hits": np.empty((count, len(TOP_K)), bool),
        }

    def add(self, part: Scores) -> None:
        """Take over what follows.

        Args:
            part (Scores): of the next symbols.
        """
        end = self._filled + len(part.bits)
        for name, column in self._columns.items():
            column[self._filled : end] = getattr(part, name)
        self._filled, self._number_of_classes = end, part.number_of_classes

    def scores(self) -> Scores:
        """All that was added.

        Returns:
            Scores: of `count` symbols.

        Raises:
            ValueError: fewer were added.
        """
        count = len(self._columns["bits"])
        if self._filled < count:
            raise ValueError(f"ScoreSheet: {self._filled} of {count} symbols were scored; all fit")
        return Scores(self._first, **self._columns, number_of_classes=self._number_of_classes)


def score(
    predictor: DistributionPredictor,
    stream: U16Stream,
    start: int,
    stop: int,
    *,
    seq_len: int,
    autocast: bool = False,
) -> Scores:
    """Score every symbol of [start, stop) but the first.

    Windows overlap by half, and each symbol is scored once, in the window that shows at least half
    of `seq_len` before it (all there is, at the start of the range).

    Args:
        predictor (DistributionPredictor): whose distributions are scored.
        stream (U16Stream): the symbols.
        start (int): first symbol that may be seen.
        stop (int): one past the last scored symbol.
        seq_len (int): symbols of context at the most.
        autocast (bool): compute in bfloat16 where it is safe.

    Returns:
        Scores: of stop - start - 1 symbols.

    Raises:
        ValueError: the range holds fewer than 2 symbols.
    """
    kept = held_out_distributions(
        predictor, stream, start, stop, seq_len=seq_len, autocast=autocast
    )
    sheet = ScoreSheet(start + 1, stop - start - 1)
    for _, logp, targets in kept:
        sheet.add(score_rows(logp, targets))
    return sheet.scores()


def held_out_distributions(
    predictor: DistributionPredictor | LookAheadPredictor,
    stream: U16Stream,
    start: int,
    stop: int,
    *,
    seq_len: int,
    horizons: int = 1,
    autocast: bool = False,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Every distribution that `score` scores, piece by piece, and those of the farther horizons.

    Every horizon predicts from the same places, so that the targets of horizon h are those of
    horizon 1 moved by h - 1 symbols. Windows overlap as in `score`.

    Args:
        predictor (DistributionPredictor or LookAheadPredictor): the latter where horizons > 1.
        stream (U16Stream): the symbols.
        start (int): first symbol that may be seen.
        stop (int): one past the last target of the farthest horizon.
        seq_len (int): symbols of context at the most.
        horizons (int): how many steps ahead the farthest target lies; no more than the predictor's.
        autocast (bool): compute in bfloat16 where it is safe.

    Yields:
        tuple (horizon, Tensor (N, classes) float32, Tensor (N,) int64): log-probabilities in nats
        and what came; of each horizon, all symbols in order.

    Raises:
        ValueError: the range holds fewer than horizons + 1 symbols.
    """
    if stop - start < horizons + 1:
        raise ValueError(
            f"score: range [{start}, {stop}) holds {stop - start} symbols; {horizons + 1} or more"
            " fit"
        )
    symbols = stop - start - (horizons - 1)  # that horizon 1 sees and predicts
    seq_len = min(seq_len, symbols - 1)
    offsets, skips = _windows(symbols, seq_len)
    batch = 1  # until the number of classes is known
    position = 0
    while position < len(offsets):
        chosen = torch.from_numpy(offsets[position : position + batch] + start)
        skipped = torch.from_numpy(skips[position : position + batch])
        window = gather_windows(stream, chosen, seq_len + horizons)
        targets = predictor.classes_of(window[:, 1:])
        keep = (torch.arange(seq_len) >= skipped[:, None]).flatten().nonzero()[:, 0]
        keep = keep.to(targets.device)
        ahead = _distributions(predictor, window[:, :seq_len], horizons, autocast)
        for horizon, logp in enumerate(ahead, start=1):
            came = targets[:, horizon - 1 :][:, :seq_len]
            for places in keep.split(max(1, _SCORED_AT_ONCE // logp.shape[-1])):
                yield horizon, logp.flatten(0, 1)[places], came.flatten()[places]
        position += len(chosen)
        batch = max(1, min(64, MAX_PROBABILITIES // (seq_len * logp.shape[-1])))


def _windows(symbols: int, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the windows of seq_len + 1 symbols, and how many predictions each one skips."""
    hop = max(1, seq_len // 2)
    last = symbols - seq_len - 1
    offsets = np.append(np.arange(0, last, hop), last)
    done = np.append(0, offsets[:-1] + seq_len)  # predictions made by the windows before
    return offsets, done - offsets


def _distributions(predictor, window: Tensor, horizons: int, autocast: bool) -> Iterator[Tensor]:
    """Log-probabilities (B, T, classes) of each horizon, one at a time: all would fill memory."""
    device = getattr(predictor, "device", torch.device("cpu"))
    if horizons > 1:
        ahead = predictor.distributions_ahead(window)
    else:
        ahead = map(predictor.distribution, [window])  # computed when asked for, as the others
    for _ in range(horizons):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logp = next(ahead)
        yield logp.float()


def score_rows(logp: Tensor, targets: Tensor) -> Scores:
    """Score distributions by what came.

    Args:
        logp (Tensor (N, classes), float32): log-probabilities in nats.
        targets (Tensor (N,), int64): what came.

    Returns:
        Scores: one entry per row; `first` is 0.
    """
    # 0 - 0 is 0, where -0 would print a sign; a probability may round to a hair above 1.
    nats = (0 - logp.gather(1, targets[:, None])[:, 0]).clamp_min(0)
    entropy = 0 - (logp.exp() * logp.clamp_min(torch.finfo(logp.dtype).min)).sum(1)
    best = logp.topk(min(TOP_K[-1], logp.shape[1]), dim=1)
    # The indices, not the ranks, decide: a flat distribution must not hit every time.
    hit = best.indices == targets[:, None]
    bits = 1 / math.log(2)
    return Scores(
        first=0,
        classes=targets.cpu().numpy(),
        predicted=best.indices[:, 0].cpu().numpy(),
        bits=(nats.double() * bits).cpu().numpy(),
        entropy=(entropy.double() * bits).cpu().numpy(),
        confidence=best.values[:, 0].exp().double().cpu().numpy(),
        hits=torch.stack([hit[:, :k].any(1) for k in TOP_K], dim=1).cpu().numpy(),
        number_of_classes=logp.shape[1],
    )
