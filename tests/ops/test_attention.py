"""What holds for every attention op in the same form, and which query sees which key."""

import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyseq.ops import attention
from pyseq.ops.adaptive_attention import adaptive_attention
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.cosine_decode import cosine_decode
from pyseq.ops.hard_attention import hard_attention
from tests.correctness import (
    Arguments,
    backends_of,
    check_refused,
    random,
    sees,
    served,
    undocumented_parameters,
)
from tests.ops.attention_inputs import NORMS, angles, attention_inputs, scales

Outputs = tuple[Tensor, ...]  # (B, H, T, D), and for hard_attention the index (B, H, T)


def adaptive(query: Tensor, key: Tensor, value: Tensor, *, backend: str, **options: Any) -> Outputs:
    return (served(adaptive_attention, backend)(query, key, value, **options),)


def cosine(query: Tensor, key: Tensor, value: Tensor, *, backend: str, **options: Any) -> Outputs:
    return (served(cosine_attention, backend)(query, key, value, **options),)


def hard(query: Tensor, key: Tensor, value: Tensor, *, backend: str, **options: Any) -> Outputs:
    return served(hard_attention, backend)(query, key, value, return_index=True, **options)


def decode(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, backend: str, **options: Any
) -> Outputs:
    assert causal
    return (served(cosine_decode, backend)(query, key, value, **options),)


def ragged_decode(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Outputs:
    return decode(query, key, value, lengths=lengths_of(*key.shape[::2]), **options)


def lengths_of(B: int, S: int) -> Tensor:
    """Of a ragged cache: every entry is three keys shorter than the one before it."""
    return (S - 3 * torch.arange(B)).clamp(min=0)


ATTENTIONS: dict[str, Callable[..., Outputs]] = {
    "adaptive_attention": adaptive,
    "cosine_attention": cosine,
    "cosine_decode": decode,
    "cosine_decode-ragged": ragged_decode,
    "hard_attention": hard,
}


def op_of(name: str) -> str:
    return name.split("-")[0]


SERVED = [(name, backend) for name in ATTENTIONS for backend in backends_of(op_of(name))]
of_every_attention = pytest.mark.parametrize(("name", "backend"), SERVED)


def of(*names: str) -> Any:
    """Only of some."""
    return pytest.mark.parametrize(("name", "backend"), [x for x in SERVED if x[0] in names])


def inputs(name: str, *, gains: bool = False, H: int = 2, D: int = 8, **sizes: int) -> Arguments:
    """The op's tensors in float32, with its scale and, if asked for, its gains."""
    x = {n: y.float() for n, y in attention_inputs(H=H, D=D, **sizes).items()}
    if "cosine" not in name:
        return x
    x["scale"] = scales(H)
    if "decode" in name:  # prepared keys
        x["key"] /= x["key"].norm(dim=-1, keepdim=True)
    if gains:
        x["query_weight"] = torch.linspace(0.5, 1.5, D)
    if gains and "decode" not in name:
        x["key_weight"] = torch.linspace(1.5, 0.5, D)
    return x


def leaves_of(x: Arguments) -> Arguments:
    return {name: y.detach().clone().requires_grad_() for name, y in x.items()}


@of_every_attention
@pytest.mark.parametrize(("T", "S"), [(70, 70), (5, 70)])
def test_future_keys_do_not_matter(T, S, name, backend):
    x = inputs(name, T=T, S=S)
    before = ATTENTIONS[name](**x, causal=True, backend=backend)
    x["key"][:, :, -1] = x["query"][:, :1, -1] * 100  # the best of all for the last query
    x["value"][:, :, -1] = -7.0
    after = ATTENTIONS[name](**x, causal=True, backend=backend)
    for was, now in zip(before, after, strict=True):
        assert torch.equal(was[:, :, :-1], now[:, :, :-1])
        assert not torch.equal(was[:, :, -1], now[:, :, -1])


def everything_seen(name: str) -> Arguments:
    """By the last query, and but for cosine_decode by all."""
    return {"causal": "decode" in name}


@of("adaptive_attention", "cosine_attention", "cosine_decode")
def test_order_of_keys_does_not_matter(name, backend):
    x = inputs(name, T=1 if name == "cosine_decode" else 5, S=67)
    [out] = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    order = torch.randperm(67, generator=torch.Generator().manual_seed(1))
    x["key"], x["value"] = x["key"][:, :, order], x["value"][:, :, order]
    [again] = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    torch.testing.assert_close(out, again, rtol=1e-5, atol=1e-5)


@of_every_attention
def test_repeated_key_heads_equal_plain_heads(name, backend):
    x = leaves_of(inputs(name, B=2, H=6, G=2, T=7, S=7))
    repeated = x | {n: x[n].repeat_interleave(3, dim=1) for n in ("key", "value")}
    shared, plain = (
        ATTENTIONS[name](**tensors, causal=True, backend=backend) for tensors in (x, repeated)
    )
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)
    found, expected = (
        torch.autograd.grad(out.square().sum(), list(x.values())) for out, *_ in (shared, plain)
    )
    # Gradients of up to 20, of which float32 leaves up to 1.4e-5 to the order of the sums.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@of("adaptive_attention", "cosine_attention", "cosine_decode")
