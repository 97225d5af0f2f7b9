"""Everything that is said about a model on held-out symbols, from scores to verdict."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyseq.analysis.baselines import baseline_table
from pyseq.analysis.calibration import calibration_error
from pyseq.analysis.ceilings import Ceiling, ceiling
from pyseq.analysis.intervals import Interval, block_bootstrap
from pyseq.analysis.scoring import TOP_K, Scores, score
from pyseq.analysis.verdicts import Verdict, judge
from pyseq.data.binning import Binning
from pyseq.data.u16_stream import U16Stream

MOST_BASELINE_SYMBOLS = 20_000_000  # training symbols that the baselines count


@dataclass(frozen=True)
class Evaluation:
    """A model beside the baselines on the same symbols.

    Attributes:
        scores (Scores): per symbol.
        bits (dict name -> Interval or float): bits per symbol of the model and of each baseline.
        accuracy (dict k -> Interval): top-k accuracy, fractions.
        entropy (Interval): mean entropy of the predictions, bits.
        confidence (Interval): mean probability of the most likely class.
        ece (float): expected calibration error, fraction.
        ceiling (Ceiling): the best average that is possible on independent symbols.
        verdict (Verdict): in words.
    """

    scores: Scores
    bits: dict[str, Interval | float]
    accuracy: dict[int, Interval]
    entropy: Interval
    confidence: Interval
    ece: float
    ceiling: Ceiling
    verdict: Verdict

    @property
    def perplexity(self) -> Interval:
        """2 to the bits per symbol."""
        bits = self.bits["model"]
        assert isinstance(bits, Interval)
        return Interval(*(2.0**x for x in (bits.value, bits.low, bits.high)))

    def to_dict(self) -> dict[str, Any]:
        """What goes into summary.json.

        Returns:
            dict: of JSON's types only. Intervals are [value, low, high]; a number that is not
            finite is None (null), as both ends are where a single symbol was scored.
        """

        def plain(x):
            return [x.value, x.low, x.high] if isinstance(x, Interval) else x

        summary = {
            "symbols": len(self.scores.bits),
            "first_symbol": self.scores.first,
            "bits_per_symbol": {name: plain(bits) for name, bits in self.bits.items()},
            "accuracy": {f"top{k}": plain(share) for k, share in self.accuracy.items()},
            "perplexity": plain(self.perplexity),
            "mean_entropy_bits": plain(self.entropy),
            "mean_confidence": plain(self.confidence),
            "ece": self.ece,
            "ceiling": asdict(self.ceiling),
            "verdict": self.verdict.kind,
            "gain_bits_per_symbol": plain(self.verdict.gain),
            "sentence": self.verdict.sentence,
        }
        return _finite(summary)


def _finite(x: Any) -> Any:
    """The same with None for every number that JSON cannot say."""
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def stream_ceiling(counts: np.ndarray, binning: Binning) -> Ceiling:
    """The ceiling of a binned stream, from the counts (alphabet,) in its training range."""
    bins = None if binning.edges is None else binning.table()
    return ceiling(counts, bins, bins=binning.classes)


def evaluate(
    predictor,
    stream: U16Stream,
    train: tuple[int, int],
    test: tuple[int, int],
    *,
    binning: Binning,
    ceiling: Ceiling,
    seq_len: int,
    autocast: bool = False,
) -> Evaluation:
    """Score a model and the baselines on the same symbols and say what that shows.

    Args:
        predictor (DistributionPredictor): the model.
        stream (U16Stream): the symbols.
        train (tuple of 2 ints): range that the baselines may count; its last 20 million symbols
            are used.
        test (tuple of 2 ints): range that is scored, all but its first symbol.
        binning (Binning): the model's classes; baselines predict the same ones.
        ceiling (Ceiling): of the same binning.
        seq_len (int): context of the model; also the block of the bootstrap.
        autocast (bool): compute in bfloat16 where it is safe.

    Returns:
        Evaluation: with 95 % intervals by block bootstrap.
    """
    scores = score(predictor, stream, *test, seq_len=seq_len, autocast=autocast)
    counted = binned(stream, max(train[0], train[1] - MOST_BASELINE_SYMBOLS), train[1], binning)
    context = binned(stream, max(0, test[0] - 1), test[0] + 1, binning)
    table = baseline_table(counted, scores.classes, binning.classes, context=context)

    def mean(values: np.ndarray) -> Interval:
        return block_bootstrap(values, block=seq_len)

    others = {name: bits for name, bits in table.items() if isinstance(bits, np.ndarray)}
    marginal = others.pop("marginal")
    verdict = judge(
        scores.bits, marginal, scores.classes, ceiling=ceiling, block=seq_len, others=others
    )
    bits: dict[str, Interval | float] = {"model": mean(scores.bits)}
    bits |= {n: mean(b) if isinstance(b, np.ndarray) else b for n, b in table.items()}
    return Evaluation(
        scores=scores,
        bits=bits,
        accuracy={k: mean(scores.hits[:, i].astype(float)) for i, k in enumerate(TOP_K)},
        entropy=mean(scores.entropy),
        confidence=mean(scores.confidence),
        ece=calibration_error(scores.confidence, scores.hits[:, 0]),
        ceiling=ceiling,
        verdict=verdict,
    )


def binned(stream: U16Stream, start: int, stop: int, binning: Binning) -> np.ndarray:
    """Classes of the symbols in [start, stop), uint16."""
    return binning.table().astype(np.uint16)[stream[start:stop].numpy()]
