"""What every model of grammars keeps: causality, decoding, independence of seeds, files."""

import copy
import dataclasses

import pytest
import torch

from pyseq.models.rules import MODELS, LSTMConfig, TransformerConfig, build_rule_model
from tests.models.rules.rule_model_cases import (
    ALL,
    CAUSAL,
    CLASSES,
    DROPPING,
    MAX_LENGTH,
    OFFICIAL_LINEAR,
    build,
    words,
)

causal = pytest.mark.parametrize("config", CAUSAL.values(), ids=CAUSAL)
every = pytest.mark.parametrize("config", ALL.values(), ids=ALL)


@torch.no_grad()
def changed_after(model, t):
    """Largest change of logits up to t when all tokens after t change, PADs too."""
    tokens = words(model.seeds, pads=False)
    other = tokens.clone()
    other[:, :, t + 1 :] = words(model.seeds, pads=False, seed=1)[:, :, t + 1 :]
    other[:, :2, t + 1] = 2
    other[:, :, t + 1 :][other[:, :, t + 1 :] == tokens[:, :, t + 1 :]] = 1
    return (model(tokens) - model(other))[:, :, : t + 1].abs().max().item()


@causal
@pytest.mark.parametrize("t", [0, 4, MAX_LENGTH - 1])
def test_later_tokens_change_nothing(config, t):
    assert changed_after(build(config), t) == 0


def test_the_official_linear_model_reads_the_future():
    assert changed_after(build(OFFICIAL_LINEAR), 4) > 1e-3


@causal
def test_earlier_tokens_change_something(config):
    model = build(config)
    tokens = words(2, pads=False)
    other = tokens.clone()
    other[:, :, 3] = 7 - other[:, :, 3]
    with torch.no_grad():
        change = (model(tokens) - model(other))[:, :, 5:].abs().amax((1, 2, 3))
    assert change.min() > 1e-5


@causal
@pytest.mark.parametrize("pads", [True, False])
def test_token_by_token_is_the_whole(config, pads):
    model = build(config)
    tokens = words(2, pads=pads)
    if pads:  # a model may write on after a PAD
        tokens[:, -1, -1] = 3
    with torch.no_grad():
        whole = model(tokens)
        cache = model.new_cache()
        pieces = [model(tokens[:, :, :3], cache=cache), model(tokens[:, :, 3:5], cache=cache)]
        pieces += [model(tokens[:, :, t : t + 1], cache=cache) for t in range(5, tokens.shape[2])]
    torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=1e-5, atol=1e-5)


@causal
def test_decoding_reads_the_last_position(config):
    model = build(config)
    tokens = words(2, T=6, pads=False)
    cache = model.new_cache()
    with torch.no_grad():
        expected = model(tokens)[:, :, -1]
        assert torch.equal(model.next_logits(tokens), expected)
        model.next_logits(tokens[:, :, :4], cache=cache)
        torch.testing.assert_close(
            model.next_logits(tokens[:, :, 4:], cache=cache), expected, rtol=1e-5, atol=1e-5
        )


@every
def test_seeds_of_a_stack_share_nothing(config):
    settings = {"classes": CLASSES, "max_length": MAX_LENGTH}
    both = build_rule_model(config, seeds=[3, 5], **settings)
    singles = [build_rule_model(config, seeds=[seed], **settings) for seed in (3, 5)]
    for name, parameter in both.named_parameters():
        for s, single in enumerate(singles):
            assert torch.equal(single.get_parameter(name)[0], parameter[s]), name
    tokens = words(2)
    logits = both(tokens)
    logits.square().mean((1, 2, 3)).sum().backward()
    for s, single in enumerate(singles):
        alone = single(tokens[s : s + 1])
        torch.testing.assert_close(alone[0], logits[s], rtol=1e-5, atol=1e-6)
        alone.square().mean().backward()
        for name, parameter in single.named_parameters():
            torch.testing.assert_close(
                parameter.grad[0], both.get_parameter(name).grad[s], rtol=1e-4, atol=1e-6, msg=name
            )


