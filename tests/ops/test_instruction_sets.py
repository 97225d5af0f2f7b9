"""Every path of the CPU's kernels: the rule of each op under each instruction set that runs here.

The other tests run the one that PyTorch's users get; here a grid around the kernels' blocks of 8 to
32 keys and 6 to 64 queries runs under all, forced by PYSEQ_ISA.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from pyseq.ops import (
    adaptive_attention,
    backends,
    cosine_attention,
    cosine_decode,
    exponential_smoothing,
    feed_forward,
    hard_attention,
    lstm,
    patch_embed,
    prepare_keys,
    scale_cross_entropy,
    softmax_attention,
)
from tests.correctness import check_correct, check_options, random, served
from tests.ops import (
    test_adaptive_attention,
    test_cosine_attention,
    test_cosine_decode,
    test_exponential_smoothing,
    test_feed_forward,
    test_hard_attention,
    test_lstm,
    test_patch_embed,
    test_prepare_keys,
    test_scale_cross_entropy,
    test_softmax_attention,
)
from tests.ops.attention_inputs import angles, attention_inputs, scales

ISAS = backends.core().isas() if backends.refuse_native() is None else []
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    monkeypatch.setenv("PYSEQ_ISA", request.param)
    assert backends.core().isa() == request.param
    return request.param


def cosine_inputs(H=4, G=2, **sizes):
    return attention_inputs(H=H, G=G, **sizes) | {"scale": scales(H)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "S", "D", "options"),
    [
        (1, 1, 8, {}),
        (70, 300, 20, {"causal": True}),
        (97, 33, 64, {"causal": True, "window": 20, "prefix": 5}),
        (13, 257, 80, {"window": 40}),
        (65, 63, 256, {"norm": "rms"}),
    ],
)
def test_cosine(T, S, D, options, dtype, isa):
    tensors = cosine_inputs(T=T, S=S, D=D)
    if options.get("norm") == "rms":
        tensors["scale"] = tensors["scale"] / D
    test_cosine_attention.check(tensors, dtype, "native", **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_without_a_bound(dtype, isa):
    """A rotation might also scale, so that the maximum runs; two planes hold what was rotated."""
    tensors = cosine_inputs(T=50, S=270, D=32) | {"key_weight": random(32, seed=6).abs() + 0.5}
    tensors["scale"] = 5 * tensors["scale"]
    options = {"rope": angles(270, 32), "causal": True}
    test_cosine_attention.check(tensors, dtype, "native", **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "S", "D", "causal"), [(1, 1, 8, True), (70, 300, 20, True), (97, 33, 80, False)]
)
def test_hard(T, S, D, causal, dtype, isa):
    tensors = attention_inputs(H=4, G=2, T=T, S=S, D=D)
    test_hard_attention.check(tensors, dtype, "native", causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "S", "D", "causal"), [(1, 1, 8, True), (70, 300, 20, True), (97, 33, 80, False)]
)
def test_adaptive(T, S, D, causal, dtype, isa):
    tensors = attention_inputs(H=4, G=2, T=T, S=S, D=D)
    test_adaptive_attention.check(tensors, dtype, "native", causal=causal)


def test_hard_scores_that_are_infinite_or_nan(isa):
    x = attention_inputs(H=1, T=6, S=40, D=8)
    query, key, value = (y.float() for y in x.values())
    key[0, 0, 30] = torch.inf
    key[0, 0, 3, 0] = torch.nan
    query[0, 0, 4] = torch.nan
    query[0, 0, 5] = 0
    results = [
        hard_attention(query, key, value, return_index=True, backend=backend)
        for backend in ("native", "reference")
    ]
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours.nan_to_num(), expected.nan_to_num())
        assert torch.equal(ours.isnan(), expected.isnan())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "S", "D", "options"),
    [
        (1, 300, 64, {}),
        (4, 70, 20, {"window": 9, "prefix": 3}),
        (16, 700, 96, {}),
    ],
)
@pytest.mark.parametrize("bound", [None, 12.0])
def test_decode(T, S, D, options, bound, dtype, isa):
    tensors = test_cosine_decode.inputs(B=2, H=4, G=2, T=T, S=S, D=D)
    options = options | {"lengths": torch.tensor([S, S // 2])}
    op = partial(cosine_decode, scale_bound=bound)
    test_cosine_decode.check(tensors, dtype, "native", op=op, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["l2", "layer"])
def test_prepare(norm, dtype, isa):
    tensors = {"key": random(2, 2, 33, 20, seed=2), "key_weight": random(20, seed=6)}
    check_options(
        prepare_keys,
        test_prepare_keys.oracle,
        test_prepare_keys.specification,
        tensors,
        dtype,
        "native",
        norm=norm,
        rope=angles(40, 20),
        position=5,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "C", "P", "options"),
    [
        (8, 5, 8, {}),
        (101, 70, 16, {}),
        (100, 33, 16, {"stride": 5, "pad_end": True}),
        (300, 130, 40, {"center": 0.5, "spread": 2.0}),
    ],
)
def test_patches(T, C, P, options, dtype, isa):
    tensors = test_patch_embed.inputs(B=3, T=T, C=C, P=P)
    test_patch_embed.check(tensors, dtype, "native", **options)


@pytest.mark.parametrize("weight", DTYPES)
def test_every_symbol_is_exact(weight, isa):
    every = torch.arange(65536).to(torch.uint16)[None]
    one = torch.ones(40, 1, dtype=weight)
    out = patch_embed(every, one, center=32768.0, backend="native")
    expected = (torch.arange(65536) - 32768).to(weight)
    assert torch.equal(out, expected[None, :, None].expand_as(out))


# Parts of 1024 patches, at most 64 of them; groups of 512 features.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "C", "P", "stride"), [(5000, 530, 7, 5), (30000, 3, 2, 1), (1900, 40, 1100, 1)]
)
def test_gradients_of_many_patches(T, C, P, stride, dtype, isa):
    """An oracle of loops would take minutes."""
    tensors = test_patch_embed.inputs(B=3, T=T, C=C, P=P)
    options = {"stride": stride, "pad_end": True, "center": 0.3, "spread": 1.7}
    check_correct(
        partial(served(patch_embed, "native"), **options),
        partial(test_patch_embed.specification, **options),
        partial(test_patch_embed.specification, **options),
        tensors,
        dtype,
    )


# Tiles are of 64 to 512 features of heads and rows side by side, blocks of 16 steps.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strides", ["contiguous", "heads_first", "time_last", "every_other"])
@pytest.mark.parametrize(("T", "H", "D"), [(1, 1, 1), (15, 3, 1), (33, 2, 64), (17, 9, 57)])
def test_smoothing(T, H, D, strides, dtype, isa):
    tensors = test_exponential_smoothing.inputs(B=2, T=T, H=H, D=D)
    tensors["values"] = test_exponential_smoothing.STRIDES_OF_TIME[strides](tensors["values"])
    test_exponential_smoothing.check(tensors, dtype, "native")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "V", "C", "options"),
    [
        (1, 2, 1, {}),
        (33, 40, 8, {"scales": (1, 4, 16, 100)}),
        (70, 300, 131, {"scales": (1, 7, 100), "ignore_index": 5}),
        (200, 257, 300, {"scales": (1, 256), "reduction": "none"}),
    ],
)
def test_loss(N, V, C, options, dtype, isa):
    tensors = test_scale_cross_entropy.inputs(N, V, C)
    tensors["weight"] = tensors["weight"] / C**0.5
    targets = test_scale_cross_entropy.draw(V, N)
    test_scale_cross_entropy.check(tensors, dtype, "native", targets=targets, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "S", "D", "dropout"),
    [(1, 1, 2, 0.5), (9, 37, 2, 0.1), (33, 70, 4, 0.0), (7, 150, 20, 0.3)],
)
def test_narrow_heads(T, S, D, dropout, dtype, isa):
    tensors = attention_inputs(B=2, H=4, G=2, T=T, S=S, D=D)
    options = {"causal": True, "lengths": torch.tensor([S, S // 2]), "dropout": dropout, "seed": 3}
    test_softmax_attention.check(tensors, dtype, "native", **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "C", "F", "O", "activation"),
    [(1, 1, 1, 1, "relu"), (50, 10, 33, 10, "gelu"), (13, 33, 70, 5, "relu")],
)
def test_narrow_layers(N, C, F, O, activation, dtype, isa):  # noqa: E741
    tensors = test_feed_forward.inputs(S=2, N=N, C=C, F=F, O=O)
    options = {"activation": activation, "dropout": 0.2, "seed": 3}
    test_feed_forward.check(tensors, dtype, "native", **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "T", "I", "H"), [(1, 1, 1, 1), (25, 5, 3, 33), (7, 9, 40, 17), (50, 6, 16, 64)]
)
def test_recurrent_layers(B, T, I, H, dtype, isa):  # noqa: E741
    test_lstm.check(test_lstm.inputs(S=2, B=B, T=T, I=I, H=H), dtype, "native")


def test_loss_of_many_tokens_and_symbols(isa):
    """More than the kernels pack at the same time of either, and not whole blocks."""
    N, V = 2320, 2070
    tensors = test_scale_cross_entropy.inputs(N, V, 3)
    options = {"targets": test_scale_cross_entropy.draw(V, N), "scales": (1, 300)}
    results = []
    for dtype, backend in [(torch.float32, "native"), (torch.float64, "reference")]:
        leaves = {name: x.to(dtype).requires_grad_() for name, x in tensors.items()}
        loss, per_scale = scale_cross_entropy(**leaves, **options, backend=backend)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        results.append([x.double() for x in (loss, per_scale, *gradients)])
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() <= 1e-6 * exact.abs().max()


def with_gradients(op, *tensors):
    """The output and the gradient of each tensor."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = op(*leaves)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


