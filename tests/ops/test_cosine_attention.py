"""pyseq.ops.cosine_attention against loops written from its formulas, on every backend."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from pyseq.ops.cosine_attention import cosine_attention, parts, reference
from pyseq.ops.prepare_keys.reference import prepare
from tests.correctness import (
    DTYPES,
    FLOAT64_ERROR,
    backends_of,
    check_correct,
    check_refused,
    check_written_gradient,
    nan_filled_memory,
    pairwise,
    place,
    random,
    sees,
    served,
    served_dtype,
)
from tests.ops.attention_inputs import (
    NORMS,
    SIZES,
    STRIDES,
    angles,
    attention_inputs,
    ready,
    scales,
)

BACKENDS = backends_of("cosine_attention")


def inputs(H=2, **sizes):
    return attention_inputs(H=H, **sizes) | {"scale": scales(H)}


# The oracle: one query at a time, one formula per line, nothing shared with pyseq.


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


DEFAULTS = {"norm": "l2", "eps": 1e-6, "causal": False, "window": None, "prefix": 0}


def specification(
    query, key, value, scale, query_weight=None, key_weight=None, rope=None, **options
):
    weights, tables = (query_weight, key_weight), rope or (None, None)
    options = reference.Options(**DEFAULTS | options)
    inputs = reference.Inputs(query, key, value, scale, *weights, *tables)
    return reference.attend(inputs, options)[0]


def rounding_specification(
    query, key, value, scale, query_weight=None, key_weight=None, rope=None, **options
):
    """The specification with prepared rows in the dtype of the inputs, as tensor cores take them.

    In float32 and float64 it is the specification.
    """
    options = DEFAULTS | options
    norm, eps = options.pop("norm"), options.pop("eps")
    tables = rope or (None, None)
    ahead = key.shape[2] - query.shape[2]
    q = prepare(query, query_weight, *tables, norm, eps, ahead)
    k = prepare(key, key_weight, *tables, norm, eps, 0)
    return specification(q, k, value, scale, norm=None, **options)


# A fused backward restores the weights from log-sum-exps in float32, which are up to 12 here, and
# rounds them and `delta` on their own: what cancels exactly elsewhere leaves a few of their eps.
FUSED_NOISE = 4 * 12 * torch.finfo(torch.float32).eps


def check(tensors, dtype, backend, op=cosine_attention, **options):
    fused = backend in ("native", "triton")
    rounds = backend == "triton"
    check_correct(
        partial(served(op, backend), **options),
        partial(oracle, **options),
        partial(rounding_specification if rounds else specification, **options),
        tensors,
        served_dtype(backend, dtype),
        noise=FUSED_NOISE if fused else FLOAT64_ERROR,
    )


# The sizes around a tile of 64 keys or queries, in full; everything else meets pairwise below.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", SIZES)
@pytest.mark.parametrize("T", SIZES)
def test_sizes_around_a_tile(T, S, causal, backend):
    check(inputs(T=T, S=S, D=8), torch.float32, backend, causal=causal)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("bound", "norm", "options"),
    [
        (9.6, "l2", {"causal": True}),
        (9.6, "l2", {"window": 5, "prefix": 3}),
        (62.0, "l2", {"causal": True}),  # with an offset that is not 0
        (9.6 / 8, "rms", {"causal": True, "window": 20}),
        (9.6, None, {"causal": True}),
    ],
)
def test_a_promised_bound(bound, norm, options, dtype, backend):
    """Which leaves the running maximum out; the last logits come close to it."""
    tensors = inputs(H=2, T=70, S=67, D=8)
    tensors["scale"] = torch.tensor([bound, -bound / 2])
    if norm is None:
        tensors["query"] /= tensors["query"].norm(dim=-1, keepdim=True)
        tensors["key"] /= 1.01 * tensors["key"].norm(dim=-1, keepdim=True)
    promising = partial(cosine_attention, scale_bound=bound)
    check(tensors, dtype, backend, op=promising, norm=norm, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_gradients_fit_float16(backend):
    """As a gradient scaler makes them: times a scale of 50 they would not."""
    tensors = {n: x.half() * 8 for n, x in attention_inputs(H=4, G=2, T=70, S=70, D=64).items()}
    leaves = [x.requires_grad_() for x in tensors.values()]
    scale = torch.tensor([50.0, 3.0, 0.0, -20.0])
    out = served(cosine_attention, backend)(*leaves, scale=scale, causal=True)
    grad = 1000 * random(*out.shape, seed=4).half()
    found = torch.autograd.grad(out, leaves, grad)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    truth = torch.autograd.grad(
        cosine_attention(*exact, scale=scale, causal=True, backend="reference"),
        exact,
        grad.double(),
    )
    for ours, expected in zip(found, truth, strict=True):
        assert float((ours - expected).abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_tables_that_also_scale_break_no_bound(backend):
    """Nobody promised one: |logit| is 61 * 1.2^2, beyond what fits without a running maximum."""
    x = random(1, 1, 5, 8).float()
    tables = tuple(1.2 * y.float() for y in angles(5, 8))
    out = served(cosine_attention, backend)(x, x, x, scale=61.0, rope=tables)
    assert out.isfinite().all()


PAIRS = pairwise(
    dtype=DTYPES,
    norm=NORMS,
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

    def log_sum_exp():
        there = [x.to(place(backend)) for x in tensors.values()]
        return torch.ops.pyseq.cosine_attention(*there, *rest)[1].cpu()

    ours = log_sum_exp()
    exact = oracle(**{name: x.double() for name, x in tensors.items()}, lse=True, **options)
    assert torch.equal(ours.isneginf(), exact.isneginf())
    assert torch.allclose(ours.double(), exact, rtol=0, atol=1e-5)
    tensors["query"][0, 1, 7, 0] = math.nan
    bad = log_sum_exp().isnan()
    assert bad.nonzero().tolist() == [[0, 1, 7]]


# Whole tiles, ragged ones and every edge of a mask that crosses some; the pairs above fit in one.
@pytest.mark.parametrize("backend", [x for x in BACKENDS if x != "reference"])
@pytest.mark.parametrize(
    ("dtype", "T", "S", "causal", "window", "prefix"),
    [
        (torch.float32, 70, 100, True, None, 0),
        (torch.float32, 100, 70, True, 40, 35),
        (torch.float32, 100, 130, True, 50, 3),
        (torch.float32, 97, 96, False, 20, 0),
        (torch.float32, 70, 100, False, 40, 35),
        (torch.float32, 64, 64, True, 1, 64),
        (torch.float16, 150, 260, True, 140, 5),
        (torch.float16, 200, 129, False, None, 0),
    ],
)
def test_masks_across_tiles(dtype, T, S, causal, window, prefix, backend):
    tensors = inputs(T=T, S=S, D=16) | {"key_weight": random(16, seed=6).abs() + 0.5}
    check(tensors, dtype, backend, causal=causal, window=window, prefix=prefix)


def gradients(backend, needs, rope=None, **changed):
    """Of (query, key, value, scale, query_weight, key_weight), those that are needed."""
    tensors = inputs(B=2, H=4, G=2, T=70, S=75, D=24) | {"scale": torch.tensor([3.0, -2, 0, 9])}
    tensors |= {"query_weight": random(24, seed=5), "key_weight": random(24, seed=6)} | changed
    leaves = {
        name: x.to(place(backend), torch.float32).requires_grad_(need)
        for (name, x), need in zip(tensors.items(), needs, strict=True)
    }
    rope = rope and tuple(x.to(place(backend)) for x in rope)
    out = cosine_attention(**leaves, rope=rope, causal=True, prefix=2, backend=backend)
    wanted = [x for x, need in zip(leaves.values(), needs, strict=True) if need]
    return torch.autograd.grad(out.square().sum(), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_is_needed_and_always_the_same(backend):
    """Bit for bit, in a second run and where other gradients are left out."""
    whole = gradients(backend, [True] * 6)
    with nan_filled_memory():
        assert all(map(torch.equal, whole, gradients(backend, [True] * 6)))
    for i in range(6):
        [alone] = gradients(backend, [i == j for j in range(6)])
        assert torch.equal(alone, whole[i])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_of_parameters(backend):
    weight = random(48, seed=7).float()[::2]
    scale = torch.tensor([[3.0, -2], [0, 9], [1, 1], [2, 5]])[:, 0]
    cos, sin = (x.float() for x in angles(75, 24))
    runs = [
        gradients(backend, [True] * 6, x, scale=y, query_weight=z, key_weight=z)
        for x, y, z in (
            ((cos, sin.T.contiguous().T), scale, weight),
            ((cos, sin), scale.contiguous(), weight.contiguous()),
        )
    ]
    assert all(map(torch.equal, *runs))


def test_parts_equal_the_whole(monkeypatch):
    """Small parts over batch, heads and rows; the oracle's cases are one part each."""
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    monkeypatch.setattr(parts, "PART_BYTES", 300)
    for T, S, window in ((10, 10, None), (10, 6, 3), (6, 10, None)):
        tensors = inputs(B=3, H=4, G=2, T=T, S=S) | {"query_weight": random(8, seed=6)}
        check(tensors, torch.float32, "reference", causal=True, window=window)
        check(tensors, torch.float32, "reference", window=window)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", NORMS)
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
    bounded = partial(cosine_attention, scale_bound=50.0)
    check(tensors, dtype, backend, op=bounded)


