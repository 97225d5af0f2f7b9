"""pyseq.ops.hard_attention against loops and dense formulas, on every backend."""

import itertools
import math
from functools import cache, partial

import pytest
import torch

from pyseq.ops.hard_attention import hard_attention, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    backends_of,
    check_correct,
    check_refused,
    check_same_gradients,
    check_written_gradient,
    pairwise,
    place,
    random,
    sees,
    served,
    served_dtype,
)
from tests.ops.attention_inputs import SIZES, STRIDES, attention_inputs

BACKENDS = backends_of("hard_attention")
# Every backend with the dtypes that it serves where it is tested.
SERVED = [(b, dtype) for b in BACKENDS for dtype in DTYPES if served_dtype(b, dtype) == dtype]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number


def attend(*tensors, backend, **named):
    return served(hard_attention, backend)(*tensors, **named)


def singles(**sizes):
    return {name: x.float() for name, x in attention_inputs(**sizes).items()}


def integers(low, high, *shape, seed=0):
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed))


def bits(x):
    return x.contiguous().view(BITS[x.element_size()])


@cache
def visible(T, S, causal):
    rows = [[sees(t, s, T, S, causal, None, 0) for s in range(S)] for t in range(T)]
    return torch.tensor(rows, dtype=torch.bool).view(T, S)


