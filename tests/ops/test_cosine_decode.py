"""pyseq.ops.cosine_decode against loops written from its formulas, on every backend."""

import itertools
import math
import random as dice
from functools import partial

import pytest
import torch

from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.cosine_decode import cosine_decode, reference
from pyseq.ops.cosine_decode.gradients import gradients
from pyseq.ops.prepare_keys import prepare_keys
from tests.correctness import (
    DTYPES,
    FLOAT64_ERROR,
    backends_of,
    check_correct,
    check_refused,
    check_written_gradient,
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

BACKENDS = backends_of("cosine_decode")


# The oracle: one query at a time, one formula per line.


def oracle(
    query,
    key_cache,
    value_cache,
    scale,
    query_weight=None,
    lengths=None,
    norm="l2",
    eps=1e-6,
    rope=None,
    window=None,
    prefix=0,
):
    (B, H, T, D), (_, G, S, _) = query.shape, key_cache.shape
    rows = []
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        n = S if lengths is None else int(lengths[b])
        seen = [s for s in range(n) if sees(t, s, T, n, True, window, prefix)]
        if not seen:
            rows.append(query.new_zeros(D))
            continue
        g = h // (H // G)
        q = ready(query[b, h, t], norm, eps, query_weight, rope, max(t + n - T, 0))
        logits = (scale[h] if scale.dim() else scale) * (key_cache[b, g, seen] @ q)
        mass = torch.exp(logits - float(logits.detach().max()))
        rows.append(mass @ value_cache[b, g, seen] / mass.sum())
    return torch.stack(rows).view(B, H, T, D)


DEFAULTS = {"norm": "l2", "eps": 1e-6, "window": None, "prefix": 0}


def specification(
    query, key_cache, value_cache, scale, query_weight=None, lengths=None, rope=None, **options
):
    tensors = (query, key_cache, value_cache, scale, query_weight, lengths)
    options = reference.Options(**DEFAULTS | options)
    return reference.attend(reference.Inputs(*tensors, *(rope or (None, None))), options)


# A fused backward restores the weights from log-sum-exps in float32, which are up to 16 here, and
# rounds them and `delta` on their own: what cancels exactly elsewhere leaves a few of their eps in
# each of up to 80 terms of a sum, the widest head here.
FUSED_NOISE = 4 * 80 * torch.finfo(torch.float32).eps


def check(tensors, dtype, backend, op=cosine_decode, noise=FUSED_NOISE, **options):
    fused = backend == "triton"
    check_correct(
        partial(served(op, backend), **options),
        partial(oracle, **options),
        partial(specification, **options),
        tensors,
        served_dtype(backend, dtype),
        noise=noise if fused else FLOAT64_ERROR,
    )


def inputs(B=1, H=2, G=1, T=3, S=9, D=8):
    """Keys of length 1, as prepare_keys leaves them."""
    query, key, value = attention_inputs(B=B, H=H, G=G, T=T, S=S, D=D).values()
    return {
        "query": query,
        "key_cache": key / key.norm(dim=-1, keepdim=True),
        "value_cache": value,
        "scale": scales(H),
    }


def named(choice):
    """The name of a parameter of a test."""
    return "-".join(map(str, choice.values())) if isinstance(choice, dict) else choice


def singles(**sizes):
    return {name: x.float() for name, x in inputs(**sizes).items()}


# Every two choices meet, lengths around a tile of 64 keys among them.
CACHE_STRIDES = STRIDES | {
    "slice": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],  # of a longer buffer
}
CHOICES = {
    "dtype": DTYPES,
    "norm": NORMS,
    "heads": [(2, 2), (4, 1), (6, 3)],
    "D": [32, 64, 80, 96, 128, 256],
    "T": [1, 3, 16],
    "S": SIZES,
    "lengths": [None, torch.int32, torch.int64],
    "window": [None, 1, 20],
    "prefix": [0, 2],
    "rope": [False, True],
    "gain": [False, True],
    "per_head": [False, True],
    "strides": list(CACHE_STRIDES),
}
# The interpreter is slow. Left out are widths that a kernel pads to a tile of the same kind, whole
# tiles of keys, which the ragged lengths below have, and strides that "transposed" has, too.
FEWER = CHOICES | {
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
    "D": [32, 80, 256],
    "S": [1, 63, 65, 131],
    "strides": ["contiguous", "transposed", "heads_last", "slice"],
}
PAIRS = [
    (case, backend)
    for backend in BACKENDS
    for case in pairwise(**FEWER if backend == "triton" else CHOICES)
]