def test_ties_share_evenly(name, backend):
    x = inputs(name, T=1 if name == "cosine_decode" else 3, S=6)
    x["key"] = x["key"][:, :, :1].expand(1, 1, 6, 8)
    [out] = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    expected = x["value"].mean(2, keepdim=True).expand_as(out)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@of("cosine_attention", "cosine_decode", "hard_attention")
def test_length_of_a_query_does_not_matter(name, backend):
    x = inputs(name, T=70, S=70)
    expected = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    x["query"] = x["query"] * random(1, 2, 70, 1, seed=5).abs().add(0.1).float()
    found = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@of("cosine_attention", "cosine_decode")
def test_a_scale_that_is_a_number_is_a_constant_tensor(name, backend):
    x = inputs(name) | {"scale": torch.tensor(7.0)}
    [out] = ATTENTIONS[name](**x, **everything_seen(name), backend=backend)
    number = x | {"scale": 7.0, "scale_bound": 7.0}
    [same] = ATTENTIONS[name](**number, **everything_seen(name), backend=backend)
    if backend == "reference":
        assert torch.equal(out, same)
    else:  # which leaves the running maximum out where it knows a bound
        torch.testing.assert_close(out, same, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "backend", "causal"),
    [(*x, True) for x in SERVED] + [(*x, False) for x in SERVED if "decode" not in x[0]],
)
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0), (2, 4, 0, 0)])
def test_empty(shape, causal, name, backend):
    B, H, T, S = shape
    x = leaves_of(inputs(name, gains=True, B=B, H=H, G=2, T=T, S=S))
    options = {}
    if "cosine" in name:
        options = {"prefix": 2, "rope": tuple(table.float() for table in angles(S, 8))}
    out, *index = ATTENTIONS[name](**x, **options, causal=causal, backend=backend)
    assert out.shape == (B, H, T, 8)
    assert not out.any()
    assert all(torch.equal(i, torch.full((B, H, T), -1)) for i in index)
    zeros = tuple(torch.zeros_like(y) for y in x.values())
    found = torch.autograd.grad(out.sum(), list(x.values()))
    torch.testing.assert_close(found, zeros, rtol=0, atol=0)


@of_every_attention
def test_a_query_that_sees_no_key_spoils_nothing(name, backend):
    """Whatever its values and its gradient are, it gives zeros and has no share in a gradient."""
    x = inputs(name, T=9, S=6)
    gradient = random(1, 2, 9, 8, seed=4).float()
    runs = []
    for bad in (1.0, math.nan, math.inf):
        x["query"][:, :, :3] = bad
        gradient[:, :, :3] = bad
        leaves = leaves_of(x)
        out, *index = ATTENTIONS[name](**leaves, causal=True, backend=backend)
        d_query, *rest = torch.autograd.grad(out, list(leaves.values()), gradient)
        assert not out[:, :, :3].any()
        assert all((i[:, :, :3] == -1).all() for i in index)
        assert out[:, :, 3:].all()
        assert d_query[:, :, 5:].all()
        if bad == 1:
            assert not d_query[:, :, :3].any()
        runs.append((out, d_query[:, :, 3:], *rest))
    assert all(map(torch.equal, runs[0], runs[1]))
    assert all(map(torch.equal, runs[0], runs[2]))