def every_head(x, H):
    """x (B, G, ...) as every one of H query heads sees it."""
    return torch.stack([x[:, h // (H // x.shape[1])] for h in range(H)], 1)


# Two rules, because near a tie two right answers may choose differently, and a row chosen
# differently is an error of order one that no tolerance on the output can tell from a fault.
# The choice is checked by what the chosen key scores in float64. The output and the gradients are
# then checked against an oracle that is told the op's choice: the output must be the row to the
# bit, value's gradient depends on nothing but the choice, and those of query and key are the
# softmax's, which does not depend on it at all.


def check_choice(query, key, value, out, index, causal):
    """A dot product of D terms in precision eps is off by at most D eps/2 <|q|, |k|>.

    So the chosen key may lie below the best by twice that, and as much for float64's own error:
    tolerance = D (eps + eps64) max_s <|q|, |k_s|>, with eps that of the sums (float32's, or
    float64's).
    """
    (H, T, D), S = query.shape[1:], key.shape[2]
    seen = visible(T, S, causal)
    some = seen.any(-1)
    assert (index[..., ~some] == -1).all()
    assert not out[..., ~some, :].any()

    q, k = query.double()[:, :, some], every_head(key.double(), H)
    exact = (q @ k.mT).masked_fill(~seen[some], -math.inf)
    size = (q.abs() @ k.abs().mT).masked_fill(~seen[some], 0).amax(-1)
    sums = DOUBLE if query.dtype == DOUBLE else torch.float32
    tolerance = D * (torch.finfo(sums).eps + torch.finfo(DOUBLE).eps) * size
    index = index[..., some]
    chosen = exact.gather(-1, index[..., None])[..., 0]
    best, second = exact.topk(2).values.unbind(-1) if S > 1 else (exact[..., 0], -math.inf)
    assert (best - chosen <= tolerance).all()
    clear = best - second > tolerance
    assert torch.equal(index[clear], exact.argmax(-1)[clear])
    assert clear.double().mean() > 0.9  # or the line above would say little

    place = index[..., None].expand(*index.shape, D)
    rows = bits(every_head(value, H)).gather(2, place)
    assert torch.equal(bits(out[:, :, some]), rows)


def oracle(query, key, value, index, scale=None, causal=False):
    """Straight-through at the given choice: one query at a time, one formula per line."""
    (B, H, T, D), (_, G, S, _) = query.shape, key.shape
    scale = 1 / math.sqrt(D) if scale is None else scale
    rows = []
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        g = h // (H // G)
        seen = [s for s in range(S) if sees(t, s, T, S, causal, None, 0)]
        if not seen:
            rows.append(query.new_zeros(D))
            continue
        logits = scale * (key[b, g, seen] @ query[b, h, t])
        mass = torch.exp(logits - float(logits.detach().max()))
        soft = mass @ value[b, g, seen].detach() / mass.sum()
        rows.append(value[b, g, index[b, h, t]] + (soft - soft.detach()))
    return torch.stack(rows).view(B, H, T, D)


def check(tensors, dtype, backend, causal=False, scale=None):
    dtype = served_dtype(backend, dtype)
    op = partial(attend, causal=causal, backend=backend, return_index=True)
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    out, index = op(**rounded)
    check_choice(**rounded, out=out, index=index, causal=causal)

    def ours(query, key, value):
        out, again = op(query, key, value, scale=scale)
        assert torch.equal(again, index)
        return out

    def specification(query, key, value):
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        return reference.straight_through(query, key, value, index, factor, causal)

    exact = partial(oracle, index=index, scale=scale, causal=causal)
    check_correct(ours, exact, specification, tensors, dtype)


# The sizes around a tile of 64 keys or queries, in full; everything else meets pairwise below. For
# Triton, whose interpreter is slow, without 63: another size that is not full, as 65 is.
SIZED = [
    (b, T, S) for b in BACKENDS for T in SIZES for S in SIZES if b != "triton" or 63 not in (T, S)
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("backend", "T", "S"), SIZED)
def test_sizes_around_a_tile(T, S, causal, backend):
    tensors = attention_inputs(T=T, S=S)
    check(tensors, torch.float32, backend, causal=causal)
    for dtype in (d for b, d in SERVED if b == backend and d != torch.float32):
        rounded = {name: x.to(dtype) for name, x in tensors.items()}
        out, index = attend(**rounded, causal=causal, return_index=True, backend=backend)
        check_choice(**rounded, out=out, index=index, causal=causal)


PAIRS = pairwise(
    dtype=DTYPES,
    heads=[(2, 2), (4, 1), (6, 3)],
    D=[32, 64, 80, 96, 128, 256],
    T=[1, 9, 12],
    S=[1, 9, 12],
    causal=[False, True],
    scale=[None, 0.03],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    (H, G), D, T, S = case["heads"], case["D"], case["T"], case["S"]
    tensors = attention_inputs(B=2, H=H, G=G, T=T, S=S, D=D)
    tensors = {name: STRIDES[case["strides"]](x) for name, x in tensors.items()}
    check(tensors, case["dtype"], backend, causal=case["causal"], scale=case["scale"])


# Some kernels take other tiles where heads are wide: here each takes several.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "D"), [(torch.float16, 128), (torch.float32, 256)])
def test_wide_heads_in_several_tiles(dtype, D, backend):
    check(attention_inputs(T=131, S=150, D=D), dtype, backend, causal=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0), (2, 4, 0, 0)])
def test_empty_with_a_gradient_of_values_only(shape, causal, backend):
    B, H, T, S = shape
    x = singles(B=B, H=H, G=2, T=T, S=S)
    x["value"].requires_grad_()
    out = attend(**x, causal=causal, gradient="values", backend=backend)
    [grad] = torch.autograd.grad(out.sum(), x["value"])
    assert out.shape == (B, H, T, 8)
    assert not out.any()
    assert grad.shape == x["value"].shape
    assert not grad.any()


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
def test_zero_vectors(dtype, backend):
    """A query of zeros ties every key; keys of zeros tie with each other."""
    tensors = attention_inputs(H=4, G=2, T=6, S=6)
    tensors["query"][:, 1, 2] = 0
    tensors["value"][:, 1, 3] = 0
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    op = partial(attend, return_index=True, backend=backend)
    index = op(**rounded)[1]
    assert index[0, 1, 2] == 0
    check_correct(
        lambda **x: op(**x)[0],
        partial(oracle, index=index),
        lambda **x: reference.straight_through(**x, index=index, scale=8**-0.5, causal=False),
        tensors,
        dtype,
    )
    rounded["key"] = torch.zeros_like(rounded["key"])
    assert not op(**rounded)[1].any()


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize("causal", [False, True])
def test_anti_aligned_keys(dtype, causal, backend):
    """Every score is far below 0: a best that starts at 0, or a padded key, would win."""
    tensors = attention_inputs(T=70, S=70)
    direction = random(8, seed=7)
    tensors["query"] = direction.expand(1, 2, 70, 8).contiguous()
    tensors["key"] = -direction * (5 + random(1, 1, 70, 1, seed=8).abs())
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    out, index = attend(**rounded, causal=causal, return_index=True, backend=backend)
    assert (index >= 0).all()
    seen = visible(70, 70, causal)
    scores = (rounded["query"].double() @ rounded["key"].double().mT).masked_fill(~seen, -1e9)
    chosen = scores.gather(-1, index[..., None])[..., 0]
    assert torch.allclose(chosen, scores.amax(-1), rtol=1e-6)
    assert torch.equal(out, rounded["value"][0, 0][index])


# Small integers: their sums are exact in any order and in every dtype, and often the same.
@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", SIZES)
def test_ties_go_to_the_lowest_index(S, causal, dtype, backend):
    T = 70
    query, key = integers(-2, 2, 1, 4, T, 3, seed=1), integers(-2, 2, 1, 2, S, 3, seed=2)
    value = random(1, 2, S, 3).to(dtype)
    index = attend(
        query.to(dtype), key.to(dtype), value, causal=causal, return_index=True, backend=backend
    )[1]
    tied = 0
    for h, t in itertools.product(range(4), range(T)):
        scores = (key[0, h // 2] @ query[0, h, t]).tolist()
        seen = [scores[s] for s in range(S) if sees(t, s, T, S, causal, None, 0)]
        assert index[0, h, t] == (seen.index(max(seen)) if seen else -1)
        tied += seen.count(max(seen, default=0)) > 1
    assert tied > 40 or S == 1


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
def test_ties_across_tiles(dtype, backend):
    """Two best keys, the only ones, wherever a tile of 16, 32, 64 or 128 keys may end."""
    places = [0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 128, 130]
    if backend == "triton":  # slow in the interpreter; its tiles are of 32 and 64 keys
        places = [0, 31, 32, 63, 64, 130]
    for first, second in itertools.combinations(places, 2):
        key = integers(-2, 0, 1, 1, 131, 4, seed=first)
        key[..., 0] = 0
        key[0, 0, [first, second]] = torch.tensor([3, -1, -1, -1])
        query = torch.ones(1, 1, 67, 4)
        query[..., 1:] = integers(0, 1, 1, 1, 67, 3, seed=second)
        query[..., 0] = 2
        value = random(1, 1, 131, 4)
        index = attend(
            *(x.to(dtype) for x in (query, key, value)), return_index=True, backend=backend
        )[1]
        assert torch.equal(index, torch.full((1, 1, 67), first))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([math.nan, 1, 2], 2),
        ([1, math.nan, 2, math.nan], 2),
        ([1, math.inf, 5, math.inf], 1),
        ([math.nan, -math.inf, math.nan, -math.inf], 1),
        ([-math.inf, -math.inf], 0),
        ([-math.inf, -1e30, math.nan], 1),
        ([0.0, -0.0], 0),
        ([-0.0, 0.0], 0),
        ([math.nan, math.nan], -1),
    ],
)
@pytest.mark.parametrize("hidden", [math.inf, -math.inf])
def test_scores_that_are_not_numbers(hidden, scores, chosen, backend):
    """The first query sees no key; the last but one all but the last key."""
    S = len(scores)
    key = torch.tensor([*scores, hidden]).view(1, 1, S + 1, 1)
    value = random(1, 1, S + 1, 1, dtype=torch.float32)
    query = torch.ones(1, 1, S + 2, 1)
    out, index = attend(query, key, value, causal=True, return_index=True, backend=backend)
    assert index[0, 0, 0] == -1
    assert out[0, 0, 0] == 0
    assert index[0, 0, S] == chosen
    assert out[0, 0, S].isnan() if chosen < 0 else out[0, 0, S] == value[0, 0, chosen]


def test_float64_scores_in_float64():
    key = 1 + 1e-12 * torch.tensor([0.0, 2, 1, 3, 2], dtype=DOUBLE).view(1, 1, 5, 1)
    query = torch.tensor([1.0, -1], dtype=DOUBLE).view(1, 1, 2, 1)
    index = hard_attention(query, key, key, return_index=True, backend="reference")[1]
    assert index[0, 0].tolist() == [3, 0]


@pytest.mark.parametrize(("backend", "dtype"), SERVED)
@pytest.mark.parametrize("strides", list(STRIDES))
def test_rows_are_copied_bit_for_bit(dtype, strides, backend):
    """Values of any bits: among them are NaNs with every payload, infinities, and -0.0."""
    x = {
        n: y.to(dtype).requires_grad_()
        for n, y in attention_inputs(B=2, H=4, G=2, T=80, S=80).items()
    }
    kind = BITS[dtype.itemsize]
    limits = torch.iinfo(kind)
    patterns = integers(limits.min, limits.max - 1, 2, 2, 80, 8, seed=5).to(kind)
    special = torch.tensor([-0.0, 0.0, math.inf, -math.inf, math.nan], dtype=dtype).view(kind)
    signalling = special[2:4] + 1  # an infinity's next pattern is a NaN that arithmetic changes
    patterns[..., :7] = torch.cat([special, signalling])
    x["value"] = STRIDES[strides](patterns).view(dtype).requires_grad_()
    out, index = attend(**x, return_index=True, backend=backend)
    place = index[..., None].expand(2, 4, 80, 8)
    assert torch.equal(bits(out.detach()), every_head(patterns, 4).gather(2, place))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_straight_through_formulas(causal, backend):
    """dV = onehot^T dO, dS = P (dO V^T - rowdot(dO, P V)), from dense matrices."""
    dtype = served_dtype(backend, DOUBLE)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == DOUBLE else {"rtol": 1e-5, "atol": 1e-5}
    x = attention_inputs(B=2, H=4, G=2, T=7, S=7)
    x = {n: y.to(dtype).requires_grad_() for n, y in x.items()}
    grad, scale = random(2, 4, 7, 8, seed=4).to(dtype), 0.9
    out, index = attend(**x, scale=scale, causal=causal, return_index=True, backend=backend)
    found = torch.autograd.grad(out, list(x.values()), grad)

    with torch.no_grad():
        q, k, v = x["query"], every_head(x["key"], 4), every_head(x["value"], 4)
        logits = (scale * q @ k.mT).masked_fill(~visible(7, 7, causal), -math.inf)
        onehot = torch.eye(7, dtype=dtype)[logits.argmax(-1)]
        P = logits.exp() / logits.exp().sum(-1, keepdim=True)
        dP = grad @ v.mT

        def formulas(delta_of):
            dS = P * (dP - (grad * delta_of).sum(-1, keepdim=True))
            per_head = scale * dS @ k, scale * dS.mT @ q, onehot.mT @ grad
            return per_head[0], *(y.unflatten(1, (2, 2)).sum(2) for y in per_head[1:])

        expected, with_hard_delta = formulas(P @ v), formulas(onehot @ v)
    assert torch.equal(out, onehot @ v)
    assert torch.equal(index, logits.argmax(-1))
    for ours, formula in zip(found, expected, strict=True):
        assert torch.allclose(ours, formula, **tolerance)
    for right, wrong in zip(expected[:2], with_hard_delta[:2], strict=True):
        assert (right - wrong).abs().max() > 0.1  # so the comparison above would catch that fault


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_query_and_key_get_the_gradient_of_softmax_attention(causal, backend):
    dtype = served_dtype(backend, DOUBLE)
    rtol = 1e-10 if dtype == DOUBLE else 1e-5
    x = attention_inputs(H=4, G=2, T=9, S=9)
    x = {n: y.to(dtype).requires_grad_() for n, y in x.items()}
    grad = random(1, 4, 9, 8, seed=4).to(dtype)
    hard = attend(**x, scale=0.7, causal=causal, backend=backend)
    soft = torch.nn.functional.scaled_dot_product_attention(
        *x.values(), is_causal=causal, scale=0.7, enable_gqa=True
    )
    check_same_gradients(hard, soft, [x["query"], x["key"]], grad, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("gradient", ["straight_through", "values"])
def test_gradcheck(gradient):
    """The output is linear in value; in query and key it has steps, where no difference helps."""
    x = attention_inputs(H=4, G=2, T=5, S=4, D=3)

    def op(value):
        return hard_attention(
            x["query"], x["key"], value, causal=True, gradient=gradient, backend="reference"
        )

    assert torch.autograd.gradcheck(op, x["value"].requires_grad_())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S"), [(7, 5), (5, 7)])
def test_written_gradient_is_autograds(T, S, causal):
    """The registered backward against autograd through the specification."""
    x = {n: y.requires_grad_() for n, y in attention_inputs(B=2, H=4, G=2, T=T, S=S, D=6).items()}
    x["value"].data[:, :, :2] *= -0.0  # zeros of both signs
    leaves = list(x.values())
    specified, index = reference.attend(*leaves, 0.8, causal)
    registered, chosen = hard_attention(
        **x, scale=0.8, causal=causal, return_index=True, backend="reference"
    )
    assert torch.equal(bits(specified.detach()), bits(registered.detach()))
    assert torch.equal(index, chosen)
    check_written_gradient(specified, registered, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scale_changes_only_the_gradient(backend):
    x = {n: y.requires_grad_() for n, y in singles(T=9, S=9).items()}

    def run(scale):
        out, index = attend(**x, scale=scale, return_index=True, backend=backend)
        return out, index, *torch.autograd.grad(out.square().sum(), list(x.values()))

    small, large, by_default = run(0.1), run(2), run(None)
    for i, same in enumerate([True, True, False, False, True]):
        assert torch.equal(small[i], large[i]) == same
    assert all(map(torch.equal, by_default, run(8**-0.5)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_permuted_keys_permute_the_index(backend):
    x = singles(H=4, G=2, T=50, S=131)
    out, index = attend(**x, return_index=True, backend=backend)
    order = torch.randperm(131, generator=torch.Generator().manual_seed(1))
    x["key"], x["value"] = x["key"][:, :, order], x["value"][:, :, order]
    permuted, places = attend(**x, return_index=True, backend=backend)
    assert torch.equal(order[places], index)
    assert torch.equal(permuted, out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_value_does_not_depend_on_threads(four_threads, backend):
    """Some 700 queries share each of 3 rows, and their gradients differ a hundredfold in size."""
    torch.use_deterministic_algorithms(False)  # the poisoned memory's; the op does not count on it
    D = 16
    query, key = integers(-2, 2, 2, 2, 1024, D, seed=1), integers(-2, 2, 2, 1, 3, D, seed=2)
    value = random(2, 1, 3, D, dtype=torch.float32).requires_grad_()
    grad = random(2, 2, 1024, D, seed=3, dtype=torch.float32).exp()

    def run():
        out = attend(query.float(), key.float(), value, backend=backend)
        return torch.autograd.grad(out, value, grad)[0]

    on_four = [run() for _ in range(1 if backend == "triton" else 5)]  # which has no threads
    torch.set_num_threads(1)
    on_one = run()
    assert all(torch.equal(x, on_one) for x in on_four)


@pytest.mark.parametrize(("backend", "dtype"), [x for x in SERVED if x[1].itemsize == 2])
def test_gradient_of_value_is_summed_in_float32(dtype, backend):
    """4096 ones on one row: bfloat16 would stop at 256, float16 at 2048."""
    query, value = torch.zeros(1, 4, 1024, 2, dtype=dtype), torch.zeros(1, 1, 5, 2, dtype=dtype)
    out = attend(query, value, value.requires_grad_(), gradient="values", backend=backend)
    (grad,) = torch.autograd.grad(out.sum(), value)
    assert grad[0, 0, :, 0].tolist() == [4096, 0, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_values_only(backend):
    x = {n: y.requires_grad_() for n, y in singles(H=4, G=2, T=9, S=7).items()}
    every = attend(**x, causal=True, backend=backend)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        out = attend(**x, causal=True, gradient="values", backend=backend)
    assert torch.equal(out, every)
    found = torch.autograd.grad(out.sum(), list(x.values()), allow_unused=True)
    assert found[:2] == (None, None)
    assert torch.equal(found[2], torch.autograd.grad(every.sum(), x["value"])[0])
    # Without query and key there is no making (T, S) weights again.
    assert {y.data_ptr() for y in kept}.isdisjoint({x["query"].data_ptr(), x["key"].data_ptr()})


@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_keeps_no_state(backend):
    x = {n: y.requires_grad_() for n, y in singles().items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        out, index = attend(**x, gradient=None, return_index=True, backend=backend)
        assert kept == []
        expected, chosen = attend(**x, return_index=True, backend=backend)
        assert len(kept) == 4  # so the hook would have seen it
    assert out.grad_fn is None
    assert not out.requires_grad
    assert not chosen.requires_grad
    assert torch.equal(out, expected)
    assert torch.equal(index, chosen)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["query", "key", "value", "gradient"])
def test_bad_rows_are_chosen_as_others_are(spoilt, bad, backend):
    """The copy and its gradient know nothing of the softmax: only the choice moves them."""
    T, row = 12, 6
    x = singles(B=2, H=4, G=2, T=T, S=T) | {"gradient": random(2, 4, T, 8, seed=4).float()}
    x[spoilt][1, 1, row, 5] = bad
    gradient = x.pop("gradient")
    leaves = {n: y.clone().requires_grad_() for n, y in x.items()}
    out, index = attend(**leaves, causal=True, return_index=True, backend=backend)
    d_query, d_key, d_value = torch.autograd.grad(out, list(leaves.values()), gradient)
    if spoilt == "gradient":
        assert d_query[1, 1, row].isnan().all()
        assert d_key[1, 0, : row + 1].isnan().all()
    else:  # no softmax there, so no gradient from it
        without = d_query[1, 1, row] if spoilt == "query" else d_query[1, 2:, row:]
        assert not without.any()

    copied = every_head(x["value"], 4).gather(2, index.clamp(min=0)[..., None].expand(2, 4, T, 8))
    could_choose = index >= 0
    assert could_choose.all() or (spoilt == "query" and (~could_choose).sum() == 1)
    assert torch.equal(bits(out.detach()[could_choose]), bits(copied[could_choose]))
    assert out[~could_choose].isnan().all()
    expected = torch.zeros(2, 2, T, 8)
    for b, h, t in could_choose.nonzero().tolist():
        expected[b, h // 2, index[b, h, t]] += gradient[b, h, t]
    assert torch.allclose(d_value, expected, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    x = [y.to(place(backend)) for y in singles(B=2, H=4, G=2, T=6, S=4).values()]
    x = [y.requires_grad_() for y in x]
    x[0] = x[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    ops, options = torch.ops.pyseq, (0.5, True, backend)
    torch.library.opcheck(ops.hard_attention.default, (*x, *options))
    constants = [y.detach() for y in x]
    torch.library.opcheck(ops.hard_attention.default, (*constants[:2], x[2], *options))
    out, index = ops.hard_attention(*constants, *options)
    grad = torch.ones_like(out)
    for query, key, needs in (
        (*constants[:2], [True, True, True]),
        (*constants[:2], [False, True, False]),
        (None, None, [False, False, True]),
    ):
        arguments = (grad, query, key, constants[2], index, *options, needs)
        torch.library.opcheck(ops.hard_attention_backward.default, arguments)


def test_inference_compiles_whole():
    x = {n: y.requires_grad_() for n, y in singles(T=6, S=6).items()}
    torch._dynamo.reset()
    model = partial(hard_attention, gradient=None, backend="reference")
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(**x)
    assert not out.requires_grad
    assert torch.equal(out, model(**x))


def q(*shape, dtype=torch.float32):
    return torch.zeros(*(shape or (2, 4, 5, 8)), dtype=dtype)


K = (2, 2, 7, 8)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"return_index": None}, TypeError, "return_index is a NoneType; True or False fits"),
    ({"gradient": "soft"}, ValueError, "gradient is 'soft'; 'straight_through', 'values' or None"),
    ({"gradient": False}, ValueError, "gradient is False; 'straight_through'"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": q(), "key": q(*K), "value": q(*K)}
    check_refused(hard_attention, error, message, right | wrong)