@every
def test_seeds_differ_and_repeat(config):
    settings = {"classes": CLASSES, "max_length": MAX_LENGTH}
    first = build_rule_model(config, seeds=[1, 2], **settings)
    again = build_rule_model(config, seeds=[1, 2], **settings)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    logits = first(words(1).expand(2, -1, -1))
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@every
def test_every_parameter_learns(config):
    model = build(config).train()
    model(words(2)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.flatten(1).abs().amax(1).min() > 0, name


@every
def test_seeds_leave_in_place(config):
    model = build(config, seeds=(3, 5, 8))
    tokens = words(3)
    before = list(model.parameters())
    model(tokens).square().sum().backward()
    whole = model(tokens).detach()
    gradients = [parameter.grad.clone() for parameter in before]
    model.keep([2, 0])
    assert (model.seeds, model.seed_numbers) == (2, (8, 3))
    after = list(model.parameters())
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert all(torch.equal(p.grad, g[[2, 0]]) for p, g in zip(after, gradients, strict=True))
    left = model(tokens[[2, 0]])
    torch.testing.assert_close(left, whole[[2, 0]], rtol=1e-5, atol=1e-6)
    left.sum().backward()  # gradients of the new size are added to those that were kept
    with pytest.raises(ValueError, match=r"keep \[2\] of 2 seeds"):
        model.keep([2])
    with pytest.raises(ValueError, match="keep"):
        model.keep([])


@pytest.mark.parametrize("config", DROPPING.values(), ids=DROPPING)
def test_dropout_is_for_training(config):
    tokens = words(2)
    model = build(dataclasses.replace(config, dropout=0.5))
    assert torch.equal(model(tokens), model(tokens))
    torch.testing.assert_close(model(tokens), build(config)(tokens), rtol=0, atol=0)
    model.train()
    state = torch.get_rng_state()
    first, second = model(tokens), model(tokens)
    assert not torch.equal(first, second)
    assert (first[0] - model.eval()(tokens)[0]).abs().max() > 1e-3
    torch.set_rng_state(state)  # as a run that is resumed does
    model.train()
    assert torch.equal(model(tokens), first)
    assert torch.equal(model(tokens), second)


@every
def test_a_model_says_what_it_is(config):
    model = build(config)
    description = model.describe()
    assert description.parameters == sum(p.numel() for p in model.parameters()) // 2
    assert description.name in description.text
    one = build(config, seeds=(3,)).describe()
    assert one == description


@every
def test_tokens_of_another_shape_are_refused(config):
    model = build(config)
    for tokens in (words(3), words(2)[0], words(2)[:, :, :0]):
        with pytest.raises(ValueError, match=r"\(2, B, T\)"):
            model(tokens)
    wrong = words(2)
    wrong[0, 0, 1] = CLASSES  # must not read the next seed's table
    with pytest.raises(IndexError):
        model(wrong)


@every
def test_a_model_can_be_copied(config):
    model = build(config)
    assert torch.equal(copy.deepcopy(model)(words(2)), model(words(2)))


def test_models_are_known_by_name():
    assert list(MODELS) == ["transformer", "lstm", "linear"]
    assert MODELS["transformer"] is TransformerConfig
    with pytest.raises(TypeError, match="config is a dict; TransformerConfig, LSTMConfig"):
        build_rule_model({}, classes=5, max_length=4, seeds=[0])
    with pytest.raises(ValueError, match="0 seeds"):
        build_rule_model(LSTMConfig(), classes=5, max_length=4, seeds=[])


@pytest.mark.parametrize(
    ("config", "parameters"), [(TransformerConfig(), 154_063), (LSTMConfig(), 152_951)]
)
def test_the_published_sizes(config, parameters):
    # Transformer: 5 * 10 + 7 * (440 + 11264 + 10250 + 40) + 55; LSTM: 50 + 19456 + 4 * 33280 + 325
    model = build_rule_model(config, classes=5, max_length=256, seeds=[0])
    assert model.describe().parameters == parameters
