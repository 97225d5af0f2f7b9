"""pyseq.ops.cosine_attention against loops written from its formulas, on every backend."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyseq.ops import BackendUnavailable
from pyseq.ops.cosine_attention import cosine_attention, parts, reference
from tests.correctness import (
    check_correct,
    nan_filled_memory,
    pairwise,
    sees,
    undocumented_parameters,
)

BACKENDS = ["reference"]
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield


def random(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def angles(positions, D):
    angle = random(positions, D // 2, seed=9)
    return angle.cos(), angle.sin()


# The oracle: one query at a time, one formula per line, nothing shared with pyseq.


def ready(x, norm, eps, weight, rope, position):
    D = x.shape[0]
    if norm == "l2":
        length = torch.sqrt((x * x).sum()) if bool((x != 0).any()) else x.new_zeros(())
        x = x / length if length > eps else x / eps
    if norm == "layer":
        x = x - x.sum() / D
    if norm in ("rms", "layer"):
        x = x / torch.sqrt((x * x).sum() / D + eps)
    if weight is not None:
        x = weight * x
    if rope is not None:
        turned = torch.complex(x[: D // 2], x[D // 2 :]) * torch.complex(
            rope[0][position].double(), rope[1][position].double()
        )
        x = torch.cat([turned.real, turned.imag])
    return x


def oracle(
    query,
    key,
    value,
    scale,
    query_weight=None,
    key_weight=None,
    norm="l2",
    eps=1e-6,
    rope=None,
    causal=False,
    window=None,
    prefix=0,
    lse=False,
):
    (B, H, T, D), (_, G, S, _) = query.shape, key.shape
    rows = []
    for b, g in itertools.product(range(B), range(G)):
        keys = [ready(key[b, g, s], norm, eps, key_weight, rope, s) for s in range(S)]
        keys = torch.stack(keys)
        for h, t in itertools.product(range(g * (H // G), (g + 1) * (H // G)), range(T)):
            seen = [s for s in range(S) if sees(t, s, T, S, causal, window, prefix)]
            if not seen:
                rows.append(query.new_full((), -math.inf) if lse else query.new_zeros(D))
                continue
            q = ready(query[b, h, t], norm, eps, query_weight, rope, t + S - T)
            logits = (scale[h] if scale.dim() else scale) * (keys[seen] @ q)
            shift = float(logits.detach().max())
            mass = torch.exp(logits - shift)
            if lse:
                rows.append(shift + torch.log(mass.sum()))
            else:
                rows.append(mass @ value[b, g, seen] / mass.sum())
    if not rows:
        return query * key.sum() * value.sum() * scale.sum()
    return torch.stack(rows).view(B, H, T, *([] if lse else [D]))


def specification(
    query,
    key,
    value,
    scale,
    query_weight=None,
    key_weight=None,
    norm="l2",
    eps=1e-6,
    rope=None,
    causal=False,
    window=None,
    prefix=0,
):
    cos, sin = rope or (None, None)
    options = reference.Options(norm, eps, causal, window, prefix)
    return reference.attend(query, key, value, scale, query_weight, key_weight, cos, sin, options)[
        0
    ]


def check(tensors, dtype, backend, scale_bound=None, **options):
    check_correct(
        partial(cosine_attention, backend=backend, scale_bound=scale_bound, **options),
        partial(oracle, **options),
        partial(specification, **options),
        tensors,
        dtype,
    )


def inputs(B=1, H=2, G=1, T=5, S=5, D=8):
    return {
        "query": random(B, H, T, D, seed=1),
        "key": random(B, G, S, D, seed=2),
        "value": random(B, G, S, D, seed=3),
        "scale": torch.linspace(2, 12, H, dtype=torch.float32),
    }


# The sizes around a tile of 64 keys or queries, in full; everything else meets pairwise below.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", [1, 63, 64, 65, 131])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 131])
def test_sizes_around_a_tile(T, S, causal, backend):
    check(inputs(T=T, S=S, D=8), torch.float32, backend, causal=causal)


STRIDES = {
    "contiguous": lambda x: x,
    "heads_last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "every_other": lambda x: torch.stack([x, x], -1)[..., 0],
}
PAIRS = pairwise(
    dtype=[torch.float32, torch.bfloat16, torch.float16, torch.float64],
    norm=["l2", "rms", "layer", None],
    heads=[(2, 2), (4, 1), (6, 3)],
    D=[32, 64, 80, 96, 128, 256],
    T=[1, 9, 12],
    S=[1, 9, 12],
    causal=[False, True],
    window=[None, 1, 4],
    prefix=[0, 2],
    rope=[False, True],
    gains=["none", "query", "key", "both"],
    per_head=[False, True],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    T, S, D, (H, G) = case["T"], case["S"], case["D"], case["heads"]
    tensors = {
        name: STRIDES[case["strides"]](x) if x.dim() == 4 else x
        for name, x in inputs(B=2, H=H, G=G, T=T, S=S, D=D).items()
    }
    if not case["per_head"]:
        tensors["scale"] = torch.tensor(3.0)
    if case["norm"] != "l2":
        tensors["scale"] = tensors["scale"] / D
    for side in ("query", "key"):
        if case["gains"] in (side, "both"):
            tensors[f"{side}_weight"] = random(D, seed=5).abs() + 0.5
    options = {name: case[name] for name in ("norm", "causal", "window", "prefix")}
    if case["rope"] and T <= S:
        options["rope"] = angles(S + 3, D)
    check(tensors, case["dtype"], backend, **options)


def test_pairs_meet():
    """The generator that the grid above rests on leaves no pair of choices out."""
    cases = pairwise(a=[1, 2, 3], b="xy", c=[True, False])
    pairs = {(x["a"], x["b"]) for x in cases} | {(x["b"], x["c"]) for x in cases}
    pairs |= {(x["a"], x["c"]) for x in cases}
    assert len(pairs) == 6 + 4 + 6
    assert len(cases) < 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_sum_exp(backend):
    tensors = {name: x.float() for name, x in inputs(H=4, G=2, T=9, S=5).items()}
    options = {"causal": True, "window": 3, "prefix": 0}
    rest = (*[None] * 4, "l2", 1e-6, True, 3, 0, None, backend)
    ours = torch.ops.pyseq.cosine_attention(*tensors.values(), *rest)[1]
    exact = oracle(**{name: x.double() for name, x in tensors.items()}, lse=True, **options)
    assert torch.equal(ours.isneginf(), exact.isneginf())
    assert torch.allclose(ours.double(), exact, rtol=0, atol=1e-5)
    tensors["query"][0, 1, 7, 0] = math.nan
    bad = torch.ops.pyseq.cosine_attention(*tensors.values(), *rest)[1].isnan()
    assert bad.nonzero().tolist() == [[0, 1, 7]]


def test_parts_equal_the_whole(monkeypatch):
    """Small parts over batch, heads and rows; the oracle's cases are one part each."""
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    monkeypatch.setattr(parts, "PART_BYTES", 300)
    for T, S, window in ((10, 10, None), (10, 6, 3), (6, 10, None)):
        tensors = inputs(B=3, H=4, G=2, T=T, S=S) | {"query_weight": random(8, seed=6)}
        check(tensors, torch.float32, "reference", causal=True, window=window)
        check(tensors, torch.float32, "reference", window=window)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0), (2, 4, 0, 0)])