# Sizes of which every thread gets a share.
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads, isa):
    x = attention_inputs(H=4, G=2, T=130, S=150, D=32)
    heads = [y.float() for y in x.values()]
    gain = random(32, seed=5).float()
    keys = random(1, 4, 2500, 32).float()
    series = [random(3, 12000), random(300, 16), random(300)]
    sequences = [random(2, 530, 4, 257), torch.linspace(0.02, 0.9, 4), random(4, 257)]
    layers = test_feed_forward.inputs(S=2, N=700, C=10, F=64, O=10)
    recurrent = test_lstm.inputs(S=2, B=60, T=20, I=16, H=33)
    losing = test_scale_cross_entropy.inputs(400, 600, 64, dtype=torch.float32)
    targets = test_scale_cross_entropy.draw(600, 400)

    def cosine(query, key, value, scale, query_weight, key_weight):
        gains = {"query_weight": query_weight, "key_weight": key_weight}
        return cosine_attention(
            query, key, value, scale=scale, **gains, causal=True, backend="native"
        )

    def lose(*tensors):
        options = {"targets": targets, "scales": (1, 50), "backend": "native"}
        loss, per_scale = scale_cross_entropy(**dict(zip(losing, tensors, strict=True)), **options)
        return torch.cat([loss[None], per_scale])

    def results():
        yield from with_gradients(lose, *losing.values())
        yield from with_gradients(cosine, *heads, torch.tensor(9.0), gain, gain)
        for op in (hard_attention, adaptive_attention):
            yield from with_gradients(partial(op, causal=True, backend="native"), *heads)
        prepare = partial(prepare_keys, norm="rms", rope=angles(2500, 32), backend="native")
        yield from with_gradients(
            lambda key, key_weight: prepare(key, key_weight=key_weight), keys, gain
        )
        embed = partial(patch_embed, stride=7, pad_end=True, backend="native")
        yield from with_gradients(embed, *(y.float() for y in series))
        smooth = partial(exponential_smoothing, backend="native")
        yield from with_gradients(smooth, *(y.float() for y in sequences))
        dropping = {"dropout": 0.2, "seed": 3, "backend": "native"}
        yield from with_gradients(partial(softmax_attention, causal=True, **dropping), *heads)
        transform = partial(feed_forward, **dropping)
        yield from with_gradients(transform, *(y.float() for y in layers.values()))
        run = partial(test_lstm.joined, op=partial(lstm, backend="native"))
        yield from with_gradients(run, *(y.float() for y in recurrent.values()))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        expected = list(results())
        torch.set_num_threads(threads)
        assert all(map(torch.equal, results(), expected))
    finally:
        torch.set_num_threads(before)


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("PYSEQ_ISA", "sse9")
    x = torch.zeros(1, 1, 2, 4)
    for backend in ("auto", "native"):
        with pytest.raises(ValueError, match="PYSEQ_ISA is 'sse9'; this machine runs portable"):
            cosine_attention(x, x, x, scale=1.0, backend=backend)


def test_every_path_was_tested_where_it_can_be():
    """A build that lost a path would otherwise pass."""
    cpus = Path("/proc/cpuinfo")
    flags = cpus.read_text().split() if cpus.exists() else []
    assert ISAS[0] == "portable"
    for name, flag in {"avx2": "avx2", "avx512": "avx512bw", "avx512_bf16": "avx512_bf16"}.items():
        assert (name in ISAS) == (flag in flags)


@pytest.mark.parametrize("name", ISAS)
def test_chosen_from_the_start(name):
    code = "from pyseq.ops import backends; print(backends.core().isa())"
    environment = os.environ | {"PYSEQ_ISA": name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == name