@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 2, "prefix": 1}])
@pytest.mark.parametrize("norm", NORMS)
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


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("causal", [False, True])
def test_written_gradient_is_autograds(causal, norm):
    """The registered backward against autograd through the specification."""
    tensors = inputs(B=2, H=4, G=2, T=7, S=5, D=6) | {"scale": random(4, seed=4)}
    tensors |= {"query_weight": random(6, seed=5), "key_weight": random(6, seed=6)}
    leaves = [x.requires_grad_() for x in tensors.values()]
    options = reference.Options(norm, 1e-6, causal, 3, 0)
    specified, _ = reference.attend(reference.Inputs(*leaves, None, None), options)
    served = cosine_attention(**tensors, norm=norm, causal=causal, window=3, backend="reference")
    check_written_gradient(specified, served, leaves)


def test_cosine_gradient_formulas():
    """dq = scale/|q| (g - q_hat r), dk likewise, d scale_h = sum r, from dense matrices."""
    x = {name: y.double().requires_grad_() for name, y in inputs(H=3, G=3, T=6, S=6).items()}
    grad = random(1, 3, 6, 8, seed=4)
    rope = angles(6, 8)
    out = cosine_attention(**x, rope=rope, backend="reference")
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
@pytest.mark.parametrize("gains", [False, True])
def test_opcheck(gains, backend):
    x = [y.float().requires_grad_() for y in inputs(B=2, H=4, G=2, T=6, S=4).values()]
    x[0] = x[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    weights = [torch.rand(8, requires_grad=True) for _ in "qk"] if gains else [None, None]
    tables = [y.float() for y in angles(9, 8)] if gains else [None, None]
    options = ["rms" if gains else "l2", 1e-6, True, 3, 0, None, backend]
    tensors = [
        y if y is None else y.detach().to(place(backend)).requires_grad_(y.requires_grad)
        for y in (*x, *weights, *tables)
    ]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.cosine_attention.default, (*tensors, *options))
    constants = [y if y is None else y.detach() for y in tensors]
    out, lse = ops.cosine_attention(*constants, *options)
    needs = [True, True, False, True, gains, gains]
    arguments = (torch.ones_like(out), *constants, out, lse, *options, needs)
    torch.library.opcheck(ops.cosine_attention_backward.default, arguments)


