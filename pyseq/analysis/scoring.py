"""A predictor's scores on every symbol of a held-out range."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pyseq.data.u16_stream import U16Stream
from pyseq.ops import gather_windows

TOP_K = (1, 3, 5)
MAX_PROBABILITIES = 1 << 25  # elements of one batch's distributions: 128 MiB in float32


class DistributionPredictor(Protocol):
    """What scoring asks of a model; `pyseq.models.Predictor` is one.

    Top-k, entropy and calibration need the whole distribution; measures that need only the
    probability of what came ask a predictor for `log_prob(window)` instead.
    """

    def distribution(self, window: Tensor) -> Tensor:
        """Log-probabilities (B, T, classes) of the next class after each of window (B, T)."""

    def classes_of(self, symbols: Tensor) -> Tensor:
        """Classes of symbols."""


@dataclass(frozen=True)
class Scores:
    """One entry per scored symbol, in the order of the stream.

    Attributes:
        first (int): offset of the first scored symbol in the stream.
        classes (array (N,), int64): what came.
        bits (array (N,), float64): -log2 of the probability that it was given; at least 0.
        entropy (array (N,), float64): bits, of the predicted distribution.
        confidence (array (N,), float64): probability of the most likely class.
        hits (array (N, 3), bool): whether it was among the top 1, 3, 5.
        number_of_classes (int): how many the model tells apart.
    """

    first: int
    classes: np.ndarray
    bits: np.ndarray
    entropy: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    number_of_classes: int


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
    symbols = stop - start
    if symbols < 2:
        raise ValueError(f"score: range [{start}, {stop}) holds {symbols} symbols; 2 or more fit")
    seq_len = min(seq_len, symbols - 1)
    offsets, skips = _windows(symbols, seq_len)
    parts: list[tuple[np.ndarray, ...]] = []
    batch = 1  # until the number of classes is known
    position = 0
    while position < len(offsets):
        chosen = offsets[position : position + batch]
        window = gather_windows(stream, torch.from_numpy(chosen + start), seq_len + 1)
        logp, targets = _distribution(predictor, window, autocast)
        keep = (
            torch.arange(seq_len) >= torch.from_numpy(skips[position : position + batch])[:, None]
        )
        parts.append(_score_batch(logp, targets, keep.to(logp.device)))
        position += len(chosen)
        classes = logp.shape[-1]
        batch = max(1, min(64, MAX_PROBABILITIES // (seq_len * classes)))
    columns = zip(*parts, strict=True)
    came, bits, entropy, confidence, hits = (np.concatenate(column) for column in columns)
    return Scores(start + 1, came, bits, entropy, confidence, hits, classes)


def _windows(symbols: int, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the windows of seq_len + 1 symbols, and how many predictions each one skips."""
    hop = max(1, seq_len // 2)
    last = symbols - seq_len - 1
    offsets = np.append(np.arange(0, last, hop), last)
    done = np.append(0, offsets[:-1] + seq_len)  # predictions made by the windows before
    return offsets, done - offsets


def _distribution(predictor, window: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
    device = getattr(predictor, "device", torch.device("cpu"))
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        logp = predictor.distribution(window[:, :-1])
    return logp.float(), predictor.classes_of(window[:, 1:])


def _score_batch(logp: Tensor, targets: Tensor, keep: Tensor) -> tuple[np.ndarray, ...]:
    logp, targets = logp[keep], targets[keep]  # (N, classes), (N,)
    # 0 - 0 is 0, where -0 would print a sign; a probability may round to a hair above 1.
    nats = (0 - logp.gather(1, targets[:, None])[:, 0]).clamp_min(0)
    entropy = 0 - (logp.exp() * logp.clamp_min(torch.finfo(logp.dtype).min)).sum(1)
    best = logp.topk(min(TOP_K[-1], logp.shape[1]), dim=1)
    # The indices, not the ranks, decide: a flat distribution must not hit every time.
    hit = best.indices == targets[:, None]
    hits = torch.stack([hit[:, :k].any(1) for k in TOP_K], dim=1)
    bits = 1 / math.log(2)
    columns = (
        targets,
        nats.double() * bits,
        entropy.double() * bits,
        best.values[:, 0].exp().double(),
        hits,
    )
    return tuple(column.cpu().numpy() for column in columns)
