"""The Transformer beside torch's own with the same weights, and its options beside formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyseq.models.rules import TransformerConfig, attention, build_rule_model, transformer
from pyseq.models.rules.attention import biased_attention
from pyseq.models.rules.transformer import sinusoids
from pyseq.ops import softmax_attention
from tests.models.rules.rule_model_cases import build, words


def torch_encoder(model, s):
    """nn.TransformerEncoder with the weights of seed s."""
    c = model.config
    layer = nn.TransformerEncoderLayer(
        c.width, c.heads, c.feed_forward, c.dropout, c.activation, c.norm_eps,
        batch_first=True, norm_first=c.norm == "pre",
    )  # fmt: skip
    norm = nn.LayerNorm(c.width, c.norm_eps) if c.norm == "pre" else None
    encoder = nn.TransformerEncoder(layer, c.layers, norm, enable_nested_tensor=False)
    names = {
        "attention.query_key_value.weight": "self_attn.in_proj_weight",
        "attention.query_key_value.bias": "self_attn.in_proj_bias",
        "attention.out": "self_attn.out_proj",
        "wide": "linear1",
        "narrow": "linear2",
        "norm_1": "norm1",
        "norm_2": "norm2",
        "blocks": "layers",
    }
    weights = {}
    for name, parameter in model.named_parameters():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = parameter.detach()[s]
    table, W, b = (weights.pop(n) for n in ("embedding.weight", "out.weight", "out.bias"))
    encoder.load_state_dict(weights)
    return encoder.eval(), table, W, b


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("pads", [True, False])
def test_the_transformer_is_torchs(norm, pads):
    config = TransformerConfig(layers=3, feed_forward=64, norm=norm, dropout=0.1)
    model = build(config)
    tokens = words(2, pads=pads)
    T = tokens.shape[2]
    logits = model(tokens)
    for s in range(2):
        encoder, table, W, b = torch_encoder(model, s)
        x = table[tokens[s]] * math.sqrt(10)
        mask = nn.Transformer.generate_square_subsequent_mask(T)
        padding = torch.zeros(tokens[s].shape).masked_fill(tokens[s] == 2, -torch.inf)
        expected = encoder(x, mask=mask, src_key_padding_mask=padding, is_causal=True) @ W.T + b
        torch.testing.assert_close(logits[s], expected, rtol=1e-5, atol=1e-5)


def test_the_transformer_learns_as_torchs():
    model = build(TransformerConfig(layers=2, feed_forward=64, dropout=0.0))
    tokens = words(2)
    encoder, table, W, b = torch_encoder(model, 1)
    mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[2])
    padding = torch.zeros(tokens[1].shape).masked_fill(tokens[1] == 2, -torch.inf)
    x = table[tokens[1]] * math.sqrt(10)
    expected = encoder(x, mask=mask, src_key_padding_mask=padding, is_causal=True) @ W.T + b
    F.cross_entropy(expected.flatten(0, 1), tokens[1].flatten()).backward()
    F.cross_entropy(model(tokens)[1].flatten(0, 1), tokens[1].flatten()).backward()
    for i, layer in enumerate(encoder.layers):
        ours = model.blocks[i]
        pairs = (
            (ours.attention.query_key_value.weight, layer.self_attn.in_proj_weight),
            (ours.attention.out.bias, layer.self_attn.out_proj.bias),
            (ours.wide.weight, layer.linear1.weight),
            (ours.narrow.weight, layer.linear2.weight),
            (ours.norm_1.weight, layer.norm1.weight),
        )
        for mine, theirs in pairs:
            torch.testing.assert_close(mine.grad[1], theirs.grad, rtol=1e-4, atol=1e-6)
            assert mine.grad[0].abs().max() == 0  # seed 0 had no part in the loss


def test_torchs_initial_values():
    model = build_rule_model(TransformerConfig(), classes=5, max_length=8, seeds=range(4))
    first = model.blocks[0]
    for i in range(1, 7):  # nn.TransformerEncoder copies one layer
        for name, parameter in model.blocks[i].named_parameters():
            assert torch.equal(parameter, first.get_parameter(name)), name
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(10, 5, 1024)
    pairs = (
        (first.attention.query_key_value.weight, theirs.self_attn.in_proj_weight),
        (first.attention.query_key_value.bias, theirs.self_attn.in_proj_bias),
        (first.attention.out.weight, theirs.self_attn.out_proj.weight),
        (first.attention.out.bias, theirs.self_attn.out_proj.bias),
        (first.wide.weight, theirs.linear1.weight),
        (first.wide.bias, theirs.linear1.bias),
        (first.narrow.weight, theirs.linear2.weight),
        (first.narrow.bias, theirs.linear2.bias),
        (model.embedding.weight, nn.Embedding(100, 10).weight),
    )
    for ours, other in pairs:
        assert ours.shape[1:] == other.shape or ours is model.embedding.weight
        # uniform, so the largest is close to the bound; 4 seeds, each at least 10 numbers
        if ours is not model.embedding.weight:
            bound = other.abs().max().item()
            assert 0.75 * bound <= ours.abs().max() <= 1.34 * bound
        assert ours.std().item() == pytest.approx(other.std().item(), rel=0.35, abs=1e-9)


def test_normal_initial_values():
    config = TransformerConfig(init="normal", layers=2)
    model = build_rule_model(config, classes=5, max_length=8, seeds=range(4))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            continue
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
    assert not torch.equal(model.blocks[0].wide.weight, model.blocks[1].wide.weight)


def test_sinusoids_are_the_formula():
    table = sinusoids(20, 10, torch.device("cpu"))
    for p in (0, 1, 19):
        for feature in range(10):
            angle = p / 10000 ** (feature // 2 * 2 / 10)
            value = math.sin(angle) if feature % 2 == 0 else math.cos(angle)
            assert table[p, feature].item() == pytest.approx(value, abs=1e-6)
    assert sinusoids(4, 5, torch.device("cpu")).shape == (4, 5)


@pytest.mark.parametrize("positions", ["sinusoidal", "rope", "relative"])
def test_positions_tell_orders_apart(positions):
    # after 3 4 and after 4 3, a Transformer of one block without positions says the same
    tokens = torch.tensor([[[0, 3, 4, 3], [0, 4, 3, 3]]])
    plain = build(TransformerConfig(layers=1), seeds=(3,))(tokens)
    torch.testing.assert_close(plain[0, 0, -1], plain[0, 1, -1], rtol=1e-5, atol=1e-5)
    placed = build(TransformerConfig(layers=1, positions=positions), seeds=(3,))(tokens)
    assert (placed[0, 0, -1] - placed[0, 1, -1]).abs().max() > 1e-3


def scores(layer, x):
    """Scaled dot products (S, B, H, T, T) of a StackedAttention, one head at a time."""
    joint = torch.einsum("sbtc,soc->sbto", x, layer.query_key_value.weight)
    joint = joint + layer.query_key_value.bias[:, None, None]
    C = x.shape[-1]
    D = C // layer.heads
    query, key = joint[..., :C], joint[..., C : 2 * C]
    heads = [slice(h * D, (h + 1) * D) for h in range(layer.heads)]
    products = [query[..., h] @ key[..., h].mT for h in heads]
    return torch.stack(products, 2) / math.sqrt(D)


@torch.no_grad()
def test_relative_positions_are_added_to_the_logits():
    model = build(TransformerConfig(layers=1, positions="relative", reach=3))
    tokens = words(2, pads=False)
    layer, T = model.blocks[0].attention, tokens.shape[2]
    logits = scores(layer, model.embedding(tokens) * math.sqrt(10))
    for t in range(T):
        for k in range(T):
            seen = layer.bias[:, :, min(t - k, 3)] if k <= t else -torch.inf
            logits[..., t, k] += seen[:, None] if k <= t else seen
    torch.testing.assert_close(model.attention(tokens)[0], logits.softmax(-1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["softmax", "cosine", "hard"])
def test_attention_maps(kind):
    model = build(TransformerConfig(layers=2, feed_forward=16, attention=kind)).train()
    tokens = words(2)
    maps = model.attention(tokens)
    assert model.training
    assert [m.shape for m in maps] == [(2, 4, 5, 12, 12)] * 2
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5, 12))
        assert weights.triu(1).abs().max() == 0
    logits = scores(model.blocks[0].attention, model.embedding(tokens) * math.sqrt(10))
    hidden = torch.ones(12, 12).triu(1).bool()
    if kind == "softmax":
        pad = tokens[:, :, None, None] == 2
        expected = logits.masked_fill(hidden | pad, -torch.inf).softmax(-1)
        torch.testing.assert_close(maps[0], expected, rtol=1e-5, atol=1e-6)
    elif kind == "hard":
        best = logits.masked_fill(hidden, -torch.inf).argmax(-1)
        assert torch.equal(maps[0], F.one_hot(best, 12).float())


def test_dropout_falls_on_the_weights_of_biased_attention_too():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 2, 6, 6, generator=generator)
    bias = torch.randn(2, 2, 6, 6, generator=generator)
    lengths = torch.tensor([6, 3])
    # with identity values the output is the weights: some vanish, the rest grow by 1 / (1 - p)
    units = torch.eye(6).expand(2, 2, 6, 6)
    given = (query, key, units, bias)
    kept = biased_attention(*given, lengths=lengths, dropout=0.0, seed=0)
    dropped = biased_attention(*given, lengths=lengths, dropout=0.5, seed=3)
    gone = (dropped == 0) & (kept > 0)
    assert gone.any()
    torch.testing.assert_close(dropped, torch.where(gone, 0, 2 * kept))
    without = biased_attention(
        *given[:3], torch.zeros_like(bias), lengths=lengths, dropout=0.5, seed=3
    )
    op = softmax_attention(*given[:3], causal=True, lengths=lengths, dropout=0.5, seed=3)
    torch.testing.assert_close(without, op)


@pytest.mark.parametrize("positions", ["none", "relative"])
def test_every_place_of_dropout_drops(positions, monkeypatch):
    config = TransformerConfig(layers=1, dropout=0.5, positions=positions)
    model = build(config).train()
    tokens = words(2)
    seeds = {attention: 1, transformer: 1}
    for module in seeds:
        monkeypatch.setattr(module, "draw_seed", lambda at=module: torch.tensor(seeds[at]))
    on_features = []
    monkeypatch.setattr(F, "dropout", lambda x, *settings: on_features.append(settings) or x)
    logits = model(tokens)
    assert on_features == [(0.5, True)] * 3  # the embedding, and what both halves add
    assert torch.equal(model(tokens), logits)
    for module in seeds:  # attention weights, hidden features
        seeds[module] = 2
        assert not torch.equal(model(tokens), logits)
        seeds[module] = 1
