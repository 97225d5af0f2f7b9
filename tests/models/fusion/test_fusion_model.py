"""Whole models: missing modalities, training's droppings, gradients, and what is refused."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pyseq.data.modalities import Batch, Graph, Modality
from pyseq.errors import UserError
from pyseq.models.fusion import (
    DataShape,
    FusionConfig,
    ModalityShape,
    build_fusion_model,
    drop_modalities,
)
from tests.models.fusion.fusion_cases import (
    CONFIGS,
    SHAPE,
    SMALL,
    build,
    modality_data,
    some_missing,
)

every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def spoiled(batch, filling):
    """The batch with other values wherever a modality is missing."""
    values = {}
    for m, (name, value) in enumerate(batch.values.items()):
        gone = ~batch.present[:, m]
        parts = [x.clone() for x in (value if isinstance(value, Graph) else (value,))]
        for x in parts:
            x[gone] = 2 if x.dtype == torch.int64 else filling
        values[name] = Graph(*parts) if isinstance(value, Graph) else parts[0]
    return Batch(values, batch.present, batch.label)


@every
@torch.no_grad()
def test_logits_of_every_object_by_itself(config):
    model, batch = build(config), modality_data(present=some_missing()).batch()
    logits = model(batch)
    assert logits.shape == (6, 3)
    assert torch.equal(model.classify(model.embed(batch), batch.present), logits)
    for i in range(6):
        alone = model(batch.select(torch.tensor([i])))
        torch.testing.assert_close(alone[0], logits[i], rtol=1e-4, atol=1e-5)
    assert model(batch.select(torch.arange(0))).shape == (0, 3)


@every
@pytest.mark.parametrize("filling", [5.0, float("nan")])
def test_missing_values_have_no_influence(config, filling):
    model, batch = build(config), modality_data(present=some_missing()).batch()
    other = spoiled(batch, filling)
    assert torch.equal(model(batch), model(other))

    def gradients(batch):
        model.zero_grad()
        model(batch).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    for ours, theirs in zip(gradients(batch), gradients(other), strict=True):
        assert torch.equal(ours, theirs)


@every
@torch.no_grad()
def test_every_modality_that_is_there_matters(config):
    model, whole = build(config), modality_data()
    logits = model(whole.batch())
    for name in whole.names:
        assert (model(whole.without(name).batch()) - logits).abs().amax(1).min() > 1e-3
    other = model(modality_data(seed=1).batch())
    assert (other - logits).abs().amax(1).min() > 1e-2


@every
@torch.no_grad()
def test_without_any_modality_the_prior_is_left(config):
    present = some_missing()
    present[2] = False
    shape = DataShape.of(modality_data().subset(np.array([0, 1, 3, 3, 3])))
    logits = build(config, shape=shape)(modality_data(present=present).batch())
    expected = torch.tensor([5 / 8, 2 / 8, 1 / 8])  # 4, 1 and 0 objects, and one more of each
    torch.testing.assert_close(logits[2].softmax(0), expected)
    assert (logits[3].softmax(0) - expected).abs().max() > 1e-3


@every
def test_every_parameter_learns(config):
    model, batch = build(config).train(), modality_data(present=some_missing()).batch()
    F.cross_entropy(model(batch), batch.label).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    for learned in (model.modality, model.missing):
        assert learned.grad.abs().amax(1).min() > 0


@every
def test_a_model_learns_its_batch(config):
    config = dataclasses.replace(config, dropout=0.1, modality_dropout=0.2)
    batch = modality_data(24).batch()
    model = build_fusion_model(config, SHAPE, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(batch), batch.label).backward()
        optimiser.step()
    accuracy = (model.eval()(batch).argmax(1) == batch.label).double().mean().item()
    assert accuracy > 0.9  # labels are random: a third by chance


@every
def test_dropping_is_for_training(config):
    batch = modality_data().batch()
    for setting in ("dropout", "modality_dropout"):
        model = build(dataclasses.replace(config, **{setting: 0.5}))
        assert torch.equal(model(batch), model(batch))
        torch.testing.assert_close(model(batch), build(config)(batch), rtol=0, atol=0)
        model.train()
        torch.manual_seed(0)
        first, second = model(batch), model(batch)
        assert not torch.equal(first, second)
        torch.manual_seed(0)
        assert torch.equal(model(batch), first)
    plain = build(config).train()
    assert torch.equal(plain(batch), plain.eval()(batch))


def test_dropped_modalities_are_some_of_those_there_and_never_all():
    torch.manual_seed(0)
    present = torch.rand(20000, 4) < 0.6
    kept = drop_modalities(present, 0.5)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))
    for count in (1, 2, 3, 4):
        rows = present.sum(1) == count
        # each stays with 1/2, and one of them where all would go, (1/2)^count
        expected = 0.5 + 0.5**count / count
        n = rows.sum().item() * count
        share = kept[rows].sum().item() / n
        assert share == pytest.approx(expected, abs=4 * 0.5 / n**0.5)
    alone = drop_modalities(torch.ones(9000, 3, dtype=torch.bool), 0.999)
    single = alone.sum(1) == 1
    assert single.double().mean() > 0.98
    assert alone[single].double().mean(0).sub(1 / 3).abs().max() < 0.03  # none is preferred
    assert drop_modalities(present, 0.0) is present


@every
def test_half_precision_gives_about_the_same(config):
    model, batch = build(config), modality_data(present=some_missing()).batch()
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    rough.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every
@torch.no_grad()
def test_an_untrained_gap_adds_nothing(config):
    model, batch = build(config), modality_data(present=some_missing()).batch()
    there = batch.present.all(1)
    before = model(batch)
    model.missing.zero_()
    after = model(batch)
    assert torch.equal(before[there], after[there])
    assert (before - after)[~there].abs().amax(1).min() > 1e-4
    if config.fusion == "attention":  # then a modality that is missing is as if it were not known
        one = batch.select(torch.tensor([0]))
        assert one.present.tolist() == [[False, False, False, True]]
        tokens = [x for m, x in enumerate(model.embed(one)) if one.present[0, m]]
        there = torch.ones(1, 1, dtype=torch.bool)
        for layer in model.fusion:
            # its single token reads itself alone, which the layer refuses; so it is given twice
            tokens = [x[:, :1] for x in layer([tokens[0].repeat(1, 2, 1)], there)]
        expected = model.classifier(model.norm(tokens[0]).mean(1))
        torch.testing.assert_close(after[:1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mixtures_of_tokens_can_be_classified():
    model, batch = build(CONFIGS["attention"]), modality_data().batch()
    tokens, turn = model.embed(batch), torch.arange(6).roll(1)
    mixed = [0.7 * x + 0.3 * x[turn] for x in tokens]
    logits = model.classify(mixed, batch.present)
    assert (logits - model(batch)).abs().amax(1).min() > 1e-3
    assert [x.shape for x in tokens] == [(6, 1, 16), (6, 3, 16), (6, 4, 16), (6, 1, 16)]


@every
def test_seeds_differ_and_repeat(config):
    state = torch.get_rng_state()
    first, again, other = (build_fusion_model(config, SHAPE, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    assert not torch.equal(first.modality, other.modality)
    batch = modality_data().batch()
    assert torch.equal(copy.deepcopy(first).eval()(batch), first.eval()(batch))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("modalities", [2, 4, 7])
def test_concatenation_has_about_the_parameters_of_attention(layers, modalities):
    shape = DataShape(
        tuple(ModalityShape(f"m{i}", "vector", features=6) for i in range(modalities)), (0.5, 0.5)
    )

    def parameters(fusion):
        config = FusionConfig(width=64, fusion_layers=layers, fusion=fusion)
        model = build_fusion_model(config, shape, seed=0)
        assert [type(e).__name__ for e in model.encoders] == ["VectorEncoder"] * modalities
        return sum(p.numel() for p in model.fusion.parameters()), model.describe()

    attention, text = parameters("attention")
    concatenation, other = parameters("concatenation")
    # the nearest whole number of residual layers, 4 width^2 each: half of one at most
    assert abs(attention - concatenation) < 2.2 * 64**2
    assert f"{layers} layers of softmax attention with 8 heads" in text
    assert "concatenation and" in other


def test_the_defaults_are_the_specified_ones():
    config = FusionConfig()
    assert (config.width, config.heads, config.classifier_layers) == (512, 8, 5)
    assert config.fusion == "attention"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, "width is 0; at least 1 fits"),
        ({"heads": 3}, "3 heads do not divide width 16"),
        ({"dropout": 1.0}, "dropout is 1.0; 0 to below 1 fits"),
        ({"modality_dropout": -0.1}, "modality_dropout is -0.1"),
        ({"fusion": "sum"}, "fusion is sum; one of attention, concatenation fits"),
        ({"attention": "hard"}, "attention is hard; one of softmax, cosine fits"),
        ({"patch": 0}, "patch is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        FusionConfig(**{**SMALL, **settings})


def test_attention_over_one_token_is_refused():
    alone = DataShape((ModalityShape("x", "vector", features=3),), (0.5, 0.5))
    with pytest.raises(UserError, match="modality x alone is one token"):
        build(CONFIGS["attention"], shape=alone)
    build(CONFIGS["concatenation"], shape=alone)
    series = DataShape((ModalityShape("x", "sequence", features=1, length=9),), (0.5, 0.5))
    build(CONFIGS["attention"], shape=series)


def renamed(batch):
    batch.values["numbers"] = batch.values.pop("scalars")


def reordered(batch):
    batch.values["scalars"] = batch.values.pop("scalars")


def narrowed(batch):
    batch.values["scalars"] = batch.values["scalars"][:, :4]


def shortened(batch):
    batch.values["series"] = batch.values["series"][:, :6]


def flattened(batch):
    batch.values["crystal"] = Graph(
        batch.values["crystal"].features[0], *batch.values["crystal"][1:]
    )


def masked_short(batch):
    batch.present = batch.present[:, :3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, "scalars, series, words, crystal, in this order, fit"),
        (reordered, "modalities series, words, crystal, scalars"),
        (narrowed, r"scalars has shape \(6, 4\); \(6, 5\) fits"),
        (shortened, r"series has shape \(6, 6, 2\); \(6, 7, 2\) fits"),
        (flattened, r"crystal has shape \(5, 3\); \(6, V, 3\) fits"),
        (masked_short, r"present has shape \(6, 3\); \(6, 4\) fits"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change, words):
    batch = modality_data().batch()
    change(batch)
    with pytest.raises(ValueError, match=f"^FusionModel: .*{words}"):
        build(CONFIGS["attention"])(batch)


def test_other_kinds_are_refused():
    model, batch = build(CONFIGS["attention"]), modality_data().batch()
    with pytest.raises(ValueError, match="FusionModel: 2 modalities; 4 fit"):
        model.classify(model.embed(batch)[:2], batch.present[:, :2])
    batch.present = batch.present.float()
    with pytest.raises(TypeError, match=r"present is torch.float32"):
        model(batch)


def test_the_shape_of_data():
    data = modality_data()
    shape = DataShape.of(data)
    assert shape.names == data.names
    assert shape.kinds == ("vector", "sequence", "tokens", "graph")
    assert shape.classes == 3
    sizes = [(m.features, m.length, m.vocabulary) for m in shape.modalities]
    assert sizes == [(5, 0, 0), (2, 7, 0), (0, 4, 11), (3, 0, 0)]
    assert DataShape.from_dict(dataclasses.asdict(shape)) == shape
    one_class = DataShape.of(data.subset(np.array([0, 3])))
    assert one_class.class_shares == pytest.approx((3 / 5, 1 / 5, 1 / 5))


@pytest.mark.parametrize(
    ("modalities", "shares", "words"),
    [
        ([("x", "vector", 0)], (0.5, 0.5), "modality x, a vector, has features 0"),
        ([("x", "sequence", 2)], (0.5, 0.5), "modality x, a sequence, has length 0"),
        ([("x", "image", 2)], (0.5, 0.5), "modality x is of kind image; one of vector"),
        ([], (0.5, 0.5), "no modality"),
        ([("x", "vector", 2), ("x", "vector", 2)], (0.5, 0.5), "each name once"),
        ([("x", "vector", 2)], (1.0,), "1 classes; at least 2"),
        ([("x", "vector", 2)], (1.0, 0.0), "positive numbers of sum 1"),
        ([("x", "vector", 2)], (0.5, 0.6), "positive numbers of sum 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(modalities, shares, words):
    with pytest.raises(UserError, match=words):
        DataShape(tuple(ModalityShape(*m) for m in modalities), shares)


def test_graphs_may_have_any_number_of_places():
    data = modality_data()
    graph = data["crystal"]
    wide = Modality(
        "crystal",
        "graph",
        np.pad(graph.values, ((0, 0), (0, 3), (0, 0))),
        adjacency=np.pad(graph.adjacency, ((0, 0), (0, 3), (0, 3))),
        nodes=graph.nodes,
    )
    padded = dataclasses.replace(data, modalities=(*data.modalities[:3], wide))
    model = build(CONFIGS["attention"])
    torch.testing.assert_close(model(padded.batch()), model(data.batch()), rtol=1e-4, atol=1e-5)
