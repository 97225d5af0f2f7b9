"""pyseq.ops.hard_attention against loops and dense formulas, on every backend."""

import itertools
import math
from functools import cache, partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyseq.ops import BackendUnavailable
from pyseq.ops.hard_attention import hard_attention, reference
from tests.correctness import (
    check_correct,
    nan_filled_memory,
    pairwise,
    sees,
    undocumented_parameters,
)

BACKENDS = ["reference"]
DOUBLE = torch.float64
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield


def random(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(B=1, H=2, G=1, T=5, S=5, D=8):
    return {
        "query": random(B, H, T, D, seed=1),
        "key": random(B, G, S, D, seed=2),
        "value": random(B, G, S, D, seed=3),
    }


def singles(**sizes):
    return {name: x.float() for name, x in inputs(**sizes).items()}


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
    op = partial(hard_attention, causal=causal, backend=backend, return_index=True)
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


# The sizes around a tile of 64 keys or queries, in full; everything else meets pairwise below.
SIZES = [1, 63, 64, 65, 131]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", SIZES)
@pytest.mark.parametrize("T", SIZES)
def test_sizes_around_a_tile(T, S, causal, backend):
    tensors = inputs(T=T, S=S)
    check(tensors, torch.float32, backend, causal=causal)
    for dtype in DTYPES[1:]:
        rounded = {name: x.to(dtype) for name, x in tensors.items()}
        out, index = hard_attention(**rounded, causal=causal, return_index=True, backend=backend)
        check_choice(**rounded, out=out, index=index, causal=causal)


STRIDES = {
    "contiguous": lambda x: x,
    "heads_last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "every_other": lambda x: torch.stack([x, x], -1)[..., 0],
}
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
    tensors = inputs(B=2, H=H, G=G, T=T, S=S, D=D)
    tensors = {name: STRIDES[case["strides"]](x) for name, x in tensors.items()}
    check(tensors, case["dtype"], backend, causal=case["causal"], scale=case["scale"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gradient", ["straight_through", "values"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0), (2, 4, 0, 0)])
def test_empty(shape, causal, gradient, backend):
    B, H, T, S = shape
    x = {n: y.requires_grad_() for n, y in singles(B=B, H=H, G=2, T=T, S=S).items()}
    out, index = hard_attention(
        **x, causal=causal, gradient=gradient, return_index=True, backend=backend
    )
    assert out.shape == (B, H, T, 8)
    assert not out.any()
    assert torch.equal(index, torch.full((B, H, T), -1))
    trained = list(x.values()) if gradient == "straight_through" else [x["value"]]
    for leaf, grad in zip(trained, torch.autograd.grad(out.sum(), trained), strict=True):
        assert grad.shape == leaf.shape
        assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_vectors(dtype, backend):
    """A query of zeros ties every key; keys of zeros tie with each other."""
    tensors = inputs(H=4, G=2, T=6, S=6)
    tensors["query"][:, 1, 2] = 0
    tensors["value"][:, 1, 3] = 0
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    op = partial(hard_attention, return_index=True, backend=backend)
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_anti_aligned_keys(dtype, causal, backend):
    """Every score is far below 0: a best that starts at 0, or a padded key, would win."""
    tensors = inputs(T=70, S=70)
    direction = random(8, seed=7)
    tensors["query"] = direction.expand(1, 2, 70, 8).contiguous()
    tensors["key"] = -direction * (5 + random(1, 1, 70, 1, seed=8).abs())
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    out, index = hard_attention(**rounded, causal=causal, return_index=True, backend=backend)
    assert (index >= 0).all()
    seen = visible(70, 70, causal)
    scores = (rounded["query"].double() @ rounded["key"].double().mT).masked_fill(~seen, -1e9)
    chosen = scores.gather(-1, index[..., None])[..., 0]
    assert torch.allclose(chosen, scores.amax(-1), rtol=1e-6)
    assert torch.equal(out, rounded["value"][0, 0][index])


# Small integers: their sums are exact in any order and in every dtype, and often the same.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("S", SIZES)
def test_ties_go_to_the_lowest_index(S, causal, dtype, backend):
    T = 70
    query, key = integers(-2, 2, 1, 4, T, 3, seed=1), integers(-2, 2, 1, 2, S, 3, seed=2)
    value = random(1, 2, S, 3).to(dtype)
    index = hard_attention(
        query.to(dtype), key.to(dtype), value, causal=causal, return_index=True, backend=backend
    )[1]
    tied = 0
    for h, t in itertools.product(range(4), range(T)):
        scores = (key[0, h // 2] @ query[0, h, t]).tolist()
        seen = [scores[s] for s in range(S) if sees(t, s, T, S, causal, None, 0)]
        assert index[0, h, t] == (seen.index(max(seen)) if seen else -1)
        tied += seen.count(max(seen, default=0)) > 1
    assert tied > 40 or S == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_across_tiles(dtype, backend):
    """Two best keys, the only ones, wherever a tile of 16, 32, 64 or 128 keys may end."""
    places = [0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 128, 130]
    for first, second in itertools.combinations(places, 2):
        key = integers(-2, 0, 1, 1, 131, 4, seed=first)
        key[..., 0] = 0
        key[0, 0, [first, second]] = torch.tensor([3, -1, -1, -1])
        query = torch.ones(1, 1, 67, 4)
        query[..., 1:] = integers(0, 1, 1, 1, 67, 3, seed=second)
        query[..., 0] = 2
        value = random(1, 1, 131, 4)
        index = hard_attention(
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
    out, index = hard_attention(query, key, value, causal=True, return_index=True, backend=backend)
    assert index[0, 0, 0] == -1
    assert out[0, 0, 0] == 0
    assert index[0, 0, S] == chosen
    assert out[0, 0, S].isnan() if chosen < 0 else out[0, 0, S] == value[0, 0, chosen]


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_scores_in_float64(backend):
    key = 1 + 1e-12 * torch.tensor([0.0, 2, 1, 3, 2], dtype=DOUBLE).view(1, 1, 5, 1)
    query = torch.tensor([1.0, -1], dtype=DOUBLE).view(1, 1, 2, 1)
    index = hard_attention(query, key, key, return_index=True, backend=backend)[1]
    assert index[0, 0].tolist() == [3, 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strides", list(STRIDES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_copied_bit_for_bit(dtype, strides, backend):
    """Values of any bits: among them are NaNs with every payload, infinities, and -0.0."""
    x = {n: y.to(dtype).requires_grad_() for n, y in inputs(B=2, H=4, G=2, T=80, S=80).items()}
    kind = BITS[dtype.itemsize]
    limits = torch.iinfo(kind)
    patterns = integers(limits.min, limits.max - 1, 2, 2, 80, 8, seed=5).to(kind)
    special = torch.tensor([-0.0, 0.0, math.inf, -math.inf, math.nan], dtype=dtype).view(kind)
    signalling = special[2:4] + 1  # an infinity's next pattern is a NaN that arithmetic changes
    patterns[..., :7] = torch.cat([special, signalling])
    x["value"] = STRIDES[strides](patterns).view(dtype).requires_grad_()
    out, index = hard_attention(**x, return_index=True, backend=backend)
    place = index[..., None].expand(2, 4, 80, 8)
    assert torch.equal(bits(out.detach()), every_head(patterns, 4).gather(2, place))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_straight_through_formulas(causal, backend):
    """dV = onehot^T dO, dS = P (dO V^T - rowdot(dO, P V)), from dense matrices."""
    x = {n: y.requires_grad_() for n, y in inputs(B=2, H=4, G=2, T=7, S=7).items()}
    grad, scale = random(2, 4, 7, 8, seed=4), 0.9
    out, index = hard_attention(**x, scale=scale, causal=causal, return_index=True, backend=backend)
    found = torch.autograd.grad(out, list(x.values()), grad)

    with torch.no_grad():
        q, k, v = x["query"], every_head(x["key"], 4), every_head(x["value"], 4)
        logits = (scale * q @ k.mT).masked_fill(~visible(7, 7, causal), -math.inf)
        onehot = torch.eye(7, dtype=DOUBLE)[logits.argmax(-1)]
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
        assert torch.allclose(ours, formula, rtol=1e-10, atol=1e-12)
    for right, wrong in zip(expected[:2], with_hard_delta[:2], strict=True):
        assert (right - wrong).abs().max() > 0.1  # so the comparison above would catch that fault


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_query_and_key_get_the_gradient_of_softmax_attention(causal, backend):
    x = {n: y.requires_grad_() for n, y in inputs(H=4, G=2, T=9, S=9).items()}
    grad = random(1, 4, 9, 8, seed=4)
    hard = hard_attention(**x, scale=0.7, causal=causal, backend=backend)
    soft = torch.nn.functional.scaled_dot_product_attention(
        *x.values(), is_causal=causal, scale=0.7, enable_gqa=True
    )
    leaves = [x["query"], x["key"]]
    for ours, theirs in zip(
        torch.autograd.grad(hard, leaves, grad),
        torch.autograd.grad(soft, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gradient", ["straight_through", "values"])
def test_gradcheck(gradient):
    """The output is linear in value; in query and key it has steps, where no difference helps."""
    x = inputs(H=4, G=2, T=5, S=4, D=3)

    def op(value):
        return hard_attention(
            x["query"], x["key"], value, causal=True, gradient=gradient, backend="reference"
        )

    assert torch.autograd.gradcheck(op, x["value"].requires_grad_())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S"), [(7, 5), (5, 7)])
def test_written_gradient_is_autograds(T, S, causal):
    """The registered backward against autograd through the specification."""
    x = {n: y.requires_grad_() for n, y in inputs(B=2, H=4, G=2, T=T, S=S, D=6).items()}
    x["value"].data[:, :, :2] *= -0.0  # zeros of both signs
    leaves = list(x.values())
    specified, index = reference.attend(*leaves, 0.8, causal)
    served, chosen = hard_attention(
        **x, scale=0.8, causal=causal, return_index=True, backend="reference"
    )
    assert torch.equal(bits(specified.detach()), bits(served.detach()))
    assert torch.equal(index, chosen)
    grad = random(2, 4, T, 6, seed=7)
    for a, b in zip(
        torch.autograd.grad(specified, leaves, grad),
        torch.autograd.grad(served, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scale_changes_only_the_gradient(backend):
    x = {n: y.requires_grad_() for n, y in singles(T=9, S=9).items()}

    def run(scale):
        out, index = hard_attention(**x, scale=scale, return_index=True, backend=backend)
        return out, index, *torch.autograd.grad(out.square().sum(), list(x.values()))

    small, large, by_default = run(0.1), run(2), run(None)
    for i, same in enumerate([True, True, False, False, True]):
        assert torch.equal(small[i], large[i]) == same
    assert all(map(torch.equal, by_default, run(8**-0.5)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_length_of_a_query_does_not_matter(backend):
    x = singles(T=70, S=70)
    expected = hard_attention(**x, return_index=True, backend=backend)
    x["query"] = x["query"] * random(1, 2, 70, 1, seed=5).abs().add(0.1).float()
    found = hard_attention(**x, return_index=True, backend=backend)
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("T", "S"), [(70, 70), (5, 70)])
def test_future_keys_do_not_matter(T, S, backend):
    x = singles(T=T, S=S)
    op = partial(hard_attention, causal=True, return_index=True, backend=backend)
    before, index = op(**x)
    x["key"][:, :, -1] = x["query"][:, :1, -1] * 100  # the best of all for the last query
    x["value"][:, :, -1] = -7.0
    after, changed = op(**x)
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert torch.equal(index[:, :, :-1], changed[:, :, :-1])
    assert changed[0, 0, -1] == S - 1
    assert (after[0, 0, -1] == -7.0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_permuted_keys_permute_the_index(backend):
    x = singles(H=4, G=2, T=50, S=131)
    out, index = hard_attention(**x, return_index=True, backend=backend)
    order = torch.randperm(131, generator=torch.Generator().manual_seed(1))
    x["key"], x["value"] = x["key"][:, :, order], x["value"][:, :, order]
    permuted, places = hard_attention(**x, return_index=True, backend=backend)
    assert torch.equal(order[places], index)
    assert torch.equal(permuted, out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_key_heads_equal_plain_heads(backend):
    x = {n: y.requires_grad_() for n, y in singles(B=2, H=6, G=2, T=7, S=7).items()}
    op = partial(hard_attention, causal=True, return_index=True, backend=backend)
    shared, index = op(**x)
    repeated = x | {n: x[n].repeat_interleave(3, dim=1) for n in ("key", "value")}
    plain, same = op(**repeated)
    assert torch.equal(shared, plain)
    assert torch.equal(index, same)
    leaves = list(x.values())
    for a, b in zip(
        torch.autograd.grad(shared.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_are_equal(backend):
    x = {n: y.requires_grad_() for n, y in singles(B=2, H=4, G=2, T=131, S=65).items()}

    def run():
        out, index = hard_attention(**x, causal=True, return_index=True, backend=backend)
        return out, index, *torch.autograd.grad(out.square().sum(), list(x.values()))

    assert all(map(torch.equal, run(), run()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_value_does_not_depend_on_threads(four_threads, backend):
    """Some 700 queries share each of 3 rows, and their gradients differ a hundredfold in size."""
    torch.use_deterministic_algorithms(False)  # the poisoned memory's; the op does not count on it
    D = 16
    query, key = integers(-2, 2, 2, 2, 1024, D, seed=1), integers(-2, 2, 2, 1, 3, D, seed=2)
    value = random(2, 1, 3, D, dtype=torch.float32).requires_grad_()
    grad = random(2, 2, 1024, D, seed=3, dtype=torch.float32).exp()

    def run():
        out = hard_attention(query.float(), key.float(), value, backend=backend)
        return torch.autograd.grad(out, value, grad)[0]

    on_four = [run() for _ in range(5)]
    torch.set_num_threads(1)
    on_one = run()
    assert all(torch.equal(x, on_one) for x in on_four)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_of_value_is_summed_in_float32(dtype, backend):
    """4096 ones on one row: bfloat16 would stop at 256, float16 at 2048."""
    query, value = torch.zeros(1, 4, 1024, 2, dtype=dtype), torch.zeros(1, 1, 5, 2, dtype=dtype)
    out = hard_attention(query, value, value.requires_grad_(), gradient="values", backend=backend)
    (grad,) = torch.autograd.grad(out.sum(), value)
    assert grad[0, 0, :, 0].tolist() == [4096, 0, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_values_only(backend):
    x = {n: y.requires_grad_() for n, y in singles(H=4, G=2, T=9, S=7).items()}
    every = hard_attention(**x, causal=True, backend=backend)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        out = hard_attention(**x, causal=True, gradient="values", backend=backend)
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
        out, index = hard_attention(**x, gradient=None, return_index=True, backend=backend)
        assert kept == []
        expected, chosen = hard_attention(**x, return_index=True, backend=backend)
        assert len(kept) == 4  # so the hook would have seen it
    assert out.grad_fn is None
    assert not out.requires_grad
    assert not chosen.requires_grad
    assert torch.equal(out, expected)
    assert torch.equal(index, chosen)


# One row is spoilt; whatever may not see it must be what it was, forward and backward.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["query", "key", "value", "gradient"])
def test_bad_rows_stay_alone(spoilt, bad, backend):
    T = S = 12
    row = 6
    clean = singles(B=2, H=4, G=2, T=T, S=S)
    clean |= {"gradient": random(2, 4, T, 8, seed=4).float()}
    dirty = {name: x.clone() for name, x in clean.items()}
    dirty[spoilt][1, 1, row, 5] = bad

    def run(x):
        leaves = {n: x[n].clone().requires_grad_() for n in ("query", "key", "value")}
        out, index = hard_attention(**leaves, causal=True, return_index=True, backend=backend)
        grads = torch.autograd.grad(out, list(leaves.values()), x["gradient"])
        return [out.detach(), *grads, index]

    # Query t sees keys up to t. What the bad row touches, by output, query, key, value and index:
    of_keys = spoilt in ("key", "value")
    heads, group = (slice(2, 4), 1) if of_keys else (slice(1, 2), 0)
    seen_by = slice(row, T) if of_keys else slice(row, row + 1)
    reaches = slice(0, T) if of_keys else slice(0, row + 1)
    rows = [(heads, seen_by), (heads, seen_by), (group, reaches), (group, reaches)]
    names = ("output", "query", "key", "value", "index")
    before, after = (dict(zip(names, run(x), strict=True)) for x in (clean, dirty))
    for name, (head, touched) in zip(names, [*rows, rows[0]], strict=True):
        mask = torch.ones_like(before[name], dtype=torch.bool)
        mask[1, head, touched] = False
        assert torch.allclose(before[name][mask].double(), after[name][mask].double(), atol=1e-5)
        if spoilt == "gradient" and name in ("query", "key"):
            assert after[name][~mask].isnan().all()
        if spoilt != "gradient" and name == "query":  # no softmax there, so no gradient from it
            assert not after[name][~mask].any()

    # The copy and its gradient know nothing of the softmax: only the choice moves them.
    copied = every_head(dirty["value"], 4).gather(
        2, after["index"].clamp(min=0)[..., None].expand(2, 4, T, 8)
    )
    could_choose = after["index"] >= 0
    assert could_choose.all() or (spoilt == "query" and (~could_choose).sum() == 1)
    assert torch.equal(bits(after["output"][could_choose]), bits(copied[could_choose]))
    assert after["output"][~could_choose].isnan().all()
    expected = torch.zeros(2, 2, S, 8)
    for b, h, t in could_choose.nonzero().tolist():
        expected[b, h // 2, after["index"][b, h, t]] += dirty["gradient"][b, h, t]
    assert torch.allclose(after["value"], expected, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [math.nan, math.inf])
def test_bad_future_under_a_loss_on_the_past(padding, backend):
    """The usual shape of trouble: padding holds NaN, causality and the loss leave it out."""
    x = singles(T=8, S=8)
    clean = {n: y[:, :, :5].clone().requires_grad_() for n, y in x.items()}
    for y in x.values():
        y[:, :, 5:] = padding
        y.requires_grad_()
    op = partial(hard_attention, causal=True, backend=backend)
    out, expected = op(**x)[:, :, :5], op(**clean)
    assert torch.equal(out, expected)
    for padded, short in zip(
        torch.autograd.grad(out.square().sum(), list(x.values())),
        torch.autograd.grad(expected.square().sum(), list(clean.values())),
        strict=True,
    ):
        assert torch.allclose(padded[:, :, :5], short, atol=1e-6)
        assert not padded[:, :, 5:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_wanted_gradients(backend):
    x = singles(H=4, G=2)
    full = {n: y.clone().requires_grad_() for n, y in x.items()}
    every = torch.autograd.grad(hard_attention(**full, backend=backend).sum(), list(full.values()))
    for name, expected in zip(x, every, strict=True):
        alone = x | {name: x[name].clone().requires_grad_()}
        out = hard_attention(**alone, backend=backend)
        assert torch.equal(torch.autograd.grad(out.sum(), alone[name])[0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_keeps_the_memory_order_of_query(backend):
    x = singles(H=4, G=2)
    x["query"] = torch.randn(1, 5, 3, 4, 8)[:, :, 1].transpose(1, 2)  # of a joint projection
    out = hard_attention(**x, backend=backend)
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_reach_the_scores(backend):
    x = {n: y.requires_grad_() for n, y in singles(T=70, S=70).items()}
    expected = hard_attention(**x, backend=backend)
    grads = torch.autograd.grad(expected.sum(), list(x.values()))
    with torch.autocast("cpu", torch.bfloat16):
        out = hard_attention(**x, backend=backend)
        found = torch.autograd.grad(out.sum(), list(x.values()))
    assert torch.equal(out, expected)
    assert all(map(torch.equal, grads, found))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_under_a_dispatch_mode(backend):
    """Such modes (counting flops, checking schemas) switch autograd off inside an op."""
    x = {n: y.requires_grad_() for n, y in singles().items()}
    leaves = list(x.values())
    expected = torch.autograd.grad(hard_attention(**x, backend=backend).sum(), leaves)
    with FlopCounterMode(display=False):
        found = torch.autograd.grad(hard_attention(**x, backend=backend).sum(), leaves)
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("gradient", ["straight_through", "values"])
def test_second_derivative_is_refused(gradient):
    x = {n: y.requires_grad_() for n, y in singles().items()}
    out = hard_attention(**x, gradient=gradient)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.sum(), x["value"], create_graph=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    x = [y.requires_grad_() for y in singles(B=2, H=4, G=2, T=6, S=4).values()]
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gradient", ["straight_through", "values"])
def test_compiles_whole(gradient, backend):
    x = {n: y.requires_grad_() for n, y in singles(T=6, S=6).items()}
    options = {"causal": True, "gradient": gradient, "return_index": True, "backend": backend}

    def model(query, key, value):
        mixed, index = hard_attention(query * 2, key, value.exp(), **options)
        return mixed.tanh() * (1 + index[..., None])

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    leaves = list(x.values()) if gradient == "straight_through" else [x["value"]]
    expected = torch.autograd.grad(model(**x).square().sum(), leaves)
    found = torch.autograd.grad(compiled(**x).square().sum(), leaves)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_inference_compiles_whole():
    x = {n: y.requires_grad_() for n, y in singles(T=6, S=6).items()}
    torch._dynamo.reset()
    model = partial(hard_attention, gradient=None, backend="reference")
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(**x)
    assert not out.requires_grad
    assert torch.equal(out, model(**x))


def test_docstring_names_every_parameter():
    assert undocumented_parameters(hard_attention) == []


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
    ({"scale": "1"}, TypeError, "scale is a str; a float fits"),
    ({"scale": True}, TypeError, "scale is a bool"),
    ({"scale": torch.ones(())}, TypeError, "scale is a Tensor; a float fits"),
    ({"scale": 0.0}, ValueError, "scale is 0.0; a positive finite number fits"),
    ({"scale": -1}, ValueError, "scale is -1; a positive finite number fits"),
    ({"scale": math.inf}, ValueError, "scale is inf; a positive finite number fits"),
    ({"scale": math.nan}, ValueError, "scale is nan; a positive finite number fits"),
    ({"causal": 1}, TypeError, "causal is a int; True or False fits"),
    ({"return_index": None}, TypeError, "return_index is a NoneType; True or False fits"),
    ({"gradient": "soft"}, ValueError, "gradient is 'soft'; 'straight_through', 'values' or None"),
    ({"gradient": False}, ValueError, "gradient is False; 'straight_through'"),
    ({"backend": "cuda"}, ValueError, "backend is 'cuda'; known: auto"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": q(), "key": q(*K), "value": q(*K)}
    with pytest.raises(error, match=r"^hard_attention: ") as caught:
        hard_attention(**right | wrong)
    assert caught.match(message)


@pytest.mark.parametrize("backend", sorted({"native", "triton"} - set(BACKENDS)))
def test_backend_without_code_is_refused(backend):
    with pytest.raises(BackendUnavailable, match=f"{backend}.* cannot serve this call"):
        hard_attention(q(), q(*K), q(*K), backend=backend)
