"""The recurrent models beside torch's own with the same weights, and beside their equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyseq.models.rules import LSTMConfig
from pyseq.ops import cosine_attention
from tests.models.rules.rule_model_cases import build, words


@torch.no_grad()
def test_cosine_heads_have_the_temperature_of_their_seed():
    model = build(LSTMConfig(hidden=8, layers=1, attention="cosine", attention_heads=2))
    model.mixer.temperature.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.5]]))
    tokens = words(2)
    features = model._features(tokens, None)
    start = math.log(10 / 40)
    for s in range(2):
        joint = features[s] @ model.mixer.query_key_value.weight[s].T
        joint = joint + model.mixer.query_key_value.bias[s]
        query, key, value = joint.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        scale = 50 * torch.sigmoid(model.mixer.temperature[s] + start)
        mixed = cosine_attention(query, key, value, scale=scale, causal=True, backend="reference")
        mixed = mixed.transpose(1, 2).flatten(2) @ model.mixer.out.weight[s].T
        expected = features[s] + mixed + model.mixer.out.bias[s]
        expected = expected @ model.out.weight[s].T + model.out.bias[s]
        torch.testing.assert_close(model(tokens)[s], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("residual", [False, True])
def test_recurrent_layers_are_torchs(cell, residual):
    config = LSTMConfig(hidden=8, layers=3, cell=cell, residual=residual)
    model = build(config)
    tokens = words(2)
    logits = model(tokens)
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    for s in range(2):
        x = model.embedding.weight[s][tokens[s]]
        if residual:
            for i, ours in enumerate(model.recurrences):
                theirs = kind(x.shape[-1], 8, 1, batch_first=True)
                theirs.load_state_dict({n: p[s] for n, p in ours.named_parameters()})
                x = theirs(x)[0] + (x if i > 0 else 0)
        else:
            theirs = kind(10, 8, 3, batch_first=True)
            theirs.load_state_dict({n: p[s] for n, p in model.recurrences[0].named_parameters()})
            x = theirs(x)[0]
        expected = x @ model.out.weight[s].T + model.out.bias[s]
        torch.testing.assert_close(logits[s], expected, rtol=1e-5, atol=1e-6)


def lstm_step(x, h, c, layer, s, *, norm):
    """One step of `CellLayer`'s equations for seed s, gate by gate."""

    def normalised(y, which):
        if not norm:
            return y
        own = getattr(layer, which)
        return F.layer_norm(y, y.shape[-1:], own.weight[s], own.bias[s])

    mapped = normalised(x @ layer.weight_ih[s].T, "norm_x")
    mapped = mapped + normalised(h @ layer.weight_hh[s].T, "norm_h") + layer.bias[s]
    H = h.shape[-1]
    i, f, g, o = (mapped[..., k * H : (k + 1) * H] for k in range(4))
    p = torch.zeros(3, H) if layer.peephole is None else layer.peephole[s]
    i, f = torch.sigmoid(i + p[0] * c), torch.sigmoid(f + p[1] * c)
    c = f * c + i * torch.tanh(g)
    o = torch.sigmoid(o + p[2] * c)
    return o * torch.tanh(normalised(c, "norm_c")), c


@torch.no_grad()
@pytest.mark.parametrize(("norm", "peephole"), [(True, False), (False, True), (True, True)])
def test_cells_are_their_equations(norm, peephole):
    config = LSTMConfig(hidden=8, layers=1, layer_norm=norm, peephole=peephole)
    model = build(config)
    tokens = words(2)
    features = model._features(tokens, None)
    for s in range(2):
        x = model.embedding.weight[s][tokens[s]]
        h = c = torch.zeros(4, 8)
        for t in range(x.shape[1]):
            h, c = lstm_step(x[:, t], h, c, model.recurrences[0], s, norm=norm)
            torch.testing.assert_close(features[s, :, t], h, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_cell_without_options_is_torchs():
    # ties the equations above to nn.LSTM: with no norm and peepholes of 0 they are the same
    model = build(LSTMConfig(hidden=8, layers=1, peephole=True))
    layer = model.recurrences[0]
    layer.peephole.zero_()
    theirs = nn.LSTM(10, 8, batch_first=True)
    for s in range(2):
        weights = (layer.weight_ih[s], layer.weight_hh[s], layer.bias[s], torch.zeros(32))
        theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
        x = model.embedding.weight[s][words(2)[s]]
        expected = theirs(x)[0]
        ours = model._features(words(2), None)[s]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