def test_empty(shape, causal, backend):
    B, H, T, S = shape
    tensors = {
        name: x.float().requires_grad_() for name, x in inputs(B=B, H=H, G=2, T=T, S=S).items()
    }
    out = cosine_attention(**tensors, causal=causal, backend=backend)
    assert out.shape == (B, H, T, 8)
    assert not out.any()
    for grad in torch.autograd.grad(out.sum(), list(tensors.values())):
        assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", ["l2", "rms", "layer", None])
def test_zero_vectors(norm, backend):
    tensors = inputs(H=4, G=2, T=6, S=6)
    tensors["query"][:, 1, 2] = 0
    tensors["query"][:, 2:] *= 0.02  # shorter than eps, where the factor is constant
    tensors["key"][:, 0, 3] = 0
    tensors["value"][:, 1, 3] = 0
    check(tensors, torch.float32, backend, norm=norm, eps=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [10.0, 50.0])
def test_anti_aligned_keys(scale, dtype, backend):
    """Every logit is near -scale: an offset chosen for the largest possible one would underflow."""
    tensors = inputs(H=2, G=1, T=3, S=70)
    direction = random(8, seed=7)
    tensors["query"] = direction.expand(1, 2, 3, 8).contiguous()
    tensors["key"] = -direction * (1 + random(1, 1, 70, 1, seed=8).abs())
    tensors["scale"] = torch.tensor(scale)
    check(tensors, dtype, backend, scale_bound=50.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_share_evenly(backend):
    key = random(1, 1, 1, 8).expand(1, 1, 6, 8)
    value = random(1, 1, 6, 8, seed=1)
    out = cosine_attention(random(1, 2, 3, 8), key, value, scale=9.0, backend=backend)
    assert torch.allclose(out, value.mean(2, keepdim=True).expand_as(out), atol=1e-6)


# One row is spoilt; whatever may not see it must be what it was, forward and backward.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["query", "key", "value", "gradient"])
@pytest.mark.parametrize("norm", ["l2", "rms", "layer", None])
def test_bad_rows_stay_alone(spoilt, bad, norm, backend):
    T = S = 12
    window, row = 3, 6
    clean = {name: x.float() for name, x in inputs(B=2, H=4, G=2, T=T, S=S).items()}
    clean |= {"gradient": random(2, 4, T, 8, seed=4).float()}
    dirty = {name: x.clone() for name, x in clean.items()}
    dirty[spoilt][1, 1, row, 5] = bad

    def run(x):
        leaves = {n: x[n].clone().requires_grad_() for n in ("query", "key", "value", "scale")}
        out = cosine_attention(**leaves, norm=norm, causal=True, window=window, backend=backend)
        grads = torch.autograd.grad(out, list(leaves.values()), x["gradient"])
        return [out.detach(), *grads[:3]]

    # Query t sees keys t-2 to t. What the bad row touches, by output, query, key and value:
    of_keys = spoilt in ("key", "value")
    heads, group = (slice(2, 4), 1) if of_keys else (slice(1, 2), 0)
    seen_by = slice(row, row + window) if of_keys else slice(row, row + 1)
    reaches = slice(row - window + 1, row + window) if of_keys else slice(row - window + 1, row + 1)
    touched = [(heads, seen_by), (heads, seen_by), (group, reaches), (group, reaches)]
    for name, before, after, (head, rows) in zip(
        ("output", "query", "key", "value"), run(clean), run(dirty), touched, strict=True
    ):
        untouched = torch.ones_like(before, dtype=torch.bool)
        untouched[1, head, rows] = False
        assert torch.allclose(before[untouched], after[untouched], atol=1e-5), name
        if name == "output" and spoilt != "gradient":
            assert after[~untouched].isnan().all()
        if name != "output" and spoilt == "gradient":
            assert after[~untouched].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_future_value_under_a_loss_on_the_past(backend):
    """The usual shape of trouble: padding holds NaN, causality and the loss leave it out."""
    tensors = {n: x.float() for n, x in inputs(B=1, H=2, G=1, T=8, S=8).items()}
    for name in ("query", "key", "value"):
        tensors[name][:, :, 5:] = math.nan
    leaves = {n: x.requires_grad_() for n, x in tensors.items()}
    out = cosine_attention(**leaves, causal=True, backend=backend)
    grads = torch.autograd.grad(out[:, :, :5].square().sum(), list(leaves.values()))
    assert out[:, :, :5].isfinite().all()
    assert all(g[:, :, :5].isfinite().all() for g in grads[:3])
    assert grads[3].isfinite().all()


@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 2, "prefix": 1}])
@pytest.mark.parametrize("norm", ["l2", "rms", "layer", None])
@pytest.mark.parametrize("scale", [torch.tensor(1.3), torch.tensor([0.7, -1.1, 2.0, 0.4])])
def test_gradcheck(scale, norm, options):
    tensors = inputs(H=4, G=2, T=3, S=4, D=4) | {"scale": scale.double()}
    tensors |= {"query_weight": random(4, seed=5), "key_weight": random(4, seed=6)}
    leaves = [x.requires_grad_() for x in tensors.values()]

    def op(*leaves):
        rope = angles(6, 4)
        named = dict(zip(tensors, leaves, strict=True))
        return cosine_attention(**named, norm=norm, rope=rope, backend="reference", **options)

    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("norm", ["l2", "rms", "layer", None])
