"""Everything that is said about a model on held-out symbols, from scores to verdict."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from pyseq.analysis.baselines import baseline_table
from pyseq.analysis.bits_per_byte import bits_per_byte
from pyseq.analysis.calibration import calibration_error, chance_calibration_error
from pyseq.analysis.ceilings import Ceiling, ceiling, format_percent
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
        chance_ece (float): what a perfectly calibrated model's stays below in 95 of 100 samples.
        ceiling (Ceiling): the best average that is possible on independent symbols.
        verdict (Verdict): in words; means nothing unless `held_out`.
        held_out (bool): whether the model is known not to have seen the scored symbols.
        baselines (dict name -> array (N,) or float): their bits of each symbol, or per symbol where
            they code the range as a whole (`baselines.baseline_table`).
        bits_per_byte (Interval | None): of the model, where symbols are tokens of a text.
    """

    scores: Scores
    bits: dict[str, Interval | float]
    accuracy: dict[int, Interval]
    entropy: Interval
    confidence: Interval
    ece: float
    chance_ece: float
    ceiling: Ceiling
    verdict: Verdict
    held_out: bool = True
    baselines: dict[str, np.ndarray | float] = field(default_factory=dict)
    bits_per_byte: Interval | None = None

    @property
    def statement(self) -> str:
        """The verdict's sentence, or why there is none."""
        if self.held_out:
            return self.verdict.sentence
        return "no verdict: the scored range holds symbols that the model was trained on"

    @property
    def perplexity(self) -> Interval:
        """2 to the bits per symbol."""
        bits = self.bits["model"]
        assert isinstance(bits, Interval)
        return perplexity(bits)

    def metrics(self) -> list[tuple[str, str]]:
        """Names and values of everything but the bits, as shown to people."""
        most = {1: self.ceiling.top1, 3: self.ceiling.top3, 5: self.ceiling.top5}
        rows = [
            (
                f"top-{k} accuracy",
                f"{format_percent(share)}; at most {format_percent(most[k])} on average on"
                " independent symbols",
            )
            for k, share in self.accuracy.items()
        ]
        error = (
            f"{format_percent(self.ece)}; of a perfectly calibrated model below"
            f" {format_percent(self.chance_ece)} in 95 of 100 such samples"
        )
        if self.bits_per_byte is not None:
            across = "comparable across tokenizers, which bits/symbol are not"
            rows.insert(0, ("bits/byte", f"{self.bits_per_byte}; {across}"))
        return [
            *rows,
            ("perplexity", str(self.perplexity)),
            ("mean confidence", format_percent(self.confidence)),
            ("mean entropy of the predictions", f"{self.entropy} bits"),
            ("expected calibration error", error),
        ]

    def to_dict(self) -> dict[str, Any]:
        """What goes into summary.json.

        Returns:
            dict: of JSON's types only. Intervals are [value, low, high]; a number that is not
            finite is None (null), as both ends are where a single symbol was scored.
        """

        return as_json(
            {
                "symbols": len(self.scores.bits),
                "first_symbol": self.scores.first,
                "bits_per_symbol": self.bits,
                "bits_per_byte": self.bits_per_byte,
                "accuracy": {f"top{k}": share for k, share in self.accuracy.items()},
                "perplexity": self.perplexity,
                "mean_entropy_bits": self.entropy,
                "mean_confidence": self.confidence,
                "ece": self.ece,
                "chance_ece": self.chance_ece,
                "ceiling": asdict(self.ceiling),
                "verdict": self.verdict.kind if self.held_out else None,
                "gain_bits_per_symbol": self.verdict.gain,
                "sentence": self.statement,
            }
        )

    def flat(self) -> dict[str, Any]:
        """The metrics in one flat mapping, one column each, of `to_dict`'s types."""
        found = self.to_dict()
        bits = found["bits_per_symbol"].items()
        named = {f"{name.replace('-', '_')}_bits": value for name, value in bits}
        named["bits_per_byte"] = found["bits_per_byte"] or [None] * 3
        named |= {f"{name}_accuracy": share for name, share in found["accuracy"].items()}
        for name in ("perplexity", "mean_entropy_bits", "mean_confidence", "ece", "chance_ece",
                     "gain_bits_per_symbol"):  # fmt: skip
            named[name] = found[name]
        columns = {"scored_symbols": found["symbols"]}
        for name, value in named.items():
            ends = ("", "_low", "_high")
            values = value if isinstance(value, list) else [value]
            columns |= {name + end: x for end, x in zip(ends, values, strict=False)}
        return columns | {"ceiling_bits": found["ceiling"]["bits"], "verdict": found["verdict"]}


def perplexity(bits: Interval) -> Interval:
    """2 to the bits per symbol."""
    return Interval(*(2.0**x for x in (bits.value, bits.low, bits.high)))


def as_json(x: Any) -> Any:
    """The same in JSON's types.

    Args:
        x (Any): numbers, strings, Intervals, and dicts, lists and tuples of them.

    Returns:
        Any: intervals as [value, low, high], and None for every number that is not finite.
    """
    if isinstance(x, Interval):
        x = [x.value, x.low, x.high]
    if isinstance(x, dict):
        return {key: as_json(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [as_json(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def stream_ceiling(counts: np.ndarray, binning: Binning) -> Ceiling:
    """The ceiling of a binned stream, from the counts (alphabet,) in its training range.

    Where the bins were made even on these same counts they look more even than they are, so that
    an estimated ceiling lies on the wrong side; its reason says by how much at the most.
    """
    bins = None if binning.edges is None else binning.table()
    found = ceiling(counts, bins, bins=binning.classes)
    if found.law == "uniform" or not binning.is_even_on(counts):
        return found
    # B / (2 N) nats from the fit of the bins, and as much from Miller and Madow's correction.
    bits = binning.classes / int(counts.sum()) / math.log(2)
    return replace(
        found,
        reason=f"{found.reason}, on which the bins were made even, so that these figures read up"
        f" to about {bits:.1g} bits/symbol too high, and too low for the accuracies",
    )


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
    held_out: bool = True,
    symbol_bytes: np.ndarray | None = None,
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
        held_out (bool): whether the model is known not to have seen the range.
        symbol_bytes (array (classes,), integer | None): see `ModelCard.symbol_bytes`.

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
        chance_ece=chance_calibration_error(scores.confidence),
        ceiling=ceiling,
        verdict=verdict,
        held_out=held_out,
        baselines=table,
        bits_per_byte=None
        if symbol_bytes is None
        else bits_per_byte(scores.bits, symbol_bytes[scores.classes], block=seq_len),
    )


def binned(stream: U16Stream, start: int, stop: int, binning: Binning) -> np.ndarray:
    """Classes of the symbols in [start, stop), uint16."""
    return binning.table().astype(np.uint16)[stream[start:stop].numpy()]
