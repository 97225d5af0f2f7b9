"""The linear model beside its sum, what is wrong in it as published, and what may be added."""

import pytest
import torch
from torch import nn

from pyseq.models.rules import LinearConfig, build_rule_model
from tests.models.rules.rule_model_cases import CLASSES, MAX_LENGTH, build, words


@torch.no_grad()
@pytest.mark.parametrize("variant", ["official", "fixed"])
def test_the_linear_model_is_its_sum(variant):
    model = build(LinearConfig(embedding=4, variant=variant))
    tokens = words(2)
    layer, L = model.layers[0], MAX_LENGTH + 1
    assert layer.weight.shape == (2, L, 4, L, CLASSES)
    for s in range(2):
        x = model.embedding.weight[s][tokens[s]]
        for t in range(L):
            read = range(t, L) if variant == "official" else range(t + 1)
            expected = layer.bias[s, t] + sum(x[:, p] @ layer.weight[s, p, :, t] for p in read)
            torch.testing.assert_close(model(tokens)[s, :, t], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_official_linear_model_decodes_one_token():
    model = build(LinearConfig(embedding=4))
    L = MAX_LENGTH + 1
    bias = model.layers[0].bias[:, -1]
    cache = model.new_cache()
    for T in range(1, L):  # no token of an unfinished word reaches the last position
        tokens = words(2, T=L, pads=False)
        for logits in (
            model.next_logits(tokens[:, :, :T]),
            model.next_logits(tokens[:, :, T - 1 : T], cache=cache),
        ):
            assert torch.equal(logits, bias[:, None].expand_as(logits))
    whole = words(2, pads=False)
    torch.testing.assert_close(
        model.next_logits(whole), model(whole)[:, :, -1], rtol=1e-5, atol=1e-6
    )
    assert (model.next_logits(whole) - bias[:, None]).abs().max() > 1e-2


@torch.no_grad()
def test_linear_initial_values():
    def weight(init):
        config = LinearConfig(variant="fixed", init=init)
        model = build_rule_model(config, classes=5, max_length=31, seeds=[0, 1])
        return model, model.layers[0].weight

    _, official = weight("xavier")
    theirs = nn.init.xavier_uniform_(torch.empty(32, 10, 32, 5))
    assert official.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=1e-3)
    assert official.std().item() == pytest.approx(theirs.std().item(), rel=0.02)
    model, _ = weight("normal")
    tokens = words(2, B=500, T=32, pads=False)
    logits = model(tokens)
    assert logits.std().item() == pytest.approx(1, rel=0.25)
    assert logits[:, :, 30].std().item() == pytest.approx(1, rel=0.4)


def test_what_stands_between_the_layers_is_named():
    def described(**options):
        config = LinearConfig(variant="fixed", **options)
        model = build_rule_model(config, classes=5, max_length=4, seeds=[0])
        return model.describe()

    assert described().name == "Linear"
    assert described(layers=2).name == "Linear"
    residual = described(layers=2, residual=True)
    assert residual.name == "Linear"
    assert "which keep it linear" in residual.text
    for option in ({"layer_norm": True}, {"activation": "tanh"}):
        named = described(layers=2, **option)
        assert named.name == "position-wise network"
        assert "not linear: " in named.text


@torch.no_grad()
def test_what_is_called_linear_is_linear():
    # a linear model's logits differ by the same amount wherever one token replaces another
    def curvature(**options):
        model = build(LinearConfig(variant="fixed", init="normal", layers=2, **options))
        tokens = words(2, B=4, pads=False)
        tokens[:] = tokens[:, :1]
        tokens[:, 1::2, 2] = 7 - tokens[:, 1::2, 2]
        tokens[:, 2:, 4] = 7 - tokens[:, 2:, 4]
        a, b, c, d = model(tokens).unbind(1)
        return (a - b - c + d).abs().max().item()

    assert curvature() < 1e-4
    assert curvature(residual=True) < 1e-4
    assert curvature(layer_norm=True) > 1e-2
    assert curvature(activation="relu") > 1e-2


def test_too_many_tokens_for_the_linear_model():
    model = build(LinearConfig(embedding=4, variant="fixed"))
    cache = model.new_cache()
    model(words(2), cache=cache)
    for call in (
        lambda: model(words(2, T=MAX_LENGTH + 2)),
        lambda: model(words(2, T=1, pads=False), cache=cache),
    ):
        with pytest.raises(ValueError, match=r"13 tokens; at most max_length \+ 1 = 12 fit"):
            call()