@pytest.mark.parametrize(("case", "backend"), PAIRS, ids=named)
def test_pairs_of_choices(case, backend):
    T, S, D, (H, G) = case["T"], case["S"], case["D"], case["heads"]
    tensors = inputs(B=3 if case["lengths"] else 1, H=H, G=G, T=T, S=S, D=D)
    options = {name: case[name] for name in ("norm", "window", "prefix")}
    if case["lengths"]:
        options["lengths"] = torch.tensor([S, S // 2, 0], dtype=case["lengths"])
        for name, b in itertools.product(("key_cache", "value_cache"), range(3)):
            tensors[name][b, :, options["lengths"][b] :] = math.nan
    tensors = {
        name: CACHE_STRIDES[case["strides"]](x) if x.dim() == 4 else x
        for name, x in tensors.items()
    }
    if not case["per_head"]:
        tensors["scale"] = torch.tensor(3.0)
    if case["norm"] != "l2":
        tensors["scale"] = tensors["scale"] / D**0.5
    if case["gain"]:
        tensors["query_weight"] = random(D, seed=5).abs() + 0.5
    if case["rope"]:
        options["rope"] = angles(S + 3, D)
    check(tensors, case["dtype"], backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("prefix", [0, 2])
def test_more_queries_than_keys(prefix, window, backend):
    """Queries below position 0 see the prefix at most, with the first row of the tables."""
    lengths = torch.tensor([6, 3, 1, 0])
    tensors = inputs(B=4, H=4, G=2, T=7, S=6)
    options = {"rope": angles(6, 8), "window": window, "prefix": prefix}
    check(tensors, torch.float32, backend, lengths=lengths, **options)
    check(tensors, torch.float32, backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_cache(dtype, backend):
    S = 700 if backend == "triton" else 5000  # the interpreter is slow
    check(inputs(H=4, G=2, T=1, S=S), dtype, backend, rope=angles(S, 8))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_sums_are_kept_in_float32(norm, dtype, backend):
    """Only the output is rounded, by half an eps of itself; by triton also what it multiplies."""
    dtype = served_dtype(backend, dtype)
    x = {n: y.to(dtype) if y.dim() == 4 else y for n, y in inputs(H=4, G=2, S=70).items()}
    exact = oracle(**{name: y.double() for name, y in x.items()}, norm=norm)
    error = (served(cosine_decode, backend)(**x, norm=norm).double() - exact).abs()
    eps = torch.finfo(dtype).eps
    # A query rounded moves a logit of up to 12 by 6 eps, a weight rounded by half an eps.
    of_operands = 10 * eps * float(x["value_cache"].abs().max()) if backend == "triton" else 0.0
    assert (error <= 0.5 * eps * exact.abs() + 1e-5 + of_operands).all()


# Decoding from a cache against the full forward.

SPLITS = pairwise(
    dtype=DTYPES,
    norm=NORMS,
    heads=[(2, 2), (4, 1), (6, 3)],
    step=[1, 3, 16],
    window=[None, 1, 5],
    prefix=[0, 3],
    rope=[False, True],
    gains=["none", "query", "key", "both"],
    serve=["slice", "int32", "int64"],
    split=range(3),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", SPLITS, ids=named)
def test_decoding_equals_the_full_forward(case, backend):
    """A prefill of a random length, then a few positions at a time."""
    (H, G), B, S, D, norm = case["heads"], 2, 37, 8, case["norm"]
    dtype = served_dtype(backend, case["dtype"])
    query, key, value = (
        random(B, heads, S, D, seed=seed).to(dtype) for seed, heads in ((1, H), (2, G), (3, G))
    )
    gains = {
        name: random(D, seed=4).abs() + 0.5 if case["gains"] in (name, "both") else None
        for name in ("query", "key")
    }
    rope = angles(S + 4, D) if case["rope"] else None
    mask = {"window": case["window"], "prefix": case["prefix"]}
    scale = 8.0 if norm == "l2" else 8.0 / D
    ready_query = {"norm": norm, "rope": rope, "query_weight": gains["query"]}
    ready_key = {"norm": norm, "rope": rope, "key_weight": gains["key"]}
    full = served(cosine_attention, backend)(
        query, key, value, scale=scale, causal=True, **mask, **ready_query | ready_key
    )

    prefill = dice.Random(case["split"]).randrange(case["prefix"], S)  # it holds the whole prefix
    if backend == "triton":  # whose interpreter is slow
        prefill = max(prefill, S - 3 * case["step"])
    edges = [0, *range(prefill, S, case["step"]), S]
    keys, values = (torch.full((B, G, S + 4, D), math.nan, dtype=dtype) for _ in "kv")
    pieces = []
    for start, stop in itertools.pairwise(edges):
        newest = served(prepare_keys, backend)(key[:, :, start:stop], position=start, **ready_key)
        keys[:, :, start:stop] = newest
        values[:, :, start:stop] = value[:, :, start:stop]
        if case["serve"] == "slice":
            cache, lengths = (keys[:, :, :stop], values[:, :, :stop]), None
        else:
            cache = keys, values
            lengths = torch.full((B,), stop, dtype=getattr(torch, case["serve"]))
        newest = query[:, :, start:stop]
        options = {"scale": scale, "lengths": lengths} | mask | ready_query
        pieces.append(served(cosine_decode, backend)(newest, *cache, **options))

    # Rounding a key's features by a share u moves no logit by more than u |logit|'s bound, so no
    # weight by a factor above e^(2 u bound); the outputs are rounded once more on either side.
    exact_q = prepare_keys(query.double(), norm=norm, key_weight=gains["query"])
    exact_k = prepare_keys(key.double(), norm=norm, key_weight=gains["key"])
    bound = scale * float(exact_q.norm(dim=-1).max() * exact_k.norm(dim=-1).max())
    sums = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    u = torch.finfo(dtype).eps / 2
    of_cache = u if dtype in (torch.bfloat16, torch.float16) else 0.0
    moved = math.expm1(2 * bound * (of_cache + 2 * (D + 4) * sums)) + 2 * u + 2 * S * sums
    difference = (torch.cat(pieces, 2).double() - full.double()).abs().max()
    assert difference <= moved * float(value.double().abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 3])
def test_ragged_lengths_equal_single_calls(T, backend):
    x = singles(B=4, H=4, G=2, T=T, S=70)
    lengths, rope = torch.tensor([70, 1, 64, 33]), tuple(y.float() for y in angles(70, 8))
    options = {"rope": rope, "window": 40, "prefix": 2, "scale": x.pop("scale")}
    op = served(cosine_decode, backend)
    together = op(**x, lengths=lengths, **options)
    for b, n in enumerate(lengths.tolist()):
        query, *caches = (y[b : b + 1] for y in x.values())
        alone = op(query, *(y[:, :, :n] for y in caches), **options)
        assert torch.allclose(together[b : b + 1], alone, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 3e38])
def test_what_is_past_the_length_reaches_nothing(garbage, backend):
    lengths = torch.tensor([5, 0, 9])
    unused = torch.arange(9) >= lengths[:, None]

    def run(filling):
        x = singles(B=3, H=4, G=2)
        for name in ("key_cache", "value_cache"):
            x[name].masked_fill_(unused[:, None, :, None], filling)
        leaves = {name: y.requires_grad_() for name, y in x.items()}
        out = served(cosine_decode, backend)(**leaves, norm=None, lengths=lengths, prefix=7)
        return out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))

    clean, dirty = run(0.0), run(garbage)
    assert all(map(torch.equal, clean, dirty))
    for d_cache in dirty[2:4]:
        assert not d_cache.transpose(1, 2)[unused].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_vectors(norm, backend):
    tensors = inputs(H=4, G=2, T=6, S=7)
    tensors["query"][:, 1, 2] = 0
    tensors["query"][:, 2:] *= 0.02  # shorter than eps, where the factor is constant
    tensors["key_cache"][:, 0, 3] = 0
    tensors["value_cache"][:, 1, 3] = 0
    check(tensors, torch.float32, backend, norm=norm, eps=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [10.0, 50.0])
def test_anti_aligned_keys(scale, dtype, backend):
    """Every logit is near -scale: an offset chosen for the largest possible one would underflow."""
    tensors = inputs(T=3, S=70)
    direction = random(8, seed=7)
    tensors["query"] = direction.expand(1, 2, 3, 8).contiguous()
    tensors["key_cache"] = (-direction / direction.norm()).expand(1, 1, 70, 8).contiguous()
    tensors["scale"] = torch.tensor(scale)
    bounded = partial(cosine_decode, scale_bound=51.0)  # a length of 1, rounded, may exceed 1
    # The gradient of the scale is 0: hundreds of terms cancel that a fused backward has rounded.
    check(tensors, dtype, backend, op=bounded, noise=max(FUSED_NOISE, torch.finfo(dtype).eps))


@pytest.mark.parametrize("options", [{}, {"window": 2, "prefix": 1}])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [torch.tensor(1.3), torch.tensor([0.7, -1.1, 2.0, 0.4])])
def test_gradcheck(scale, norm, options):
    tensors = inputs(B=2, H=4, G=2, T=3, S=4, D=4) | {"scale": scale.double()}
    tensors |= {"query_weight": random(4, seed=5)}
    leaves = [x.requires_grad_() for x in tensors.values()]
    options = options | {"lengths": torch.tensor([4, 2]), "rope": angles(4, 4), "norm": norm}

    def op(*leaves):
        return cosine_decode(
            **dict(zip(tensors, leaves, strict=True)), **options, backend="reference"
        )

    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("prefix", [0, 1])