@of_every_attention
@pytest.mark.parametrize("padding", [math.nan, math.inf])
def test_bad_future_under_a_loss_on_the_past(padding, name, backend):
    """The usual shape of trouble: padding holds NaN, causality and the loss leave it out."""
    x = inputs(name, T=8, S=8)
    past = {n: y[:, :, :5] if y.dim() == 4 else y for n, y in x.items()}
    clean = leaves_of(past)
    for n in ("query", "key", "value"):
        x[n][:, :, 5:] = padding
    padded = leaves_of(x)
    out, *index = ATTENTIONS[name](**padded, causal=True, backend=backend)
    out = out[:, :, :5]
    expected, *chosen = ATTENTIONS[name](**clean, causal=True, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(i[:, :, :5], j) for i, j in zip(index, chosen, strict=True))
    found = torch.autograd.grad(out.square().sum(), list(padded.values()))
    wanted = torch.autograd.grad(expected.square().sum(), list(clean.values()))
    for n, grad, short in zip(x, found, wanted, strict=True):
        grad, rest = (grad[:, :, :5], grad[:, :, 5:]) if grad.dim() == 4 else (grad, None)
        torch.testing.assert_close(grad, short, rtol=1e-5, atol=1e-5)
        if rest is not None and (n == "value" or "cosine" not in name):
            assert not rest.any()  # a norm of NaN makes NaN of its own gradient


NORMS_OF = {name: NORMS if "cosine" in name else [None] for name in ATTENTIONS}


