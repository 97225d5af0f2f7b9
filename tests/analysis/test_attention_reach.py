"""Where attention looks: every share against sums by hand, and hooks that leave no trace."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from pyseq.analysis import attention_reach as module
from pyseq.analysis.attention_reach import attention_reach
from pyseq.data.binning import Binning
from pyseq.nn import CosineAttention
from pyseq.nn.self_attention import SelfAttention
from tests.analysis.small_models import small_predictor, write


@pytest.fixture
def stream(tmp_path):
    with write(tmp_path / "s.u16", np.random.default_rng(0).integers(0, 50, 400)) as stream:
        yield stream


def undecided(predictor):
    """The same with no difference between any two keys."""
    for layer in predictor.model.modules():
        if isinstance(layer, SelfAttention):
            torch.nn.init.zeros_(layer.query_key_value.weight)
    return predictor


def check_sums(reach):
    for layer in reach.layers:
        assert math.isclose(sum(layer.even) + layer.even_memory, 1, rel_tol=1e-9)
        assert [band[0] for band in layer.bands] == [0] + [2**k for k in range(len(layer.even) - 1)]
        for head in layer.heads:
            assert len(head.shares) == len(layer.bands)
            assert math.isclose(sum(head.shares) + head.memory, 1, rel_tol=1e-6)
            assert 0 <= head.relative_entropy <= 1


def test_even_weights_in_a_baseline(stream):
    """Query t of 6 gives 1 / (t + 1) to each distance 0..t."""
    predictor = undecided(small_predictor("baseline", Binning(50)))
    reach = attention_reach(predictor, stream, 100, 300, seq_len=6)
    assert (reach.windows, reach.length, reach.weightless) == (64, 6, ())
    assert [layer.name for layer in reach.layers] == ["block 1: cosine", "block 2: cosine"]
    at = [sum(1 / (t + 1) for t in range(d, 6)) / 6 for d in range(6)]  # share at each distance
    expected = (at[0], at[1], at[2] + at[3], at[4] + at[5])
    for layer in reach.layers:
        assert layer.unit == "symbols"
        assert layer.bands == ((0, 0), (1, 1), (2, 3), (4, 5))
        assert layer.even == pytest.approx(expected)
        assert layer.even_memory == 0
        assert len(layer.heads) == 4
        for head in layer.heads:
            assert head.shares == pytest.approx(expected, abs=1e-6)
            assert head.memory == 0
            assert head.mean_distance == pytest.approx(sum(d * at[d] for d in range(6)), abs=1e-5)
            assert head.entropy == pytest.approx(math.log2(math.factorial(6)) / 6, abs=1e-5)
            assert head.relative_entropy == pytest.approx(1, abs=1e-5)


def test_a_hard_choice_among_equals_is_the_first_memory_token(stream):
    predictor = undecided(small_predictor("supercharged", Binning(50), nlayers=2))
    reach = attention_reach(predictor, stream, 0, 400, seq_len=40)
    hard, cosine, inside = reach.layers
    assert (hard.name, cosine.name) == ("block 1: hard", "block 2: cosine")
    assert inside.name == "inside the patch 1: cosine"
    assert (inside.unit, inside.even_memory) == ("symbols", 0)
    assert hard.unit == "patches"
    for head in hard.heads:
        assert (head.memory, head.shares, head.mean_distance) == (1, (0, 0, 0, 0), None)
        assert (head.entropy, head.relative_entropy) == (0, 0)
    # 5 patches after 3 memory tokens: patch n sees n + 1 of them and all 3 tokens.
    assert hard.bands == ((0, 0), (1, 1), (2, 3), (4, 4))
    assert cosine.even_memory == pytest.approx(sum(3 / (3 + n + 1) for n in range(5)) / 5)
    assert cosine.even[0] == pytest.approx(sum(1 / (3 + n + 1) for n in range(5)) / 5)
    for head in cosine.heads:
        assert head.shares == pytest.approx(cosine.even, abs=1e-6)
        assert head.memory == pytest.approx(cosine.even_memory, abs=1e-6)


def by_hand(layer, inputs, memory, groups):
    """Every query, every key, one at a time: bands by head, memory, mean distance, bits."""
    H = layer.heads
    queries, bits = 0, np.zeros(H)
    bands: list[dict[int, float]] = [{} for _ in range(H)]
    on_memory, distances = np.zeros(H), np.zeros(H)
    for x in inputs:
        for b, t in product(groups(len(x)), range(memory, x.shape[1])):
            queries += 1
            weights = layer.weights(x)[b, :, t].double().numpy()
            for h, s in product(range(H), range(t + 1)):
                w = weights[h, s]
                bits[h] -= w * math.log2(w) if w > 0 else 0
                if s < memory:
                    on_memory[h] += w
                else:
                    band = (t - s).bit_length()
                    bands[h][band] = bands[h].get(band, 0.0) + w
                    distances[h] += w * (t - s)
    near = queries - on_memory
    return (
        [[bands[h].get(k, 0.0) / queries for k in range(max(bands[h]) + 1)] for h in range(H)],
        *(on_memory / queries, distances / near, bits / queries),
    )


@pytest.mark.parametrize("at_once", [1 << 24, 30])
@pytest.mark.parametrize(
    "options", [{"hard_serve": "soft"}, {"hard": False, "memory_read": "gate"}, {"memory": 0}]
)
def test_every_layer_of_a_supercharged_model(stream, monkeypatch, options, at_once):
    monkeypatch.setattr(module, "_WEIGHTS_AT_ONCE", at_once)
    monkeypatch.setattr(module, "MOST_WINDOWS", 2)
    predictor = small_predictor("supercharged", Binning(50), **options)
    for layer in predictor.model.modules():
        if isinstance(layer, SelfAttention):  # untrained attention hardly tells keys apart
            layer.query_key_value.weight.data *= 20
    reach = attention_reach(predictor, stream, 7, 107, seq_len=30)
    check_sums(reach)
    assert (reach.windows, reach.length) == (2, 30)

    layers = [m for m in predictor.model.modules() if isinstance(m, SelfAttention)]
    seen: dict[SelfAttention, list[torch.Tensor]] = {layer: [] for layer in layers}
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, args: seen[layer].append(args[0]))
    for offset in (7, 77):
        predictor.distribution(stream[offset : offset + 30][None])
    assert len(layers) == len(reach.layers) == 4
    for layer, found in zip(layers, reach.layers, strict=True):
        inside = found.name.startswith("inside")
        prefix = options.get("memory", 3) if options.get("memory_read") != "gate" else 0
        with torch.inference_mode():
            shares, memory, distance, bits = by_hand(
                layer,
                seen[layer],
                0 if inside else prefix,
                # 30 symbols in patches of 8: the first and the last of 4 hold empty places.
                (lambda count: range(1, count - 1)) if inside else range,
            )
        for h, head in enumerate(found.heads):
            assert head.shares[: len(shares[h])] == pytest.approx(shares[h], abs=1e-6)
            assert sum(head.shares[len(shares[h]) :]) == 0
            assert head.memory == pytest.approx(memory[h], abs=1e-6)
            assert head.mean_distance == pytest.approx(distance[h], abs=1e-4)
            assert head.entropy == pytest.approx(bits[h], abs=1e-4)


def test_names_and_layers_without_weights(stream):
    predictor = small_predictor(
        "supercharged",
        Binning(50),
        nlayers=4,
        local_layers=2,
        smoothing=True,
        hard_serve="adaptive",
    )
    reach = attention_reach(predictor, stream, 0, 200, seq_len=64)
    assert [layer.name for layer in reach.layers] == [
        "block 1: hard, served adaptive",
        "block 2: cosine",
        "block 3: hard, served adaptive",
        "block 4: cosine",
        "inside the patch 1: cosine",
        "inside the patch 2: cosine",
    ]
    assert reach.weightless == (
        "after block 3: Fourier mixing",
        "after block 4: exponential smoothing",
    )


@pytest.mark.parametrize(
    ("symbols", "names"),
    [
        (1, []),
        (7, []),
        (8, ["block 1: hard", "block 2: cosine", "block 3: hard"]),
        (16, ["block 1: hard", "block 2: cosine", "block 3: hard", "inside the patch 1: cosine"]),
    ],
)
def test_windows_too_short_for_some_layers(stream, symbols, names):
    predictor = small_predictor("supercharged", Binning(50))
    reach = attention_reach(predictor, stream, 10, 10 + symbols, seq_len=64)
    assert [layer.name for layer in reach.layers] == names
    assert (reach.windows, reach.length) == (1, symbols)
    check_sums(reach)


def test_one_symbol_is_a_query_without_a_choice(stream):
    reach = attention_reach(small_predictor("baseline", Binning(50)), stream, 0, 1, seq_len=9)
    for head in (head for layer in reach.layers for head in layer.heads):
        assert head.shares == pytest.approx((1.0,))
        assert (head.mean_distance, head.relative_entropy) == (0, 0)


def test_long_windows_are_few(stream, monkeypatch):
    monkeypatch.setattr(module, "MOST_SYMBOLS", 100)
    predictor = small_predictor("baseline", Binning(50))
    assert attention_reach(predictor, stream, 0, 400, seq_len=30).windows == 3
    assert attention_reach(predictor, stream, 0, 400, seq_len=200).windows == 1


def test_a_window_of_attention_is_seen_as_one(stream):
    predictor = undecided(small_predictor("baseline", Binning(50)))
    layer = predictor.model.blocks[0].attention
    layer.window = 2
    first, second = attention_reach(predictor, stream, 0, 64, seq_len=8).layers
    assert first.even == pytest.approx(((1 + 7 / 2) / 8, (7 / 2) / 8, 0, 0))
    assert first.heads[0].shares == pytest.approx(first.even, abs=1e-6)
    assert second.even[2] > 0


def test_hooks_are_removed_whatever_happens(stream):
    predictor = small_predictor("baseline", Binning(50))
    layers = [m for m in predictor.model.modules() if isinstance(m, CosineAttention)]
    attention_reach(predictor, stream, 0, 64, seq_len=8)
    assert all(not layer._forward_pre_hooks for layer in layers)
    predictor.distribution = lambda window: 1 / 0
    with pytest.raises(ZeroDivisionError):
        attention_reach(predictor, stream, 0, 64, seq_len=8)
    assert all(not layer._forward_pre_hooks for layer in layers)


def test_an_empty_range(stream):
    with pytest.raises(ValueError, match=r"range \[5, 5\) holds no symbols"):
        attention_reach(small_predictor("baseline", Binning(50)), stream, 5, 5, seq_len=8)
