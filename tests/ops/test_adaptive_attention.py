"""pyseq.ops.adaptive_attention against loops written from its formulas, on every backend."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from pyseq.ops.adaptive_attention import adaptive_attention, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    backends_of,
    check_options,
    check_refused,
    check_written_gradient,
    pairwise,
    place,
    random,
    sees,
    served,
    served_dtype,
)
from tests.ops.attention_inputs import SIZES, STRIDES, attention_inputs

BACKENDS = backends_of("adaptive_attention")
PUBLISHED = (-0.037, 0.481, -2.3, 4.917, -1.791)


# The oracle: one query at a time, one formula per line, nothing shared with pyseq.


def oracle_beta(entropy, coefficients=PUBLISHED):
    powers = range(len(coefficients) - 1, -1, -1)
    beta = sum(c * entropy**power for c, power in zip(coefficients, powers, strict=True))
    clamped = bool(entropy <= 0.5) or bool(beta <= 1)
    return torch.ones_like(entropy) if clamped else beta


def oracle(query, key, value, scale=None, causal=False, coefficients=PUBLISHED):
    (B, H, T, D), (_, G, S, _) = query.shape, key.shape
    scale = 1 / math.sqrt(D) if scale is None else scale
    rows = []
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        g = h // (H // G)
        seen = sum(sees(t, s, T, S, causal, None, 0) for s in range(S))  # the first so many
        if seen == 0:
            rows.append(query.new_zeros(D))
            continue
        logits = scale * (key[b, g, :seen] @ query[b, h, t])
        log_p = logits - torch.logsumexp(logits, 0)
        entropy = -(torch.exp(log_p) * log_p).sum()
        sharp = oracle_beta(entropy, coefficients) * logits
        rows.append(torch.exp(sharp - torch.logsumexp(sharp, 0)) @ value[b, g, :seen])
    if not rows:
        return query * key.sum() * value.sum()
    return torch.stack(rows).view(B, H, T, D)


def specification(query, key, value, scale=None, causal=False, coefficients=PUBLISHED):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return reference.attend(query, key, value, scale, coefficients, causal)


check = partial(check_options, adaptive_attention, oracle, specification)


def weights_of(logits, *, backend, **options):
    """What the op makes of logits (T, S): with unit vectors as keys and values it shows."""
    logits = logits.to(served_dtype(backend, logits.dtype))
    units = torch.eye(logits.shape[1], dtype=logits.dtype)[None, None]
    op = served(adaptive_attention, backend)
    return op(logits[None, None], units, units, scale=1.0, **options)[0, 0].to(DOUBLE)


def widest(backend, dtype):
    """The widest heads that are tested: what `limits` says, for the dtype that is served."""
    return 128 if backend == "triton" and served_dtype(backend, dtype) == torch.float32 else 256


def rounding(backend, *, of_double=1e-14, of_single=2e-6):
    """What rounding may leave where the backend is given float64, if it takes that."""
    return of_double if served_dtype(backend, DOUBLE) == DOUBLE else of_single


def entropy_of(weights):
    return -torch.special.xlogy(weights, weights).sum(-1)


def entropies(query, key, scale=None, causal=False, **_):
    """The entropy of every query that sees a key, (B, H, at most T), of dense float64 logits."""
    (_, H, T, D), (_, G, S, _) = query.shape, key.shape
    keys = key.detach().double().repeat_interleave(H // G, dim=1)
    logits = query.detach().double() @ keys.mT * (D**-0.5 if scale is None else scale)
    if causal:
        visible = torch.ones(T, S).tril(S - T).bool()
        logits = logits.masked_fill(~visible, -math.inf)[:, :, visible.any(1)]
    return entropy_of(torch.softmax(logits, -1))


def kinks(coefficients=PUBLISHED):
    """Where the slope of beta jumps: at 0.5 nats, and where the polynomial crosses 1."""
    roots = np.roots(np.polysub(coefficients, [1.0]))
    return [0.5, *(float(r.real) for r in roots if abs(r.imag) < 1e-9 and r.real > 0.5)]


def distance_to_kinks(entropy, coefficients=PUBLISHED):
    return min(float((entropy - kink).abs().min()) for kink in kinks(coefficients))


def betas(entropy, coefficients=PUBLISHED):
    flat = [oracle_beta(h, coefficients) for h in entropy.flatten()]
    return torch.stack(flat).view(entropy.shape)


# The sizes around a tile of 64 keys or queries, in full; everything else meets pairwise below.
# Triton's interpreter is slow, and its tiles are of 32 here: few sizes around those, on both sides
# of T = S, in which every size is met as T and as S.
TILE_SIZES = {
    "reference": list(itertools.product(SIZES, SIZES)),
    "native": list(itertools.product(SIZES, SIZES)),
    "triton": [
        (1, 1),
        (1, 67),
        (31, 33),
        (32, 32),
        (33, 31),
        (33, 64),
        (64, 1),
        (67, 65),
        (65, 67),
    ],
}


@pytest.mark.parametrize(
    ("backend", "T", "S"),
    [(backend, *sizes) for backend in BACKENDS for sizes in TILE_SIZES[backend]],
)
@pytest.mark.parametrize("causal", [False, True])
def test_sizes_around_a_tile(T, S, causal, backend):
    check(attention_inputs(T=T, S=S, D=8), torch.float32, backend, causal=causal)


PAIRS = pairwise(
    dtype=DTYPES,
    heads=[(2, 2), (4, 1), (6, 3)],
    D=[32, 64, 80, 96, 128, 256],
    T=[1, 9, 12],
    S=[1, 9, 12],
    causal=[False, True],
    scale=[None, 0.05, 1.0],
    coefficients=[PUBLISHED, (0.2, 0.9), (2.0,)],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    H, G = case["heads"]
    D = min(case["D"], widest(backend, case["dtype"]))
    tensors = attention_inputs(B=2, H=H, G=G, T=case["T"], S=case["S"], D=D)
    tensors = {name: STRIDES[case["strides"]](x) for name, x in tensors.items()}
    options = {name: case[name] for name in ("scale", "causal", "coefficients")}
    check(tensors, case["dtype"], backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_vectors(backend):
    tensors = attention_inputs(H=4, G=2, T=6, S=6)
    tensors["query"][:, 1, 2] = 0
    tensors["key"][:, 0, 3] = 0
    tensors["value"][:, 1, 3] = 0
    check(tensors, torch.float32, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.3, 10.0])
def test_anti_aligned_keys(scale, dtype, backend):
    """Every logit is far below 0, where a maximum that starts at 0 would let all underflow.

    Several directions: of one of them alone the reference may know all products by luck, which is
    most of the error there is.
    """
    tensors = attention_inputs(B=8, H=2, G=1, T=3, S=70)
    direction = random(8, 1, 1, 8, seed=7)
    tensors["query"] = direction.expand(8, 2, 3, 8).contiguous()
    tensors["key"] = -direction * (1 + random(8, 1, 70, 1, seed=8).abs())
    check(tensors, dtype, backend, scale=scale)


def test_documented_numbers_are_the_coefficients():
    text = adaptive_attention.__doc__
    assert reference.COEFFICIENTS == PUBLISHED
    _, lower, upper = sorted(kinks())
    [peak] = [float(r.real) for r in np.roots(np.polyder(PUBLISHED)) if abs(r.imag) < 1e-9]
    assert f"{lower:.4f} < H < {upper:.4f} nats" in text
    assert f"largest beta is {np.polyval(PUBLISHED, peak):.3f}, at H = {peak:.2f} nats" in text
    assert f"over more than {math.floor(math.exp(upper))} keys" in text
    assert f"({np.polyval(PUBLISHED, 7):.1f} at H = 7)" in text
    inside = np.linspace(lower, upper, 1001)[1:-1]
    outside = np.concatenate([np.linspace(0.5, lower, 100)[:-1], np.linspace(upper, 12, 100)[1:]])
    assert (np.polyval(PUBLISHED, inside) > 1).all()
    assert (np.polyval(PUBLISHED, outside) < 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_plain_attention_where_beta_is_1(backend):
    def differ(S, spread):
        dtype = served_dtype(backend, DOUBLE)
        x = {n: y.to(dtype).requires_grad_() for n, y in attention_inputs(T=4, S=S).items()}
        ours = served(adaptive_attention, backend)(**x, scale=spread)
        key, value = (x[n].expand(1, 2, S, 8) for n in ("key", "value"))
        plain = torch.softmax(spread * x["query"] @ key.mT, -1) @ value
        found, expected = (
            torch.autograd.grad(out.square().sum(), list(x.values())) for out in (ours, plain)
        )
        acts = betas(entropies(x["query"], x["key"], spread)) > 1
        assert acts.all() or not acts.any()
        pairs = [(ours, plain), *zip(found, expected, strict=True)]
        atol = rounding(backend, of_double=1e-12, of_single=1e-5)
        same = [torch.allclose(a, b, atol=atol) for a, b in pairs]
        assert all(same) or not any(same)
        return not all(same), bool(acts.all())

    assert differ(1, 1.0) == (False, False)
    assert differ(2, 1.0) == (False, False)  # ln 2 < 0.8486
    assert differ(300, 0.02) == (True, True)
    assert differ(420, 0.02) == (False, False)  # nearly uniform over more than 381 keys
    if backend != "triton":  # whose interpreter is slow; its clamp was asked for above
        # At H = 7 the bare polynomial is -3.9 and would invert attention.
        assert differ(1100, 0.02) == (False, False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_papers_form(backend):
    x = attention_inputs(B=2, H=3, G=3, T=40, S=60)
    logits = x["query"] @ x["key"].mT * 8**-0.5
    p = torch.softmax(logits, -1)
    entropy = torch.sum(-p * torch.log(p + 1e-9), -1, keepdim=True)
    fit = torch.zeros_like(entropy)
    for i, c in enumerate([-0.037, 0.481, -2.3, 4.917, -1.791]):
        fit = fit + c * entropy ** (4 - i)
    beta = torch.where(entropy > 0.5, torch.maximum(fit, torch.ones_like(fit)), 1.0)
    expected = torch.softmax(logits * beta, -1) @ x["value"]
    assert float(beta.max()) > 2
    x = {name: y.to(served_dtype(backend, DOUBLE)) for name, y in x.items()}
    ours = served(adaptive_attention, backend)(**x).to(DOUBLE)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-6 + rounding(backend, of_single=1e-5))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coefficients", [None, [-3.0, 5.0], [2.0], [-5.0]])
def test_entropy_never_increases(coefficients, backend):
    falls = 0
    largest = 128 if backend == "triton" else 400  # the keys are unit vectors, so D is S
    sizes = [2, 3, 17, 90, largest]
    for seed, (S, spread) in enumerate(itertools.product(sizes, [0.1, 1, 3, 20])):
        logits = spread * random(6, S, seed=seed)
        ours = entropy_of(weights_of(logits, coefficients=coefficients, backend=backend))
        plain = entropy_of(torch.softmax(logits, -1))
        assert bool((ours <= plain + rounding(backend, of_double=1e-12, of_single=1e-5)).all())
        falls += int((ours < plain - 1e-3).sum())
    assert falls > 0 or coefficients == [-5.0]  # a polynomial below 1 never acts


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_is_plain_attention(backend):
    logits = 2 * random(9, 40)
    plain = torch.softmax(logits, -1)
    for coefficients in ([1.0], [1], (0.0, 1.0), [-5.0]):
        ours = weights_of(logits, coefficients=coefficients, backend=backend)
        assert torch.allclose(ours, plain, rtol=0, atol=rounding(backend))
    assert not torch.allclose(weights_of(logits, backend=backend), plain, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_doubles_the_logits_above_half_a_nat(backend):
    logits = torch.tensor([[0.2], [1.0], [4.0], [9.0], [30.0]]) * random(5, 12)
    entropy = entropy_of(torch.softmax(logits, -1))
    assert 0 < int((entropy > 0.5).sum()) < 5
    assert distance_to_kinks(entropy, [2.0]) > 1e-3
    doubled = torch.where(entropy[:, None] > 0.5, 2 * logits, logits)
    ours = weights_of(logits, coefficients=[0, 2.0], backend=backend)
    assert torch.allclose(ours, torch.softmax(doubled, -1), rtol=0, atol=rounding(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_coefficients_are_the_published_ones(backend):
    x = {name: y.float() for name, y in attention_inputs(T=9, S=30).items()}
    op = served(adaptive_attention, backend)
    out = op(**x)
    assert torch.equal(out, op(**x, coefficients=PUBLISHED))
    assert torch.equal(out, op(**x, scale=8**-0.5))
    assert not torch.allclose(out, op(**x, scale=0.5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_entropy_does_not_mind_large_logits(backend):
    """Logits on a grid, so that adding 2^15 to all of them is exact: only the entropy could tell.

    Not centred, sum p s alone is rounded to 2^-9 there, and beta with it.
    """
    logits = (random(40, 60) * 256).round().float() / 256
    near, far = (weights_of(x, backend=backend) for x in (logits, logits + 2**15))
    assert torch.allclose(near, far, rtol=0, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_a_large_scale_stays_finite(causal, backend):
    B, H, G = (1, 2, 1) if backend == "triton" else (2, 4, 2)
    tensors = attention_inputs(B=B, H=H, G=G, T=70, S=70)
    x = {name: y.float().requires_grad_() for name, y in tensors.items()}
    out = served(adaptive_attention, backend)(**x, scale=1000.0, causal=causal)
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.square().sum(), list(x.values())):
        assert grad.isfinite().all()
    check(attention_inputs(T=20, S=20), torch.float32, backend, scale=1000.0, causal=causal)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_measures(causal, backend):
    """What the backward restores the weights from, beside float64."""
    x = {name: y.float() for name, y in attention_inputs(H=4, G=2, T=9, S=70).items()}
    if causal:
        x["key"], x["value"] = x["key"][:, :, :6], x["value"][:, :, :6]
    x["query"][0, 1, 7, 0] = math.nan
    there = [y.to(place(backend)) for y in x.values()]
    _, measures = torch.ops.pyseq.adaptive_attention(*there, 0.7, PUBLISHED, causal, backend)
    keys = x["key"].double().repeat_interleave(2, dim=1)
    products = x["query"].double() @ keys.mT
    if causal:
        products = products.masked_fill(~torch.ones(9, 6).tril(-3).bool(), -math.inf)
    best = products.amax(-1, keepdim=True)
    centred = 0.7 * (products - best)
    p = torch.softmax(centred, -1)
    nats = -torch.special.xlogy(p, p).sum(-1)
    sharp = torch.where(centred == -math.inf, centred, betas(nats)[..., None] * centred)
    expected = [best[..., 0], centred.logsumexp(-1), nats, sharp.logsumexp(-1)]
    expected = torch.stack(expected)
    if causal:
        expected[:, :, :, :3] = 0
    assert expected.isnan().nonzero()[:, 1:].unique(dim=0).tolist() == [[0, 1, 7]]
    torch.testing.assert_close(measures.cpu().double(), expected, rtol=0, atol=1e-5, equal_nan=True)


def rows_of_every_kind():
    """Queries against 420 keys from one that picks a key to one that sees them all alike."""
    lengths = torch.tensor([8.0, 4, 2.5, 2, 1.6, 1.3, 1, 0.7, 0.4, 0.2, 0.02, 0.01])
    x = attention_inputs(B=1, H=2, G=1, T=12, S=420, D=6)
    x["query"] = random(1, 2, 12, 6, seed=17) * lengths[:, None]
    entropy = entropies(x["query"], x["key"], 1.0)
    assert distance_to_kinks(entropy) > 1e-2
    return x, entropy


def test_rows_of_every_kind():
    """The gradient tests below are about something: each stretch between two kinks has its rows."""
    _, entropy = rows_of_every_kind()
    stretch = torch.bucketize(entropy, torch.tensor(sorted(kinks()), dtype=DOUBLE))
    assert stretch.unique().tolist() == [0, 1, 2, 3]
    beta = betas(entropy)
    assert bool((beta[stretch != 2] == 1).all())
    assert bool((beta[stretch == 2] > 1).all())
    assert int((stretch == 2).sum()) > 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coefficients", [PUBLISHED, (0.3, 0.9), (2.0,)])
def test_gradient_formulas(coefficients, backend):
    """Through the dense Jacobian of the weights by the logits, (T, S, S) per head."""
    x, entropy = rows_of_every_kind()
    assert distance_to_kinks(entropy, coefficients) > 1e-3
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.to(dtype).to(DOUBLE) for name, y in x.items()}
    grad = random(1, 2, 12, 6, seed=4).to(dtype).to(DOUBLE)

    def gradients_of(op):
        leaves = [y.to(dtype).requires_grad_() for y in x.values()]
        out = op(*leaves, scale=1.0, coefficients=coefficients)
        return torch.autograd.grad(out, leaves, grad.to(dtype))

    found = gradients_of(served(adaptive_attention, backend))
    specified = gradients_of(specification)
    with torch.no_grad():
        query, key, value = x["query"][0], x["key"][0, 0], x["value"][0, 0]
        s = query @ key.mT  # (H, T, S)
        p = torch.softmax(s, -1)
        beta = betas(entropy[0], coefficients)[..., None]
        slope = torch.where(
            (beta > 1) & (entropy[0, ..., None] > 0.5),
            torch.from_numpy(np.polyval(np.polyder(coefficients), entropy[0, ..., None].numpy())),
            0.0,
        )
        sharp = torch.softmax(beta * s, -1)
        by_sharpened = torch.diag_embed(sharp) - sharp[..., :, None] * sharp[..., None, :]
        by_beta = sharp * (s - (sharp * s).sum(-1, keepdim=True))  # d sharp_i / d beta
        beta_by_s = -slope * torch.special.xlogy(p, p) - slope * entropy[0, ..., None] * p
        jacobian = beta[..., None] * by_sharpened + by_beta[..., :, None] * beta_by_s[..., None, :]
        d_s = torch.einsum("htd,id,htij->htj", grad[0], value, jacobian)
        expected = (
            torch.einsum("htj,jd->htd", d_s, key),
            torch.einsum("htj,htd->jd", d_s, query),
            torch.einsum("hti,htd->id", sharp, grad[0]),
        )
    for ours, theirs, formula in zip(found, specified, expected, strict=True):
        error, reference_error = (
            float((y[0].squeeze(0).to(DOUBLE) - formula).abs().max()) for y in (ours, theirs)
        )
        eps = torch.finfo(dtype).eps
        assert reference_error < 100 * eps * float(formula.abs().max())
        assert error <= 2 * reference_error + 4 * eps * float(formula.abs().max())


@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"coefficients": (0.4, 0.8)}, {"coefficients": (1.7,)}]
)
def test_gradcheck(options):
    tensors = attention_inputs(H=4, G=2, T=5, S=4, D=4)
    entropy = entropies(tensors["query"], tensors["key"], 0.9, **options)
    coefficients = options.get("coefficients", PUBLISHED)
    assert distance_to_kinks(entropy, coefficients) > 1e-3
    beta = betas(entropy, coefficients)
    assert bool((beta > 1).any())
    assert bool((beta == 1).any())

    def op(*leaves):
        return adaptive_attention(*leaves, scale=0.9, backend="reference", **options)

    assert torch.autograd.gradcheck(op, [x.requires_grad_() for x in tensors.values()])


def test_gradcheck_where_it_switches_itself_off():
    x, _ = rows_of_every_kind()
    query = x["query"].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda query: adaptive_attention(query, x["key"], x["value"], scale=1.0), query
    )


@pytest.mark.parametrize("spoilt", [None, "query", "key", "value"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("coefficients", [PUBLISHED, (0.3, 0.9), (2.0,)])
def test_written_gradient_is_autograds(coefficients, causal, spoilt):
    """The registered backward against autograd through the specification.

    Nothing flows back from an output that is NaN because of a row it saw.
    """
    tensors = attention_inputs(B=2, H=4, G=2, T=17, S=15, D=6)
    if spoilt:
        tensors[spoilt][1, 1, 7, 2] = math.nan
    leaves = [x.requires_grad_() for x in tensors.values()]
    options = {"scale": 0.6, "coefficients": coefficients, "causal": causal}
    specified = specification(*leaves, **options)
    served = adaptive_attention(*leaves, **options, backend="reference")
    assert bool(served.isnan().any()) == (spoilt is not None)
    check_written_gradient(specified, served, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coefficients", [PUBLISHED, (2.0,)])
def test_opcheck(coefficients, backend):
    B, H, G = (1, 2, 1) if backend == "triton" else (2, 4, 2)
    x = [y.float() for y in attention_inputs(B=B, H=H, G=G, T=6, S=4).values()]
    x[0] = x[0].transpose(1, 2).contiguous().transpose(1, 2)
    x = [y.to(place(backend)).requires_grad_() for y in x]
    options = [0.4, list(coefficients), True, backend]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.adaptive_attention.default, (*x, *options))
    constants = [y.detach() for y in x]
    out, measures = ops.adaptive_attention(*constants, *options)
    for needs in ([True, True, True], [True, False, False], [False, True, True]):
        arguments = (torch.ones_like(out), *constants, measures, *options, needs)
        torch.library.opcheck(ops.adaptive_attention_backward.default, arguments)


def q(*shape, dtype=torch.float32):
    return torch.zeros(*(shape or (2, 4, 5, 8)), dtype=dtype)


K = (2, 2, 7, 8)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"coefficients": 1.0}, TypeError, "coefficients is a float; a tuple or list of floats fits"),
    ({"coefficients": "12"}, TypeError, "coefficients is a str; a tuple or list of floats fits"),
    ({"coefficients": q(3)}, TypeError, "coefficients is a Tensor; a tuple or list of floats fits"),
    ({"coefficients": []}, ValueError, "coefficients is empty; at least one number fits"),
    ({"coefficients": [1.0, "2"]}, TypeError, r"coefficients\[1\] is a str; a float fits"),
    (
        {"coefficients": [math.nan]},
        ValueError,
        r"coefficients\[0\] is nan; a finite number of float32 fits",
    ),
    (
        {"coefficients": [1, -math.inf]},
        ValueError,
        r"coefficients\[1\] is -inf; a finite number of float32",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"query": q(), "key": q(*K), "value": q(*K)}
    check_refused(adaptive_attention, error, message, right | wrong)