def reached_by(
    spoilt: str, row: int, visible: Tensor, B: int, H: int, G: int
) -> tuple[Tensor, Tensor]:
    """The queries (B, H, T) and keys (B, G, S) that a bad row [1, 1, row] reaches."""
    T, S = visible.shape
    queries = torch.zeros(B, H, T, dtype=torch.bool)
    if spoilt in ("key", "value"):
        queries[1, H // G : 2 * H // G, visible[:, row]] = True
    else:
        queries[1, 1, row] = True
    keys = torch.zeros(B, G, S, dtype=torch.bool)
    for h, t in queries[1].nonzero().tolist():
        keys[1, h * G // H] |= visible[t]
    return queries, keys


# One row is spoilt; whatever may not see it must be what it was, forward and backward.
SPOILT_ROW = 6
SPOILT_SIZES = {"B": 2, "H": 4, "G": 2}


def one_call(name: str, norm: str | None, backend: str, x: Arguments, gradient: Tensor) -> Outputs:
    """The outputs under a causal mask, of cosine attentions a window too, and all gradients."""
    leaves = leaves_of(x)
    options = {"norm": norm, "window": 3} if "cosine" in name else {}
    outputs = ATTENTIONS[name](**leaves, **options, causal=True, backend=backend)
    return *outputs, *torch.autograd.grad(outputs[0], list(leaves.values()), gradient)


@functools.cache
def clean_case(name: str) -> tuple[Arguments, Tensor, Tensor]:
    """Tensors, a gradient of the output, and which query sees which key (T, S)."""
    x = inputs(name, gains=True, **SPOILT_SIZES, T=12, S=12)
    (B, _, T, _), S = x["query"].shape, x["key"].shape[2]
    n = int(lengths_of(B, S)[1]) if "ragged" in name else S
    window = 3 if "cosine" in name else None
    visible = torch.tensor(
        [[s < n and sees(t, s, T, n, True, window, 0) for s in range(S)] for t in range(T)]
    )
    return x, random(*x["query"].shape, seed=4).float(), visible


@functools.cache
def clean_call(name: str, norm: str | None, backend: str, without: str | None = None) -> Outputs:
    """Of the clean tensors; `without` drops what a spoilt row of that name reaches."""
    x, gradient, visible = clean_case(name)
    if without is not None:
        queries, _ = reached_by(without, SPOILT_ROW, visible, **SPOILT_SIZES)
        gradient = gradient.masked_fill(queries[..., None], 0)
    return one_call(name, norm, backend, x, gradient)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["query", "key", "value", "gradient"])
@pytest.mark.parametrize(
    ("name", "norm", "backend"),
    [(name, norm, backend) for name, backend in SERVED for norm in NORMS_OF[name]],
)
def test_bad_rows_stay_alone(name, norm, spoilt, bad, backend):
    clean, gradient, visible = clean_case(name)
    row = SPOILT_ROW
    dirty = {m: x.clone() for m, x in (clean | {"gradient": gradient}).items()}
    dirty[spoilt][1, 1, row, 5] = bad
    bad_gradient = dirty.pop("gradient")
    queries, keys = reached_by(spoilt, row, visible, **SPOILT_SIZES)
    before = clean_call(name, norm, backend)
    after = one_call(name, norm, backend, dirty, bad_gradient)
    of_outputs = [queries] * (len(before) - len(clean))
    reached = [*of_outputs, queries, keys, keys]
    for i, (was, now, touched) in enumerate(zip(before, after, reached, strict=False)):
        torch.testing.assert_close(now[~touched], was[~touched], rtol=1e-5, atol=1e-5)
        if i < len(of_outputs) and spoilt == "gradient":
            assert torch.equal(now, was)
        elif name != "hard_attention" and (i < len(of_outputs)) != (spoilt == "gradient"):
            check_spoilt(now[touched], backend)
    if name == "hard_attention":
        return  # its copies are not NaN: its own tests say what they are
    parameters = dict(zip(list(clean)[3:], after[4:], strict=True))
    if spoilt == "gradient":
        for parameter, grad in parameters.items():
            of_head = [False, True, False, False] if parameter == "scale" else [True] * 8
            assert grad.isfinite().logical_not().tolist() == of_head
        return
    # Outputs that are NaN have no share in the sums.
    without = clean_call(name, norm, backend, without=spoilt)
    for m, was, now in zip(clean, without[1:], after[1:], strict=True):
        was, now = was.clone(), now.clone()
        if m == spoilt:  # a norm of NaN makes NaN of its own gradient
            was[1, 1, row] = now[1, 1, row] = 0
        if backend != "reference":  # where it makes NaN of its partner's too
            if m == "query":
                was[queries] = now[queries] = 0
            if m in ("key", "value") and spoilt in ("key", "value"):
                was[1, 1, row] = now[1, 1, row] = 0
        torch.testing.assert_close(now, was, rtol=1e-5, atol=1e-5)


def check_spoilt(rows: Tensor, backend: str) -> None:
    """The reference makes NaN of whole rows; a fused backend leaves what it computed."""
    if backend == "reference":
        assert rows.isnan().all()
    else:
        assert rows.isfinite().all(-1).logical_not().all()


@of("cosine_attention", "cosine_decode", "adaptive_attention")
@pytest.mark.parametrize("bound", [None, 30.0])
def test_a_key_whose_logits_are_all_minus_infinity_reaches_who_sees_it(name, backend, bound):
    """Among so many keys that its tile needs no mask: its weight would be 0, and rows finite."""
    x = {part: y.abs() for part, y in inputs(name, **SPOILT_SIZES, T=3, S=200).items()}
    for part in ("query", "key"):  # so that the bound is one
        x[part] /= x[part].norm(dim=-1, keepdim=True)
    before = x["key"].clone()
    x["key"][1, 1, 40, 5] = -math.inf
    options: Arguments = {"norm": None, "scale_bound": bound} if "cosine" in name else {}

    def attend(backend: str, key: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the gradient of value."""
        leaves = leaves_of(x | {"key": key})
        [output] = ATTENTIONS[name](**leaves, **options, causal=True, backend=backend)
        [gradient] = torch.autograd.grad(output.sum(), leaves["value"])
        return output.detach(), gradient

    clean, _ = attend(backend, before)
    spoilt, gradient = attend(backend, x["key"])
    _, expected = attend("reference", x["key"])
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
    assert spoilt[1, 2:].isfinite().all(-1).logical_not().all()
    torch.testing.assert_close(spoilt[0], clean[0])
    torch.testing.assert_close(spoilt[1, :2], clean[1, :2])


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


Q, K = zeros(2, 4, 5, 8), zeros(2, 2, 7, 8)
Wrong = list[tuple[dict[str, Any], type[Exception], str]]


def wrong_tensors(key: str, value: str) -> Wrong:
    both = f"{key} and {value}"
    return [
        ({"query": [1]}, TypeError, "query is a list; a tensor fits"),
        ({key: Q.long()}, TypeError, f"{key} is torch.int64; float32, bfloat16"),
        ({value: K.half()}, TypeError, f"{value} torch.float16; one dtype fits"),
        ({key: K.to("meta")}, ValueError, f"{key} on meta, {value} on cpu; one device fits"),
        ({key: K[0]}, ValueError, f"4, 3 and 4 dimensions; query .B, H, T, D. and {both} .B, G"),
        ({key: zeros(3, 2, 7, 8)}, ValueError, "batches of 2 and 3; equal batches fit; query"),
        ({key: K[..., :6]}, ValueError, "head widths 8 and 6; equal widths"),
        ({"query": Q[..., :0], key: K[..., :0]}, ValueError, "head widths 0 and 0; .* least 1 fit"),
        ({value: K[:, :, :6]}, ValueError, f"{both} differ; both .B, G, S, D. fit; query"),
        ({"query": Q[:, :3]}, ValueError, "3 query heads cannot share 2 key heads; H must be"),
        ({"query": zeros(2, 5, 5, 8)}, ValueError, "5 query heads cannot share 2 key heads"),
        ({"query": Q[:, :0]}, ValueError, "0 query heads cannot share 2 key heads"),
        ({key: K[:, :0], value: K[:, :0]}, ValueError, "4 query heads cannot share 0 key heads"),
    ]


WRONG_FLAGS: Wrong = [({"causal": 1}, TypeError, "causal is a int; True or False fits")]
WRONG_NUMBERS: Wrong = [
    ({"scale": "10"}, TypeError, "scale is a str; a float fits"),
    ({"scale": True}, TypeError, "scale is a bool"),
    ({"scale": torch.ones(())}, TypeError, "scale is a Tensor; a float fits"),
    ({"scale": math.nan}, ValueError, "scale is nan; a positive finite number of float32 fits"),
    ({"scale": math.inf}, ValueError, "scale is inf; a positive finite number of float32 fits"),
    ({"scale": 0.0}, ValueError, "scale is 0.0; a positive finite number of float32 fits"),
    ({"scale": -1.0}, ValueError, "scale is -1.0; a positive finite number of float32 fits"),
    ({"scale": -1}, ValueError, "scale is -1; a positive finite number of float32 fits"),
]
WRONG = {
    adaptive_attention: wrong_tensors("key", "value") + WRONG_FLAGS + WRONG_NUMBERS,
    cosine_attention: wrong_tensors("key", "value") + WRONG_FLAGS,
    cosine_decode: wrong_tensors("key_cache", "value_cache"),
    hard_attention: wrong_tensors("key", "value") + WRONG_FLAGS + WRONG_NUMBERS,
}


@pytest.mark.parametrize(
    ("op", "wrong", "error", "message"), [(op, *row) for op, rows in WRONG.items() for row in rows]
)
def test_errors(op, wrong, error, message):
    suffix = "_cache" if op is cosine_decode else ""
    right = {"query": Q, f"key{suffix}": K, f"value{suffix}": K}
    if op in (cosine_attention, cosine_decode):
        right["scale"] = 10.0
    check_refused(op, error, message, right | wrong)


def test_visibility():
    visible = attention.visibility(3, 5, causal=True, window=2, prefix=1)
    assert visible.int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    for T, S, causal, window, prefix in itertools.product(
        range(4), range(4), [False, True], [None, 1, 2], [0, 1]
    ):
        visible = attention.visibility(T, S, causal=causal, window=window, prefix=prefix)
        expected = [[sees(t, s, T, S, causal, window, prefix) for s in range(S)] for t in range(T)]
        assert visible.tolist() == expected
        first = next((t for t in range(T) if any(expected[t])), T)
        assert attention.first_seeing_row(T, S, causal, window, prefix) == first
    assert undocumented_parameters(attention.visibility) == []


@of_every_attention
def test_finite_but_huge_future_does_not_matter(name, backend):
    """Scores beyond float32 are infinite or, where infinities meet, NaN; hidden, they are none."""
    x = inputs(name, T=12, S=12)
    options = {"causal": True, "backend": backend} | ({"norm": None} if "cosine" in name else {})
    huge = x | {n: x[n].clone() for n in ("query", "key", "value")}
    for n in ("query", "key"):
        huge[n][:, :, 8:] = 3e38 * huge[n][:, :, 8:].sign()
    runs = []
    for tensors in (x, huge):
        leaves = leaves_of(tensors)
        out, *_ = ATTENTIONS[name](**leaves, **options)
        grads = torch.autograd.grad(out[:, :, :8].square().sum(), list(leaves.values()))
        runs.append((out[:, :, :8], *(g[:, :, :8] for g in grads if g.dim() == 4)))
    for was, now in zip(*runs, strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("op", ["cosine_attention", "cosine_decode", "adaptive_attention"])
def test_a_gradient_whose_features_lie_far_apart_is_brought_near(op, monkeypatch):
    """Kernels count 32 bits from the first feature of a row to the last."""
    kernels = op.replace("decode", "attention")  # whose backward is the other's
    module = importlib.import_module(f"pyseq.kernels.{kernels}.backward")
    brought = []
    monkeypatch.setattr(module, "near_rows", lambda grad: brought.append(grad) or grad)
    leaves = leaves_of(inputs(op, T=3, S=5))
    options = {"causal": True, "backend": "triton"}
    [output] = ATTENTIONS[op](**leaves, **options)
    gradient = torch.ones_like(output)
    torch.autograd.grad(output, list(leaves.values()), gradient)
    assert [grad.shape for grad in brought] == [gradient.shape]
