"""The whole analysis: at chance where there is nothing, structure where there is, never a NaN."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pyseq.analysis.baselines import marginal_bits
from pyseq.analysis.evaluation import evaluate, stream_ceiling
from pyseq.analysis.prediction_analysis import analyze_predictions
from pyseq.data.binning import Binning
from pyseq.data.streams import make
from tests.analysis.small_models import small_predictor, write


def analyse(path, values, predictor, train, test, **options):
    with write(path / "s.u16", values) as stream:
        return analyze_predictions(
            predictor, stream, train, test, binning=predictor.card.binning, seq_len=32, **options
        )


def fitted(predictor, symbols, steps):
    """The predictor after some steps of training on random windows."""
    model, random = predictor.model.train(), np.random.default_rng(0)
    classes = predictor.classes_of(torch.from_numpy(symbols.astype(np.int64)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        offsets = random.integers(0, len(classes) - 33, 16)
        window = torch.stack([classes[offset : offset + 33] for offset in offsets.tolist()])
        objective, _ = model.objective(window)
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
    model.eval()
    return predictor


def every_number(x, path=""):
    """Paths and values of all floats in a dataclass."""
    if dataclasses.is_dataclass(x):
        x = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    elif isinstance(x, list | tuple):
        x = dict(enumerate(x))
    if isinstance(x, dict):
        for key, value in x.items():
            yield from every_number(value, f"{path}.{key}")
    elif isinstance(x, float):
        yield path, x
    elif isinstance(x, np.ndarray) and x.dtype.kind == "f":
        yield path, float(x.sum())


@pytest.mark.parametrize("model", ["baseline", "supercharged"])
def test_hmac_rolls_are_at_chance_at_every_scale_and_for_every_head(tmp_path, model):
    rolls = make("hmac_rolls").generate(16_000, 5).numpy()
    binning = Binning.uniform(10_001, 1024)
    predictor = small_predictor(model, binning, kind="values", dropout=0.0)
    fitted(predictor, rolls[:10_000], 30)
    found = analyse(tmp_path, rolls, predictor, (0, 10_000), (10_033, 16_000))
    assert [scale.bins for scale in found.scales] == [1024, 256, 64, 16]
    assert len(found.horizons) == (4 if model == "supercharged" else 1)
    for row in (*found.scales, *found.horizons):
        assert row.verdict.kind != "structure"
        assert row.verdict.sentence.startswith("at chance")
    assert found.level == pytest.approx(1 - 0.05 / (3 + len(found.horizons)))
    # Figures of the alphabet, which do not depend on the sample: 10001 = 16 * 625 + 1.
    coarsest = found.scales[-1]
    assert coarsest.ceiling.law == "uniform"
    assert coarsest.ceiling.bits == pytest.approx(4, abs=1e-6)
    assert coarsest.first_symbols[:2] == (0, math.ceil(64 * 10_001 / 1024))
    assert coarsest.confusion.sum() == found.symbols
    assert found.confusions == ()


def test_a_random_walk_has_structure_at_every_scale(tmp_path):
    steps = np.random.default_rng(0).integers(-3, 4, 12_000)
    walk = np.abs((np.cumsum(steps) + 100) % 400 - 200)  # reflected at both ends
    predictor = small_predictor("supercharged", Binning(201), kind="values", dropout=0.0)
    fitted(predictor, walk[:9000], 60)
    found = analyse(tmp_path, walk, predictor, (0, 9000), (9000, 12_000))
    assert [scale.bins for scale in found.scales] == [201, 51, 16]
    for scale in found.scales:
        assert scale.verdict.kind == "structure"
        assert scale.bits.high < scale.marginal_bits.low
    bits = [scale.bits.value for scale in found.scales]
    assert bits == sorted(bits, reverse=True)
    assert [head.horizon for head in found.horizons] == [1, 2, 3, 4]
    near, far = found.horizons[0], found.horizons[-1]
    assert near.verdict.kind == "structure"
    assert near.bits == found.scales[0].bits
    assert near.bits.value < far.bits.value
    assert found.about_scales.startswith("each scale sums the probabilities")
    assert found.about_horizons == "the heads predict 1 to 4 symbols ahead from the same places"
    matrix = found.scales[-1].confusion
    assert np.trace(matrix) / matrix.sum() == pytest.approx(found.scales[-1].accuracy.value)


def test_it_agrees_with_the_evaluation(tmp_path):
    """On the same symbols of a stream with baselines known from elsewhere."""
    symbols = make("markov1", alphabet=20).generate(6000, 1).numpy()
    predictor = small_predictor("baseline", Binning(20))
    with write(tmp_path / "s.u16", symbols) as stream:
        options = {"binning": Binning(20), "seq_len": 32}
        found = analyze_predictions(predictor, stream, (0, 4000), (4000, 6000), **options)
        counts = np.bincount(symbols[:4000], minlength=20)
        evaluation = evaluate(
            predictor, stream, (0, 4000), (4000, 6000),
            ceiling=stream_ceiling(counts, Binning(20)), **options,
        )  # fmt: skip
    [head] = found.horizons
    assert found.symbols == 1999
    assert head.bits == evaluation.bits["model"]
    assert head.marginal_bits == evaluation.bits["marginal"]
    assert head.accuracy == evaluation.accuracy
    assert head.ece == evaluation.ece
    assert found.level == 0.95
    assert found.scales == ()
    assert "tokens are names" in found.about_scales
    assert found.about_horizons == "the model has one head, which predicts the next symbol"
    wrong = round(1999 * (1 - head.accuracy[1].value))
    assert 0 < sum(confusion.count for confusion in found.confusions) <= wrong
    assert len(found.confusions) == 20


def test_every_horizon_stands_beside_the_marginal_of_its_own_symbols(tmp_path):
    symbols = np.random.default_rng(0).integers(0, 30, 900) ** 2 // 30  # not evenly frequent
    predictor = small_predictor("supercharged", Binning(30))
    found = analyse(tmp_path, symbols, predictor, (0, 700), (750, 900), symbols=100)
    assert found.symbols == 100
    for head in found.horizons:
        first = 750 + head.horizon
        assert head.scores.first == first
        assert np.array_equal(head.scores.classes, symbols[first : first + 100])
        marginal = marginal_bits(symbols[:700], symbols[first : first + 100], 30)
        assert head.marginal_bits.value == pytest.approx(marginal.mean())


def test_the_scales_that_a_model_was_trained_for(tmp_path):
    values = np.random.default_rng(0).integers(0, 600, 3000) ** 2 // 600  # not evenly frequent
    predictor = small_predictor("supercharged", Binning(600), kind="values", scale_bins=(100, 300))
    found = analyse(tmp_path, values, predictor, (0, 2600), (2700, 3000))
    assert [scale.bins for scale in found.scales] == [600, 300, 100, 60, 16]
    scored = values[2701 : 2701 + found.symbols]
    for scale in found.scales:
        counted = values[:2600] // scale.width
        marginal = marginal_bits(counted, scored // scale.width, scale.bins)
        assert scale.marginal_bits.value == pytest.approx(marginal.mean())
        assert scale.ceiling.law == "marginal"
        assert scale.ceiling.top1 == pytest.approx(np.bincount(counted).max() / 2600)


def test_heads_that_were_not_trained_are_called_so(tmp_path):
    predictor = small_predictor("supercharged", Binning(5), pattern_weight=0.0)
    found = analyse(tmp_path, np.arange(200) % 5, predictor, (0, 100), (100, 200))
    assert found.about_horizons.endswith(
        "those beyond the first were not trained (--pattern_weight 0)"
    )


@pytest.mark.parametrize("symbols", [2, 3, 5, 8, 40])
@pytest.mark.parametrize(
    ("classes", "draw"),
    [
        (1, lambda n: np.zeros(n)),
        (2, lambda n: np.random.default_rng(0).integers(0, 2, n)),
        (50, lambda n: np.full(n, 7)),
        (50, lambda n: np.random.default_rng(0).integers(0, 50, n)),
    ],
    ids=["one class", "two classes", "constant", "fifty"],
)
@pytest.mark.parametrize("kind", ["tokens", "values"])
@pytest.mark.parametrize("model", ["baseline", "supercharged"])
def test_small_alphabets_and_short_ranges(tmp_path, model, kind, classes, draw, symbols):
    predictor = small_predictor(model, Binning(classes), kind=kind)
    found = analyse(tmp_path, draw(300 + symbols), predictor, (0, 300), (300, 300 + symbols))
    assert [path for path, value in every_number(found) if math.isnan(value)] == []
    assert 1 <= len(found.horizons) <= min(4, symbols - 1)
    assert found.symbols == symbols - len(found.horizons)
    for row in (*found.scales, *found.horizons):
        assert row.verdict.sentence.startswith("at chance")
    expected = [] if kind == "tokens" else [50, 13] if classes == 50 else [classes]
    assert [scale.bins for scale in found.scales] == expected
    if kind == "values" and classes < 50:
        assert found.about_scales.endswith(f"the model's own {classes} classes")


@pytest.mark.parametrize(("test", "options"), [((5, 6), {}), ((5, 9), {"symbols": 0})])
def test_nothing_to_score(tmp_path, test, options):
    predictor = small_predictor("baseline", Binning(5))
    with pytest.raises(ValueError, match=r"analyze_predictions: \d+ symbols of range \(5, \d\)"):
        analyse(tmp_path, np.arange(50) % 5, predictor, (0, 5), test, **options)