def q(*shape, dtype=torch.float32):
    return torch.zeros(*(shape or (2, 4, 5, 8)), dtype=dtype)


K = (2, 2, 7, 8)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"scale": "10"}, TypeError, "scale is a str; a float or a tensor fits"),
    ({"scale": True}, TypeError, "scale is a bool"),
    ({"scale": math.nan}, ValueError, "scale is nan; a finite number of float32 fits"),
    ({"scale": torch.ones(3)}, ValueError, r"scale has shape \(3,\); \(\) or \(4,\) fits; query"),
    ({"scale": torch.ones(4, 1)}, ValueError, r"scale has shape \(4, 1\)"),
    ({"scale": torch.ones(4).int()}, TypeError, "scale is torch.int32; a floating dtype fits"),
    ({"scale": torch.ones(4).to("meta")}, ValueError, "scale on meta; cpu, as query, fits"),
    ({"scale_bound": 9.0}, ValueError, "scale is 10.0; at most scale_bound, 9.0, fits"),
    (
        {"scale_bound": -1.0},
        ValueError,
        "scale_bound is -1.0; a positive finite number of float32 fits",
    ),
    ({"scale_bound": "9"}, TypeError, "scale_bound is a str; a float fits"),
    ({"norm": "L2"}, ValueError, "norm is 'L2'; 'l2', 'rms', 'layer' or None fits"),
    ({"eps": 0.0}, ValueError, "eps is 0.0; a positive finite number of float32 fits"),
    ({"query_weight": 1.0}, TypeError, "query_weight is a float; a tensor or None fits"),
    ({"key_weight": q(7)}, ValueError, r"key_weight has shape \(7,\); \(8,\) fits; query"),
    ({"key_weight": q(8).int()}, TypeError, "key_weight is torch.int32"),
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
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": q(), "key": q(*K), "value": q(*K), "scale": 10.0}
    check_refused(cosine_attention, error, message, right | wrong)


def test_odd_width_cannot_rotate():
    x = q(2, 2, 5, 7)
    with pytest.raises(ValueError, match="rope cannot pair 7 features; an even D fits"):
        cosine_attention(x, x, x, scale=1.0, rope=(q(5, 3), q(5, 3)))


def test_bound_of_a_scale_with_gains_is_the_callers_promise():
    x = q(1, 1, 2, 8)
    out = cosine_attention(
        x, x, x + 1, scale=9.0, scale_bound=1.0, query_weight=torch.full((8,), 0.1)
    )
    assert isinstance(out, Tensor)
    assert torch.equal(out, x + 1)