@pytest.mark.parametrize("causal", [False, True])
def test_written_gradient_is_autograds(causal, norm):
    """The registered backward against autograd through the specification."""
    tensors = inputs(B=2, H=4, G=2, T=7, S=5, D=6) | {"scale": random(4, seed=4)}
    tensors |= {"query_weight": random(6, seed=5), "key_weight": random(6, seed=6)}
    leaves = [x.requires_grad_() for x in tensors.values()]
    options = reference.Options(norm, 1e-6, causal, 3, 0)
    specified, _ = reference.attend(*leaves, None, None, options)
    served = cosine_attention(**tensors, norm=norm, causal=causal, window=3, backend="reference")
    grad = random(2, 4, 7, 6, seed=7)
    assert torch.equal(specified, served)
    for x, y in zip(
        torch.autograd.grad(specified, leaves, grad),
        torch.autograd.grad(served, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cosine_gradient_formulas(backend):
    """dq = scale/|q| (g - q_hat r), dk likewise, d scale_h = sum r, from dense matrices."""
    x = {name: y.double().requires_grad_() for name, y in inputs(H=3, G=3, T=6, S=6).items()}
    grad = random(1, 3, 6, 8, seed=4)
    rope = angles(6, 8)
    out = cosine_attention(**x, rope=rope, backend=backend)
    found = torch.autograd.grad(out, list(x.values()), grad)

    def turn(y, sign):
        cos, sin = rope[0], sign * rope[1]
        a, b = y[..., :4], y[..., 4:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    with torch.no_grad():
        q_norm, k_norm = x["query"].norm(dim=-1, keepdim=True), x["key"].norm(dim=-1, keepdim=True)
        q_hat, k_hat = x["query"] / q_norm, x["key"] / k_norm
        scale = x["scale"].view(3, 1, 1)
        P = torch.softmax(scale * turn(q_hat, 1) @ turn(k_hat, 1).mT, -1)
        dP = grad @ x["value"].mT
        dS = P * (dP - (grad * out).sum(-1, keepdim=True))
        g_q, g_k = turn(dS @ turn(k_hat, 1), -1), turn(dS.mT @ turn(q_hat, 1), -1)
        r_q, r_k = ((a * b).sum(-1, keepdim=True) for a, b in ((q_hat, g_q), (k_hat, g_k)))
        expected = (
            scale / q_norm * (g_q - q_hat * r_q),
            scale / k_norm * (g_k - k_hat * r_k),
            P.mT @ grad,
            r_q.sum((0, 2, 3)),
        )
    # Rounding only: cosine_attention takes a float64 query in float64 throughout.
    for ours, formula in zip(found, expected, strict=True):
        assert torch.allclose(ours, formula, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_length_of_a_query_does_not_matter(backend):
    x = {name: y.float() for name, y in inputs(T=9, S=9).items()}
    out = cosine_attention(**x, backend=backend)
    x["query"] = x["query"] * random(1, 2, 9, 1, seed=5).abs().add(0.1).float()
    assert torch.allclose(out, cosine_attention(**x, backend=backend), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("T", "S"), [(70, 70), (5, 70)])
def test_future_keys_do_not_matter(T, S, backend):
    x = {name: y.float() for name, y in inputs(T=T, S=S).items()}
    before = cosine_attention(**x, causal=True, backend=backend)
    x["key"][:, :, -1] = 7.0
    x["value"][:, :, -1] = -7.0
    after = cosine_attention(**x, causal=True, backend=backend)
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_of_keys_does_not_matter(backend):
    x = {name: y.float() for name, y in inputs(T=5, S=67).items()}
    out = cosine_attention(**x, backend=backend)
    order = torch.randperm(67, generator=torch.Generator().manual_seed(1))
    x["key"], x["value"] = x["key"][:, :, order], x["value"][:, :, order]
    assert torch.allclose(out, cosine_attention(**x, backend=backend), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_key_heads_equal_plain_heads(backend):
    x = {n: y.float().requires_grad_() for n, y in inputs(B=2, H=6, G=2, T=7, S=7).items()}
    shared = cosine_attention(**x, causal=True, backend=backend)
    repeated = x | {n: x[n].repeat_interleave(3, dim=1) for n in ("key", "value")}
    plain = cosine_attention(**repeated, causal=True, backend=backend)
    assert torch.allclose(shared, plain, atol=1e-6)
    leaves = list(x.values())
    for a, b in zip(
        torch.autograd.grad(shared.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float_scale_is_a_constant_tensor(backend):
    x = {name: y.float() for name, y in inputs().items()} | {"scale": torch.tensor(7.0)}
    assert torch.equal(
        cosine_attention(**x, backend=backend),
        cosine_attention(**x | {"scale": 7.0}, scale_bound=7.0, backend=backend),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_wanted_gradients(backend):
    wanted = ("query", "key", "value", "scale", "query_weight", "key_weight")
    x = {n: y.float() for n, y in inputs().items()}
    x |= {"query_weight": torch.rand(8), "key_weight": torch.rand(8)}
    full = {n: y.clone().requires_grad_() for n, y in x.items()}
    every = torch.autograd.grad(
        cosine_attention(**full, backend=backend).sum(), list(full.values())
    )
    for name, expected in zip(wanted, every, strict=True):
        alone = x | {name: x[name].clone().requires_grad_()}
        out = cosine_attention(**alone, backend=backend)
        assert torch.equal(torch.autograd.grad(out.sum(), alone[name])[0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_keeps_the_memory_order_of_query(backend):
    x = {name: y.float() for name, y in inputs(H=4, G=2).items()}
    x["query"] = torch.randn(1, 5, 3, 4, 8)[:, :, 1].transpose(1, 2)  # of a joint projection
    out = cosine_attention(**x, backend=backend)
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_reach_the_sums(backend):
    x = {name: y.float().requires_grad_() for name, y in inputs().items()}
    expected = cosine_attention(**x, backend=backend)
    grads = torch.autograd.grad(expected.sum(), list(x.values()))
    with torch.autocast("cpu", torch.bfloat16):
        out = cosine_attention(**x, backend=backend)
        found = torch.autograd.grad(out.sum(), list(x.values()))
    assert torch.equal(out, expected)
    assert all(map(torch.equal, grads, found))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_under_a_dispatch_mode(backend):
    """Such modes (counting flops, checking schemas) switch autograd off inside an op."""
    x = {name: y.float().requires_grad_() for name, y in inputs().items()}
    leaves = list(x.values())
    expected = torch.autograd.grad(cosine_attention(**x, backend=backend).sum(), leaves)
    with FlopCounterMode(display=False):
        found = torch.autograd.grad(cosine_attention(**x, backend=backend).sum(), leaves)
    assert all(map(torch.equal, expected, found))


def test_second_derivative_is_refused():
    x = {name: y.float().requires_grad_() for name, y in inputs().items()}
    out = cosine_attention(**x)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.sum(), x["query"], create_graph=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gains", [False, True])
def test_opcheck(gains, backend):
    x = [y.float().requires_grad_() for y in inputs(B=2, H=4, G=2, T=6, S=4).values()]
    x[0] = x[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    weights = [torch.rand(8, requires_grad=True) for _ in "qk"] if gains else [None, None]
    tables = [y.float() for y in angles(9, 8)] if gains else [None, None]
    options = ["rms" if gains else "l2", 1e-6, True, 3, 0, None, backend]
    tensors = [*x, *weights, *tables]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.cosine_attention.default, (*tensors, *options))
    constants = [y if y is None else y.detach() for y in tensors]
    out, lse = ops.cosine_attention(*constants, *options)
    needs = [True, True, False, True, gains, gains]
    arguments = (torch.ones_like(out), *constants, out, lse, *options, needs)
    torch.library.opcheck(ops.cosine_attention_backward.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_whole(backend):
    x = {name: y.float().requires_grad_() for name, y in inputs(T=6, S=6).items()}
    rope = tuple(y.float() for y in angles(9, 8))

    def model(query, key, value, scale):
        mixed = cosine_attention(
            query * 2, key, value, scale=scale.exp(), rope=rope, causal=True, backend=backend
        )
        return mixed.tanh()

    x["scale"] = torch.rand(2, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    leaves = list(x.values())
    expected = torch.autograd.grad(model(**x).square().sum(), leaves)
    found = torch.autograd.grad(compiled(**x).square().sum(), leaves)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(cosine_attention) == []


def q(*shape, dtype=torch.float32):
    return torch.zeros(*(shape or (2, 4, 5, 8)), dtype=dtype)


K = (2, 2, 7, 8)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"query": [1]}, TypeError, "query is a list; a tensor fits"),
    ({"key": q(dtype=torch.int64)}, TypeError, "key is torch.int64; float32, bfloat16"),
    ({"value": q(*K).half()}, TypeError, "value torch.float16; one dtype fits"),
    ({"key": q(*K).to("meta")}, ValueError, "key on meta, value on cpu; one device fits"),
    ({"key": q(2, 2, 7)}, ValueError, "4, 3 and 4 dimensions; query .B, H, T, D."),
    ({"key": q(3, 2, 7, 8)}, ValueError, "batches of 2 and 3; equal batches fit; query"),
    ({"key": q(2, 2, 7, 6)}, ValueError, "head widths 8 and 6; equal widths"),
    ({"value": q(2, 2, 6, 8)}, ValueError, "key and value differ; both .B, G, S, D. fit; query"),
    ({"query": q(2, 5, 5, 8)}, ValueError, "5 query heads cannot share 2 key heads; H must be"),
    ({"scale": "10"}, TypeError, "scale is a str; a float or a tensor fits"),
    ({"scale": True}, TypeError, "scale is a bool"),
    ({"scale": math.nan}, ValueError, "scale is nan; a finite number fits"),
    ({"scale": torch.ones(3)}, ValueError, r"scale has shape \(3,\); \(\) or \(4,\) fits; query"),
    ({"scale": torch.ones(4, 1)}, ValueError, r"scale has shape \(4, 1\)"),
    ({"scale": torch.ones(4).int()}, TypeError, "scale is torch.int32; a floating dtype fits"),
    ({"scale": torch.ones(4).to("meta")}, ValueError, "scale on meta; cpu, as query, fits"),
    ({"scale_bound": 9.0}, ValueError, "scale is 10.0; at most scale_bound, 9.0, fits"),
    ({"scale_bound": -1.0}, ValueError, "scale_bound is -1.0; a positive finite number fits"),
    ({"scale_bound": "9"}, TypeError, "scale_bound is a str; a float fits"),
    ({"norm": "L2"}, ValueError, "norm is 'L2'; 'l2', 'rms', 'layer' or None fits"),
    ({"eps": 0.0}, ValueError, "eps is 0.0; a positive finite number fits"),
    ({"query_weight": 1.0}, TypeError, "query_weight is a float; a tensor or None fits"),
    ({"key_weight": q(7)}, ValueError, r"key_weight has shape \(7,\); \(8,\) fits; query"),
    ({"key_weight": q(8).int()}, TypeError, "key_weight is torch.int32"),
    ({"causal": 1}, TypeError, "causal is a int; True or False fits"),
    ({"window": 0}, ValueError, "window is 0; at least 1 fits"),
    ({"window": 2.0}, TypeError, "window is a float; an int fits"),
    ({"prefix": -1}, ValueError, "prefix is -1; at least 0 fits"),
    ({"prefix": None}, TypeError, "prefix is a NoneType; an int fits"),
    ({"rope": q(7, 4)}, TypeError, "rope is a Tensor; a pair of tensors"),
    ({"rope": (q(6, 4), q(6, 4))}, ValueError, r"two of \(at least 7, 4\) fit; query"),
    ({"rope": (q(7, 4), q(7, 8))}, ValueError, r"rope has shapes \(7, 4\) and \(7, 8\)"),
    ({"rope": (q(7, 4).int(), q(7, 4))}, TypeError, "rope's cos is torch.int32"),
    ({"rope": (q(7, 4).requires_grad_(), q(7, 4))}, ValueError, "cos requires a gradient"),
    (
        {"query": q(2, 4, 9, 8), "rope": (q(9, 4), q(9, 4))},
        ValueError,
        "rope has no row for query 0 at position -2; T <= S fits; query",
    ),
    ({"backend": "cuda"}, ValueError, "backend is 'cuda'; known: auto"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": q(), "key": q(*K), "value": q(*K), "scale": 10.0}
    with pytest.raises(error, match=r"^cosine_attention: ") as caught:
        cosine_attention(**right | wrong)
    assert caught.match(message)


def test_odd_width_cannot_rotate():
    x = q(2, 2, 5, 7)
    with pytest.raises(ValueError, match="rope cannot pair 7 features; an even D fits"):
        cosine_attention(x, x, x, scale=1.0, rope=(q(5, 3), q(5, 3)))


@pytest.mark.parametrize("backend", sorted({"native", "triton"} - set(BACKENDS)))
def test_backend_without_code_is_refused(backend):
    with pytest.raises(BackendUnavailable, match=f"{backend}.* cannot serve this call"):
        cosine_attention(q(), q(*K), q(*K), scale=1.0, backend=backend)


def test_bound_of_a_scale_with_gains_is_the_callers_promise():
    x = q(1, 1, 2, 8)
    out = cosine_attention(
        x, x, x + 1, scale=9.0, scale_bound=1.0, query_weight=torch.full((8,), 0.1)
    )
    assert isinstance(out, Tensor)
    assert torch.equal(out, x + 1)
