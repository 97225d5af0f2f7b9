"""Evaluations and analyses that were never computed, for tests of what is shown of them."""

from dataclasses import replace

import numpy as np

from pyseq.analysis.ablation import Component
from pyseq.analysis.attention_reach import AttentionReach, HeadReach, LayerReach
from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.horizons import HorizonScores
from pyseq.analysis.intervals import Interval
from pyseq.analysis.prediction_analysis import PredictionAnalysis
from pyseq.analysis.scales import Confusion, ScaleScores
from pyseq.analysis.scoring import Scores
from pyseq.analysis.verdicts import Verdict

CEILING = ceiling(np.array([900, 500, 300, 200, 100, 64]))
GAIN = Interval(0.5, 0.4, 0.6)
FOUND = Verdict("structure", "structure: the model needs 2.3521 bits/symbol", GAIN)
CHANCE = Verdict("at chance", "at chance: the model needs 2.3521 bits/symbol", GAIN)


def scores(count: int = 3000) -> Scores:
    """Scores of calibrated predictions of six classes."""
    rng = np.random.default_rng(0)
    confidence = rng.random(count)
    hit = rng.random(count) < confidence
    classes = rng.integers(0, 6, count)
    return Scores(
        first=1,
        classes=classes,
        predicted=np.where(hit, classes, (classes + 1) % 6),
        bits=rng.exponential(2.4, count),
        entropy=4 * rng.random(count),
        confidence=confidence,
        hits=np.stack([hit] * 3, axis=1),
        number_of_classes=6,
    )


def evaluation(verdict: Verdict = FOUND, **changes) -> Evaluation:
    """A model beside its baselines."""
    share = Interval(0.581, 0.576, 0.586)
    found = Evaluation(
        scores=scores(),
        bits={
            "model": Interval(2.3521, 2.3071, 2.3952),
            "marginal": Interval(4.5178, 4.4711, 4.5642),
            "order-2": 2.6133,
            "xz": 1.7237,
        },
        accuracy={1: share, 3: share, 5: share},
        entropy=Interval(2.4137, 2.4, 2.43),
        confidence=share,
        ece=0.0123,
        chance_ece=0.0171,
        ceiling=CEILING,
        verdict=verdict,
    )
    return replace(found, **changes)


def head(horizon: int, verdict: Verdict = FOUND) -> HorizonScores:
    """The scores of one head."""
    share = Interval(0.3, 0.25, 0.35)
    return HorizonScores(
        horizon=horizon,
        bits=Interval(2 + horizon / 10, 1.9 + horizon / 10, 2.1 + horizon / 10),
        marginal_bits=Interval(4.5, 4.4, 4.6),
        accuracy={1: share, 3: share, 5: share},
        confidence=share,
        entropy=Interval(2.2, 2.1, 2.3),
        ece=0.01,
        verdict=verdict,
        scores=scores(50),
    )


def scale(bins: int, verdict: Verdict = FOUND, width: int = 2) -> ScaleScores:
    """The scores at one scale, with its confusions."""
    share = Interval(0.4, 0.35, 0.45)
    return ScaleScores(
        width=width,
        bins=bins,
        first_symbols=tuple(range(0, 1000 * bins, 1000)),
        bits=Interval(1.5, 1.4, 1.6),
        marginal_bits=Interval(2.5, 2.4, 2.6),
        accuracy=share,
        confidence=share,
        ece=0.02,
        ceiling=ceiling(np.arange(1, bins + 1)),
        verdict=verdict,
        confusion=np.arange(bins * bins).reshape(bins, bins),
    )


def layer(name: str, heads: int, bands: int = 4, unit: str = "patches") -> LayerReach:
    """An attention layer whose heads look at growing distances."""
    edges = tuple((2**k // 2, 2**k - 1) for k in range(bands))
    even = (1 / (bands + 1),) * bands
    shares = [tuple(0.8 * (k == n % bands) for k in range(bands)) for n in range(heads)]
    found = tuple(HeadReach(s, 0.2, 3.0, 1.25, 0.5) for s in shares)
    return LayerReach(name, unit, edges, found, even, 1 / (bands + 1))


def analysis(verdict: Verdict = FOUND, **changes) -> PredictionAnalysis:
    """Values taken apart by two heads, two scales and two layers."""
    found = PredictionAnalysis(
        symbols=2998,
        level=0.9875,
        scales=(scale(6, verdict, width=1), scale(3, verdict)),
        about_scales="each scale sums the probabilities over bins",
        confusions=(),
        horizons=(head(1, verdict), head(2, verdict)),
        about_horizons="the heads predict 1 to 2 symbols ahead",
        attention=AttentionReach(
            windows=8,
            length=64,
            layers=(
                layer("block 1: hard", 2),
                layer("inside the patch 1: cosine", 1, 3, "symbols"),
            ),
            weightless=("after block 3: Fourier mixing",),
        ),
    )
    return replace(found, **changes)


def of_tokens(verdict: Verdict = FOUND) -> PredictionAnalysis:
    """Tokens taken apart: one head, no scales, a list of confusions."""
    return analysis(
        verdict,
        scales=(),
        about_scales="tokens have no neighbours",
        horizons=(head(1, verdict),),
        about_horizons="the model has one head",
        confusions=(Confusion(2, 3, 41, 0.25), Confusion(0, 5, 7, 0.125)),
    )


COMPONENTS = (
    Component("memory tokens", True, {"memory": 20, "memory_read": "prefix"}, 1280),
    Component("Fourier mixing", False, {"fourier": False}, 0),
    Component("the rest", None, {"scale_bins": [16, 64]}, 70),
)
