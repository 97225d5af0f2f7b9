"""pyseq.ops.softmax_attention against a loop over queries, on every backend."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pyseq.ops.softmax_attention import reference, softmax_attention
from tests.correctness import (
    DOUBLE,
    DTYPES,
    backends_of,
    check_options,
    check_refused,
    check_written_gradient,
    pairwise,
    random,
    sees,
    served,
    served_dtype,
)
from tests.ops import dropout_oracle
from tests.ops.attention_inputs import STRIDES, attention_inputs

BACKENDS = backends_of("softmax_attention")


def oracle(query, key, value, *, scale=None, causal=False, lengths=None, dropout=0.0, seed=0):
    """One query at a time, over the keys that it sees."""
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    scale = D**-0.5 if scale is None else scale
    rows = []
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        seen = [s for s in range(S) if sees(t, s, T, S, causal, None, 0)]
        if lengths is not None:
            seen = [s for s in seen if s < int(lengths[b])]
        if not seen:
            rows.append((query[b, h, t] + key[b].sum() + value[b].sum()) * 0)
            continue
        logits = key[b, h * G // H, seen] @ query[b, h, t] * scale
        mass = (logits - logits.max()).exp()
        weights = mass / mass.sum()
        if dropout > 0:
            weights = weights * dropout_oracle.factors(seed, (b, h, t), S, dropout)[seen]
        rows.append(weights @ value[b, h * G // H, seen])
    return torch.stack(rows).view(B, H, T, D)


def specification(
    query, key, value, *, scale=None, causal=False, lengths=None, dropout=0.0, seed=0
):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return reference.attend(query, key, value, lengths, torch.tensor(seed), scale, causal, dropout)


def check(tensors, dtype, backend, **options):
    check_options(softmax_attention, oracle, specification, tensors, dtype, backend, **options)


# The kernels hold 4 queries, and keys in vectors of 4 to 16, blocks of 32 and 128.
SIZES = [(1, 1), (1, 33), (3, 16), (4, 17), (5, 31), (7, 32), (9, 130), (30, 5), (131, 40)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("D", [1, 2, 3, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S"), SIZES)
def test_sizes_around_a_block(T, S, causal, D, backend):
    check(attention_inputs(T=T, S=S, D=D), torch.float32, backend, causal=causal)


PAIRS = pairwise(
    dtype=DTYPES,
    heads=[(2, 2), (4, 1), (6, 3)],
    D=[2, 4, 5, 16, 64, 80],
    T=[1, 9, 12],
    S=[1, 9, 40],
    causal=[False, True],
    lengths=[None, (3, 0), (50, 7), (-2, 1)],
    scale=[None, 0.05, 1.0],
    dropout=[0.0, 0.1, 0.6],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    H, G = case["heads"]
    tensors = attention_inputs(B=2, H=H, G=G, T=case["T"], S=case["S"], D=case["D"])
    tensors = {name: STRIDES[case["strides"]](x) for name, x in tensors.items()}
    options = {name: case[name] for name in ("scale", "causal", "dropout")}
    lengths = None if case["lengths"] is None else torch.tensor(case["lengths"])
    check(tensors, case["dtype"], backend, lengths=lengths, seed=11, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_keys_and_queries(backend):
    """Several tasks a head, and several blocks of keys; the oracle of loops would take minutes."""
    tensors = attention_inputs(B=1, H=2, G=1, T=300, S=310, D=2)
    options = {"causal": True, "dropout": 0.2, "seed": 5, "lengths": torch.tensor([301])}
    check_options(
        softmax_attention, specification, specification, tensors, torch.float32, backend, **options
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_pytorchs_attention(backend):
    x = {name: y.float() for name, y in attention_inputs(B=2, H=5, G=5, T=40, S=40).items()}
    lengths = torch.tensor([40, 13])
    mask = torch.ones(40, 40).tril().bool() & (torch.arange(40) < lengths[:, None, None, None])
    expected = scaled_dot_product_attention(**x, attn_mask=mask)
    found = served(softmax_attention, backend)(**x, causal=True, lengths=lengths)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_right_on_average(backend):
    x = {name: y.float() for name, y in attention_inputs(B=1, H=2, G=2, T=3, S=6, D=2).items()}
    plain = softmax_attention(**x, backend=backend)
    draws = torch.stack(
        [softmax_attention(**x, dropout=0.3, seed=i, backend=backend) for i in range(4000)]
    ).double()
    error = (draws.mean(0) - plain).abs() / (draws.std(0) / math.sqrt(4000))
    assert float(error.max()) < 5
    assert float(draws.std(0).min()) > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_int_and_a_tensor_are_the_same_seed(backend):
    x = {name: y.float() for name, y in attention_inputs(T=9, S=9).items()}
    found = [
        softmax_attention(**x, dropout=0.5, seed=seed, backend=backend)
        for seed in (7, torch.tensor(7), 8)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_new_seed_is_no_new_compilation():
    x = {name: y.float() for name, y in attention_inputs(T=9, S=9).items()}
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(softmax_attention, fullgraph=True, backend=count)
    for seed in range(5):
        found = compiled(**x, dropout=0.5, seed=torch.tensor(seed))
        assert torch.equal(found, softmax_attention(**x, dropout=0.5, seed=seed))
    assert len(graphs) == 1


def anti_aligned(directions, T):
    """Every logit is far below 0, where a maximum that starts at 0 would let all underflow.

    Many directions: how the products of one of them are rounded, which is most of the error there
    is, is a matter of luck.
    """
    tensors = attention_inputs(B=directions, H=1, G=1, T=T, S=70, D=4)
    direction = random(directions, 1, 1, 4, seed=7)
    tensors["query"] = direction.expand(-1, -1, T, -1).contiguous()
    tensors["key"] = -direction * (1 + random(directions, 1, 70, 1, seed=8).abs())
    return tensors


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [0.3, 10.0])
def test_anti_aligned_keys(scale, backend):
    check(anti_aligned(64, 2), torch.float32, backend, scale=scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_large_logits_are_as_exact_as_in_pytorch(scale, backend):
    """On average: the largest error is one of few keys that are nearly as good as the best.

    But for the query's gradient, from which what was rounded of the output is not cancelled.
    """
    single = {name: x.float() for name, x in anti_aligned(4000, 1).items()}
    double = {name: x.double() for name, x in single.items()}
    grad = random(4000, 1, 1, 4, seed=4).float()
    exact = with_gradients(specification, double, grad.double(), scale=scale)
    theirs = with_gradients(specification, single, grad, scale=scale)
    ours = with_gradients(served(softmax_attention, backend), single, grad, scale=scale)
    for name, truth, peer, found in zip(["out", *single], exact, theirs, ours, strict=True):
        assert found.isfinite().all()
        errors = [(x.double() - truth).abs().mean() for x in (found, peer)]
        assert errors[0] <= (5 if name == "query" else 1.5) * errors[1]


def with_gradients(op, tensors, grad, **options):
    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    out = op(*leaves, **options)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["query", "key", "value", "grad"])
def test_what_is_not_finite_reaches_what_depends_on_it_and_nothing_else(name, bad, backend):
    x = {n: y.float() for n, y in attention_inputs(B=2, H=4, G=2, T=20, S=22, D=3).items()}
    grad = random(2, 4, 20, 3, seed=4).float()
    options = {"causal": True, "lengths": torch.tensor([22, 15]), "dropout": 0.2}
    clean = with_gradients(softmax_attention, x, grad, **options, backend=backend)
    spoiled = {n: y.clone() for n, y in (x | {"grad": grad}).items()}
    spoiled[name][0, 1, 9, 1] = bad
    found = with_gradients(
        softmax_attention, {n: spoiled[n] for n in x}, spoiled["grad"], **options, backend=backend
    )

    # Key 9 is seen by queries 7 and later, and query 9 sees keys up to 11; head 1 is of key heads 0
    # (as a query head) and 1 (as a key head).
    rows, columns = torch.zeros(2, 4, 20, dtype=bool), torch.zeros(2, 2, 22, dtype=bool)
    if name in ("key", "value"):
        rows[0, 2:, 7:] = True
    elif name == "query":
        rows[0, 1, 9] = True
    if name == "grad":
        columns[0, 0, :12] = True
    out, d_query, d_key, d_value = found
    assert torch.equal(out.isnan().any(-1), rows)
    assert torch.equal(out[~rows], clean[0][~rows])
    lost = torch.zeros_like(rows)
    lost[0, 1, 9] = name == "grad"
    assert torch.equal(d_query.isnan().all(-1), lost)
    assert torch.equal(d_key.isnan().all(-1), columns)
    assert torch.equal(d_value.isnan().all(-1), columns)
    assert torch.equal(d_query[~rows & ~lost], clean[1][~rows & ~lost])
    assert bool((d_query[rows] == 0).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_keys_have_no_gradient_and_may_hold_anything(backend):
    x = {name: y.float() for name, y in attention_inputs(B=2, T=6, S=9).items()}
    lengths = torch.tensor([4, 0])
    options = {"lengths": lengths, "dropout": 0.2}
    grad = random(2, 2, 6, 8, seed=4).float()
    clean = with_gradients(softmax_attention, x, grad, **options, backend=backend)
    for name in ("key", "value"):
        x[name][0, :, 4:] = math.nan
        x[name][1] = math.inf
    found = with_gradients(softmax_attention, x, grad, **options, backend=backend)
    assert all(map(torch.equal, clean, found))
    out, d_query, d_key, d_value = found
    assert bool((out[1] == 0).all())
    assert bool((d_query[1] == 0).all())
    for gradient in (d_key, d_value):
        assert bool((gradient[0, :, 4:] == 0).all())
        assert bool((gradient[1] == 0).all())
        assert bool((gradient[0, :, :4] != 0).any(-1).all())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("B", "T", "S"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(B, T, S, backend):
    x = {name: y.float().requires_grad_() for name, y in attention_inputs(B=B, T=T, S=S).items()}
    lengths = torch.full((B,), 2)
    out = softmax_attention(**x, lengths=lengths, dropout=0.1, backend=backend)
    assert out.shape == (B, 2, T, 8)
    assert bool((out == 0).all())
    for leaf, found in zip(
        x.values(), torch.autograd.grad(out.sum(), list(x.values())), strict=True
    ):
        assert found.shape == leaf.shape
        assert bool((found == 0).all())


CASES = [
    {},
    {"causal": True, "dropout": 0.3, "seed": 4},
    {"causal": True, "lengths": torch.tensor([7, 0])},
]


@pytest.mark.parametrize("options", CASES)
def test_the_written_gradient_is_autograds(options):
    tensors = attention_inputs(B=2, H=4, G=2, T=9, S=8)
    leaves = [x.requires_grad_() for x in tensors.values()]
    ours = softmax_attention(*leaves, **options, backend="reference")
    check_written_gradient(specification(*leaves, **options), ours, leaves)


def test_gradcheck():
    leaves = [x.requires_grad_() for x in attention_inputs(B=2, T=4, S=5, D=3).values()]
    options = {"causal": True, "lengths": torch.tensor([5, 3]), "dropout": 0.3, "seed": 2}
    assert torch.autograd.gradcheck(
        lambda *x: softmax_attention(*x, **options, backend="reference"), leaves
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    dtype = served_dtype(backend, DOUBLE)
    leaves = [x.to(dtype).requires_grad_() for x in attention_inputs(B=2, T=6, S=7).values()]
    arguments = (*leaves, torch.tensor([7, 2]), torch.tensor(3), 0.5, True, 0.25, backend)
    torch.library.opcheck(torch.ops.pyseq.softmax_attention.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_measures(backend):
    """What the backward restores the weights from, beside float64."""
    x = {n: y.float() for n, y in attention_inputs(H=4, G=2, T=9, S=6).items()}
    x["query"][0, 1, 7, 0] = math.nan
    options = (None, torch.tensor(0), 0.7, True, 0.5, backend)
    _, measures = torch.ops.pyseq.softmax_attention(*x.values(), *options)
    products = x["query"].double() @ x["key"].double().repeat_interleave(2, 1).mT
    products = products.masked_fill(~torch.ones(9, 6).tril(-3).bool(), -math.inf)
    best = products.amax(-1)
    expected = torch.stack([best, (0.7 * (products - best[..., None])).logsumexp(-1)])
    expected[:, :, :, :3] = 0
    torch.testing.assert_close(measures.double(), expected, rtol=0, atol=1e-5, equal_nan=True)


def arguments(**changes):
    x = {name: y.float() for name, y in attention_inputs(B=2).items()}
    return x | changes


REFUSED = [
    (ValueError, "scale is 0; a positive finite number", {"scale": 0}),
    (TypeError, "causal is a int; True or False fits", {"causal": 1}),
    (TypeError, "lengths is a list; a tensor fits", {"lengths": [5, 5]}),
    (TypeError, "lengths is torch.int32; int64 fits", {"lengths": torch.ones(2).int()}),
    (ValueError, r"lengths has shape \(3,\); \(2,\) fits;", {"lengths": torch.ones(3).long()}),
    (ValueError, "query on cpu, lengths on meta", {"lengths": torch.ones(2).long().to("meta")}),
    (ValueError, "2 query heads cannot share 4 key heads", dict.fromkeys(
        ("key", "value"), torch.ones(2, 4, 5, 8))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "changes"), REFUSED)
def test_bad_arguments_are_refused(error, message, changes):
    check_refused(softmax_attention, error, message, arguments(**changes))