def test_written_gradient_is_autograds(prefix, norm):
    """The registered backward against autograd through the specification."""
    tensors = inputs(B=3, H=4, G=2, T=4, S=7, D=6) | {"scale": random(4, seed=4)}
    tensors |= {"query_weight": random(6, seed=5)}
    leaves = [x.requires_grad_() for x in tensors.values()]
    options = {"lengths": torch.tensor([7, 2, 0]), "rope": angles(7, 6), "norm": norm}
    options |= {"window": 3, "prefix": prefix}
    specified = specification(**tensors, **options)
    served = cosine_decode(**tensors, **options, backend="reference")
    check_written_gradient(specified, served, leaves)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_serves_the_specification(dtype):
    x = {name: y.to(dtype) for name, y in inputs(B=2, H=4, G=2).items()}
    options = {"lengths": torch.tensor([9, 2]), "rope": angles(9, 8), "window": 4}
    assert torch.equal(
        cosine_decode(**x, **options, backend="reference"), specification(**x, **options)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_formulas(backend):
    """dq = scale/|q| (g - q_hat r), d scale_h = sum r, dK = scale dS^T q, from dense matrices."""
    x = {name: y.double() for name, y in inputs(H=3, G=3, T=3, S=6).items()}
    grad, rope = random(1, 3, 3, 8, seed=4), angles(6, 8)
    dtype = served_dtype(backend, torch.float64)
    leaves = {name: y.to(dtype, copy=True).requires_grad_() for name, y in x.items()}
    out = served(cosine_decode, backend)(**leaves, rope=rope)
    found = torch.autograd.grad(out, list(leaves.values()), grad.to(dtype))
    out = out.detach().double()

    def turn(y, sign):
        turned = torch.complex(y[..., :4], y[..., 4:]) * torch.complex(rope[0], sign * rope[1])[3:]
        return torch.cat([turned.real, turned.imag], -1)

    length = x["query"].norm(dim=-1, keepdim=True)
    q_hat, scale = x["query"] / length, x["scale"].view(3, 1, 1)
    hidden = torch.ones(3, 6, dtype=torch.bool).triu(4)
    logits = scale * turn(q_hat, 1) @ x["key_cache"].mT
    P = torch.softmax(logits.masked_fill(hidden, -math.inf), -1)
    dS = P * (grad @ x["value_cache"].mT - (grad * out).sum(-1, keepdim=True))
    g = turn(dS @ x["key_cache"], -1)
    r = (q_hat * g).sum(-1, keepdim=True)
    expected = (
        scale / length * (g - q_hat * r),
        scale * dS.mT @ turn(q_hat, 1),
        P.mT @ grad,
        r.sum((0, 2, 3)),
    )
    exact = dtype == torch.float64
    tolerances = {"rtol": 1e-10, "atol": 1e-11} if exact else {"rtol": 1e-5, "atol": 1e-5}
    for ours, formula in zip(found, expected, strict=True):
        assert torch.allclose(ours.double(), formula, **tolerances)


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_lengths_are_the_default(backend):
    x, op = singles(B=2), served(cosine_decode, backend)
    for dtype in (torch.int32, torch.int64):
        lengths = torch.full((2,), 9, dtype=dtype)
        assert torch.equal(op(**x, lengths=lengths, window=4), op(**x, window=4))


def test_no_value_is_read():
    """On the meta device there is none to read, as a GPU's would be read by waiting for it."""
    x = [y.to("meta") for y in singles(B=2, H=4, G=2).values()]
    weight = torch.ones(8, device="meta")
    lengths = torch.ones(2, dtype=torch.int32, device="meta")
    table = torch.ones(9, 4, device="meta")
    options = reference.Options("rms", 1e-6, 4, 2)
    arguments = (*x, weight, lengths, table, table)
    out = reference.attend(reference.Inputs(*arguments), options)
    assert out.shape == x[0].shape
    found = gradients(out, reference.Inputs(*arguments), options)
    assert [d.shape for d in found] == [y.shape for y in (*x, weight)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("full", [False, True])
def test_opcheck(full, backend):
    x = list(singles(B=2, H=4, G=2, S=12).values())
    x[0] = x[0].transpose(1, 2).contiguous().transpose(1, 2)
    x[1:3] = (y[:, :, :9] for y in x[1:3])
    x = [y.detach().to(place(backend)).requires_grad_() for y in x]
    rest = [None] * 4
    if full:
        constants = [torch.tensor([9, 4]), *map(torch.Tensor.float, angles(9, 8))]
        rest = [y.to(place(backend)) for y in (torch.rand(8), *constants)]
        rest[0].requires_grad_()
    options = ["rms" if full else "l2", 1e-6, 3 if full else None, 1, None, backend]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.cosine_decode.default, (*x, *rest, *options))
    constants = [y if y is None else y.detach() for y in (*x, *rest)]
    needs = [True, True, False, True, full]
    arguments = (torch.ones_like(x[0]), *constants, *options, needs)
    torch.library.opcheck(ops.cosine_decode_backward.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoding_loop_is_compiled_once(backend):
    """Once more than once: sizes that change become variables of the graph at the second step."""
    where = place(backend)
    rope = tuple(x.float().to(where) for x in angles(40, 8))
    keys, values = torch.zeros(1, 2, 40, 8).to(where), random(1, 2, 40, 8).float().to(where)
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph

    def step(query, key, position):
        end = position + 1
        keys[:, :, position:end] = prepare_keys(key, rope=rope, position=position, backend=backend)
        caches = keys[:, :, :end], values[:, :, :end]
        return cosine_decode(query, *caches, scale=3.0, rope=rope, backend=backend)

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=count)
    for position in range(5, 12):
        query, key = torch.randn(1, 4, 1, 8).to(where), torch.randn(1, 2, 1, 8).to(where)
        assert torch.equal(compiled(query, key, position), step(query, key, position))
    assert len(graphs) == 2


Q = torch.zeros(2, 4, 3, 8)
K = torch.zeros(2, 2, 7, 8)
TABLE = torch.zeros(6, 4)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"scale": "10"}, TypeError, "scale is a str; a float or a tensor fits"),
    ({"scale": torch.ones(3)}, ValueError, r"scale has shape \(3,\); \(\) or \(4,\) fits; query"),
    (
        {"scale_bound": 0.0},
        ValueError,
        "scale_bound is 0.0; a positive finite number of float32 fits",
    ),
    ({"lengths": [7, 7]}, TypeError, "lengths is a list; a tensor fits"),
    ({"lengths": torch.ones(2)}, TypeError, "lengths is torch.float32; int32 or int64 fits"),
    ({"lengths": torch.ones(3).int()}, ValueError, r"lengths has shape \(3,\); \(2,\) fits; query"),
    ({"lengths": torch.ones(2, 1).int()}, ValueError, r"lengths has shape \(2, 1\)"),
    ({"lengths": torch.ones(2).int().to("meta")}, ValueError, "lengths on meta; one device fits"),
    ({"window": 0}, ValueError, "window is 0; at least 1 fits"),
    ({"prefix": -1}, ValueError, "prefix is -1; at least 0 fits"),
    ({"norm": "L2"}, ValueError, "norm is 'L2'; 'l2', 'rms', 'layer' or None fits"),
    ({"eps": 0.0}, ValueError, "eps is 0.0; a positive finite number of float32 fits"),
    ({"query_weight": TABLE}, ValueError, r"query_weight has shape \(6, 4\); \(8,\) fits; query"),
    ({"rope": TABLE}, TypeError, "rope is a Tensor; a pair of tensors"),
    ({"rope": (TABLE, TABLE)}, ValueError, r"two of \(at least 7, 4\) fit; query"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": Q, "key_cache": K, "value_cache": K, "scale": 10.0}
    check_refused(cosine_decode, error, message, right | wrong)


def test_bound_of_a_scale_is_the_callers_promise():
    """The keys may have been prepared with a gain below 1, which nothing here can tell."""
    out = cosine_decode(Q, K, K + 1, scale=9.0, scale_bound=1.0)
    assert torch.equal(out, Q + 1)
