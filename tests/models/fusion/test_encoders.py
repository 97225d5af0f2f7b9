"""Each encoder: what it may depend on and what it must, and what it refuses."""

import pytest
import torch

from pyseq.errors import UserError
from pyseq.models.fusion import FusionConfig, ModalityShape
from pyseq.models.fusion.encoders import (
    ENCODERS,
    GraphEncoder,
    SequenceEncoder,
    TokenEncoder,
    VectorEncoder,
    normalised_adjacency,
)
from tests.correctness import random
from tests.models.fusion.fusion_cases import SMALL

CONFIG = FusionConfig(**SMALL)


def encoder(kind, **sizes):
    torch.manual_seed(0)
    return ENCODERS[kind](ModalityShape("x", kind, **sizes), CONFIG).eval().double()


def graphs():
    """Three graphs of 5, 3 and 1 nodes, directed, with weights of both signs."""
    nodes = torch.tensor([5, 3, 1])
    real = torch.arange(5) < nodes[:, None]
    values = random(3, 5, 4).masked_fill(~real[..., None], 0)
    adjacency = random(3, 5, 5, seed=1).masked_fill(~(real[:, :, None] & real[:, None]), 0)
    return values, adjacency, nodes


@torch.no_grad()
def test_a_vector_is_one_token_of_all_its_features():
    encode, values = encoder("vector", features=5), random(3, 5)
    out = encode(values)
    assert out.shape == (3, 1, 16)
    for f in range(5):
        changed = values.clone()
        changed[:, f] += 1
        assert (encode(changed) - out).abs().amax((1, 2)).min() > 1e-3
    torch.testing.assert_close(encode(values[1:]), out[1:])  # objects apart


@torch.no_grad()
def test_a_sequence_is_a_token_per_patch():
    encode, values = encoder("sequence", features=2, length=7), random(3, 7, 2)
    out = encode(values)
    assert out.shape == (3, 3, 16)
    filled = torch.cat((values, values[:, -1:], values[:, -1:]), 1)  # 9 steps: three patches of 3
    weight, bias = encode.patches.projection.weight, encode.patches.projection.bias
    patches = filled.unflatten(1, (3, 3)).flatten(2) @ weight.T + bias
    torch.testing.assert_close(out, encode.blocks(patches), rtol=1e-6, atol=1e-6)
    for t in range(7):
        for f in range(2):
            changed = values.clone()
            changed[:, t, f] += 1
            assert (encode(changed) - out).abs().amax((1, 2)).min() > 1e-3


@torch.no_grad()
def test_positions_tell_orders_apart():
    sequence, words = encoder("sequence", features=1, length=6), torch.tensor([[3, 1, 2, 1]])
    values = random(3, 6, 1)
    turned = values.roll(3, 1)  # the two patches swapped
    assert (sequence(values) - sequence(turned).flip(1)).abs().amax((1, 2)).min() > 1e-3
    tokens = encoder("tokens", length=4, vocabulary=5)
    assert tokens(words).shape == (1, 4, 16)
    assert (tokens(words) - tokens(words.flip(1)).flip(1)).abs().max() > 1e-3


@torch.no_grad()
def test_tokens_read_each_other():
    tokens, words = encoder("tokens", length=4, vocabulary=5), torch.tensor([[3, 1, 2, 1]])
    changed = words.clone()
    changed[0, 3] = 4
    assert (tokens(words) - tokens(changed))[0, 0].abs().max() > 1e-3
    with pytest.raises(IndexError):
        tokens(words + 2)


@torch.no_grad()
def test_the_order_of_nodes_does_not_matter():
    encode, (values, adjacency, nodes) = encoder("graph", features=4), graphs()
    out = encode(values, adjacency, nodes)
    assert out.shape == (3, 1, 16)
    order = torch.tensor([3, 0, 4, 2, 1])  # of the graph of 5 nodes
    turned = encode(values[:1, order], adjacency[:1, order][:, :, order], nodes[:1])
    torch.testing.assert_close(turned, out[:1], rtol=1e-10, atol=1e-10)
    half = encode(values[:1, order], adjacency[:1], nodes[:1])  # edges left where they were
    assert (half - out[:1]).abs().max() > 1e-3


@pytest.mark.parametrize("filling", [0.0, 7.0, float("nan")])
def test_places_without_a_node_do_not_matter(filling):
    encode, (values, adjacency, nodes) = encoder("graph", features=4), graphs()
    out = encode(values, adjacency, nodes)
    wide = torch.full((3, 8, 4), filling, dtype=torch.float64)
    edges = torch.full((3, 8, 8), filling, dtype=torch.float64)
    for b, V in enumerate(nodes.tolist()):
        wide[b, :V], edges[b, :V, :V] = values[b, :V], adjacency[b, :V, :V]
    padded = encode(wide, edges, nodes)
    torch.testing.assert_close(padded, out, rtol=1e-10, atol=1e-10)
    padded.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encode.parameters())


@torch.no_grad()
def test_edges_features_and_size_matter():
    encode, (values, adjacency, nodes) = encoder("graph", features=4), graphs()
    out = encode(values, adjacency, nodes)
    assert (encode(values, adjacency * 2, nodes) - out)[:2].abs().amax((1, 2)).min() > 1e-4
    assert (encode(values * 2, adjacency, nodes) - out).abs().amax((1, 2)).min() > 1e-3
    # equal nodes without edges: only their number tells two graphs apart
    values, adjacency = torch.ones(2, 5, 4).double(), torch.zeros(2, 5, 5).double()
    few, many = encode(values, adjacency, torch.tensor([2, 5]))
    assert (few - many).abs().max() > 1e-3


@torch.no_grad()
def test_the_normalisation_is_its_formula():
    _, adjacency, nodes = graphs()
    real = torch.arange(5) < nodes[:, None]
    found = normalised_adjacency(adjacency, real)  # without a place that holds no node
    for b, V in enumerate(nodes.tolist()):
        looped = adjacency[b, :V, :V] + torch.eye(V)
        for i in range(V):
            for j in range(V):
                degrees = looped[i].abs().sum() * looped[:, j].abs().sum()
                assert found[b, i, j].item() == pytest.approx((looped[i, j] / degrees**0.5).item())
    assert found[2].count_nonzero() == 1


@torch.no_grad()
def test_degenerate_graphs_are_finite():
    encode = encoder("graph", features=4)
    values, adjacency = random(2, 3, 4), -torch.eye(3).double().expand(2, 3, 3)
    out = encode(values, adjacency, torch.tensor([3, 0]))  # loops that cancel; no node at all
    assert out.isfinite().all()


def test_a_sequence_of_one_token_is_refused():
    with pytest.raises(UserError, match="modality x has 3 steps, one patch of 3"):
        encoder("sequence", features=1, length=3)
    with pytest.raises(UserError, match="modality x has one token"):
        encoder("tokens", length=1, vocabulary=4)


def test_encoders_are_known_by_kind():
    expected = {
        "vector": VectorEncoder,
        "sequence": SequenceEncoder,
        "tokens": TokenEncoder,
        "graph": GraphEncoder,
    }
    assert expected == ENCODERS
