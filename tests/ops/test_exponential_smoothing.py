"""pyseq.ops.exponential_smoothing against sums and an FFT of its weights, on every backend."""

import math
from functools import partial

import pytest
import torch

from pyseq.kernels.exponential_smoothing import limits
from pyseq.ops.exponential_smoothing import exponential_smoothing, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    backends_of,
    check_options,
    check_refused,
    check_written_gradient,
    pairwise,
    place,
    random,
    served,
    served_dtype,
    swapped,
)

BACKENDS = backends_of("exponential_smoothing")


def inputs(B=2, T=7, H=3, D=4):
    return {
        "values": random(B, T, H, D, seed=1),
        "alpha": torch.linspace(0.05, 0.9, H, dtype=DOUBLE),
        "initial": random(H, D, seed=2),
    }


def floats(**sizes):
    return {name: x.float() for name, x in inputs(**sizes).items()}


# The oracle: the recursion solved, with nothing shared with pyseq.


def oracle(values, alpha, initial):
    """a_t = sum_j alpha (1 - alpha)^j v_(t-j) + (1 - alpha)^(t+1) initial."""
    T = values.shape[1]
    heads = []
    for h, weight in enumerate(alpha.unbind()):
        steps = []
        for t in range(T):
            age = torch.arange(t, -1, -1, dtype=DOUBLE)[:, None]
            past = (weight * (1 - weight) ** age * values[:, : t + 1, h]).sum(1)
            steps.append(past + (1 - weight) ** (t + 1) * initial[h])
        heads.append(torch.stack(steps, 1))
    return torch.stack(heads, 2)


def by_fft(values, alpha, initial):
    """The same convolution over time, zero-padded so that nothing wraps around."""
    T = values.shape[1]
    age = torch.arange(T, dtype=DOUBLE)[:, None, None]
    kernel = alpha[:, None] * (1 - alpha[:, None]) ** age  # (T, H, 1)
    spectrum = torch.fft.rfft(values, n=2 * T, dim=1) * torch.fft.rfft(kernel, n=2 * T, dim=0)
    past = torch.fft.irfft(spectrum, n=2 * T, dim=1)[:, :T]
    return past + (1 - alpha[:, None]) ** (age + 1) * initial


def check(tensors, dtype, backend):
    check_options(exponential_smoothing, oracle, reference.smooth, tensors, dtype, backend)


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of at least 4 steps: a few steps make many chunks, and 40 longer ones."""
    monkeypatch.setattr(limits, "SHORTEST_CHUNK", 4)


STRIDES_OF_TIME = STRIDES | {
    "heads_first": lambda x: swapped(x, 1, 2),
    "time_last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
}
PAIRS = pairwise(
    dtype=DTYPES,
    parameters=[torch.float32, DOUBLE],  # float32 is kept, float64 rounded to the values' dtype
    B=[1, 3],
    T=[1, 2, 63, 64, 65, 131],
    H=[1, 2, 5],
    D=[1, 6, 32],
    strides=list(STRIDES_OF_TIME),
)


# Time is the only axis that is tiled; D only says how many independent sequences there are.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    tensors = inputs(case["B"], case["T"], case["H"], case["D"])
    tensors = {name: x.to(case["parameters"]) for name, x in tensors.items()}
    tensors["values"] = STRIDES_OF_TIME[case["strides"]](tensors["values"].double())
    check(tensors, case["dtype"], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 131])
def test_sizes_around_a_tile(T, dtype, backend):
    check(inputs(B=1, T=T, H=2, D=3), dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("T", [3, 4, 5, 8, 32, 33, 40])  # from 33 steps on chunks are longer
def test_many_chunks(T, dtype, backend, short_chunks):
    check(inputs(B=2, T=T, H=3, D=5), dtype, backend)


# Heads lie side by side in tiles of 128 to 512 features.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("H", "D"), [(1, 128), (3, 43), (2, 80), (4, 64), (3, 96), (1, 257), (2, 256), (9, 57)]
)
def test_features_around_a_tile(H, D, dtype, backend, short_chunks):
    check(inputs(B=1, T=6, H=H, D=D), dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 2, 64, 131])
def test_equals_a_padded_fft_over_time(T, backend):
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.to(dtype) for name, y in inputs(T=T).items()}
    expected = by_fft(**{name: y.double() for name, y in x.items()})
    out = served(exponential_smoothing, backend)(**x)
    assert torch.allclose(out.double(), expected, atol=16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("alpha", "T"), [(0.99, 5), (0.999, 5), (1 - 2**-20, 5), (0.3, 40), (0.9, 30)]
)
def test_a_start_that_hardly_matters_keeps_the_digits_of_its_gradient(
    alpha, T, backend, short_chunks
):
    """It is a small number, not the difference of two large ones."""
    values, initial = random(2, T, 1, 3, seed=1), random(1, 3, seed=2)
    grad = random(2, T, 1, 3, seed=3)
    grad[:, :-1] = 0
    found = []
    for dtype, by in ((torch.float32, backend), (DOUBLE, "reference")):
        start = initial.to(dtype).requires_grad_()
        share = torch.tensor([alpha], dtype=torch.float32).to(dtype)
        out = served(exponential_smoothing, by)(values.to(dtype), share, start)
        found += torch.autograd.grad(out, start, grad.to(dtype))
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_alpha_keeps_its_rate(backend, monkeypatch):
    """Many chunks fade a start as much as their steps do."""
    monkeypatch.setattr(limits, "chunk", lambda _T: 4)
    alpha = torch.tensor([1e-5, 1.7e-5, 3e-5, 7e-5])
    out = served(exponential_smoothing, backend)(
        torch.zeros(1, 1600, 4, 1), alpha, torch.ones(4, 1)
    )
    expected = (1600 * torch.log1p(-alpha.double())).exp()
    torch.testing.assert_close(out[0, -1, :, 0].double(), expected, rtol=3e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_start_is_forgotten(backend):
    start, share = torch.full((1, 1), 1e6), torch.tensor([1 - 2.0**-20])
    out = served(exponential_smoothing, backend)(torch.ones(1, 2, 1, 1), share, start)
    assert out.flatten().tolist() == pytest.approx([1 + 999999 * 2.0**-20, 1.0], rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [4, 64])
def test_small_alpha_keeps_a_level(steps, backend, monkeypatch):
    """A constant is its own smoothing, however small alpha is: 1 - alpha is not rounded."""
    monkeypatch.setattr(limits, "chunk", lambda _T: steps)
    values = torch.full((1, 2000, 4, 1), 0.7)
    alpha = torch.tensor([1e-2, 1e-3, 1e-4, 1e-5])
    out = served(exponential_smoothing, backend)(values, alpha, torch.full((4, 1), 0.7))
    assert (out - 0.7).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_state_is_not_rounded_to_the_dtype_of_values(backend):
    """A state in bfloat16 would stand still: eps / 8 of a difference is less than it resolves."""
    dtype = served_dtype(backend, torch.bfloat16)
    eps = torch.finfo(dtype).eps
    values = torch.ones(1, 2000, 1, 1, dtype=dtype)
    share = torch.tensor([eps / 8])
    out = served(exponential_smoothing, backend)(values, share, torch.zeros(1, 1))
    assert out[0, -1].item() == pytest.approx(1 - (1 - eps / 8) ** 2000, abs=eps / 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 5, 2, 3), (2, 0, 2, 3), (0, 0, 2, 3)])
def test_empty(shape, backend):
    B, T, H, D = shape
    x = {name: y.requires_grad_() for name, y in floats(B=B, T=T, H=H, D=D).items()}
    out = served(exponential_smoothing, backend)(**x)
    assert out.shape == shape
    for grad, y in zip(torch.autograd.grad(out.sum(), list(x.values())), x.values(), strict=True):
        assert grad.shape == y.shape
        assert not grad.any()


# One value or gradient is spoilt; all that does not depend on it must stay what it was.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["values", "gradient", "initial"])
def test_bad_numbers_stay_alone(spoilt, bad, backend, short_chunks):
    clean = floats(B=2, T=12, H=3, D=4) | {"gradient": random(2, 12, 3, 4, seed=4).float()}
    dirty = {name: x.clone() for name, x in clean.items()}
    dirty[spoilt][(1, 6, 2, 3) if spoilt != "initial" else (2, 3)] = bad

    def run(x):
        leaves = [x[name].clone().requires_grad_() for name in ("values", "alpha", "initial")]
        out = served(exponential_smoothing, backend)(*leaves)
        d_values, d_alpha, d_initial = torch.autograd.grad(out, leaves, x["gradient"])
        return out.detach(), d_values, d_alpha, d_initial

    out, d_values, d_alpha, d_initial = (
        (before == after) for before, after in zip(run(clean), run(dirty), strict=True)
    )
    later = torch.zeros_like(out)
    later[1, 6:, 2, 3] = True
    earlier = torch.zeros_like(out)
    earlier[1, :7, 2, 3] = True
    everywhere = torch.zeros_like(out)
    everywhere[:, :, 2, 3] = True
    nowhere = torch.zeros_like(out)
    changed_out = {"values": later, "gradient": nowhere, "initial": everywhere}[spoilt]
    assert torch.equal(~out, changed_out)
    assert torch.equal(~d_values, earlier if spoilt == "gradient" else nowhere)
    assert d_alpha.tolist() == [True, True, False]
    feature = torch.zeros_like(d_initial)
    feature[2, 3] = spoilt == "gradient"
    assert torch.equal(~d_initial, feature)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_future_does_not_matter(backend):
    x = floats(T=140)
    op = served(exponential_smoothing, backend)
    before = op(**x)
    for t in (0, 62, 63, 64, 138):
        changed = x["values"].clone()
        changed[:, t + 1] += 1
        after = op(**x | {"values": changed})
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert (before[:, t + 1] != after[:, t + 1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_half_continues_from_the_first(backend):
    x = floats(B=1, T=131)
    op = served(exponential_smoothing, backend)
    whole = op(**x)
    first = op(**x | {"values": x["values"][:, :64]})
    second = op(x["values"][:, 64:], x["alpha"], first[0, -1].clone())
    assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strides", [*STRIDES_OF_TIME, "expanded"])
def test_strides_of_the_gradient_do_not_matter(strides, backend):
    x = {name: y.requires_grad_() for name, y in floats(T=21).items()}
    grad = random(2, 21, 3, 4, seed=5, dtype=torch.float32)
    if strides == "expanded":
        grad = grad[:1, :1].expand(2, 21, 3, 4)
    out = served(exponential_smoothing, backend)(**x)
    expected = torch.autograd.grad(out, list(x.values()), grad.contiguous(), retain_graph=True)
    strided = STRIDES_OF_TIME.get(strides, lambda y: y)(grad)
    found = torch.autograd.grad(out, list(x.values()), strided)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_gradcheck():
    leaves = [x.requires_grad_() for x in inputs(T=5, H=2, D=3).values()]
    assert torch.autograd.gradcheck(partial(exponential_smoothing, backend="reference"), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_formulas(backend):
    """g_s = sum over t >= s of (1 - alpha)^(t-s) dA_t, and what follows, as closed sums."""
    dtype = served_dtype(backend, DOUBLE)
    x = inputs(B=2, T=9, H=2, D=3)
    x = {name: y.to(dtype).requires_grad_() for name, y in x.items()}
    grad = random(2, 9, 2, 3, seed=5)
    out = served(exponential_smoothing, backend)(**x)
    found = torch.autograd.grad(out, list(x.values()), grad.to(dtype))

    with torch.no_grad():
        values, alpha, initial = (y.detach().double() for y in x.values())
        smoothed = oracle(values, alpha, initial)
        before = torch.cat((initial.expand(2, 1, 2, 3), smoothed[:, :-1]), 1)
        age = (torch.arange(9)[None] - torch.arange(9)[:, None]).clamp(min=0)  # (s, t)
        kept = ((1 - alpha[:, None, None]) ** age).triu()  # (H, s, t)
        g = torch.einsum("hst,bthd->bshd", kept, grad)
        expected = (
            alpha[:, None] * g,
            (g * (values - before)).sum((0, 1, 3)),
            ((1 - alpha[:, None]) * g[:, 0]).sum(0),
        )
    close = {"rtol": 1e-11, "atol": 1e-12} if dtype == DOUBLE else {"rtol": 1e-5, "atol": 1e-5}
    for ours, formula in zip(found, expected, strict=True):
        assert torch.allclose(ours.double(), formula, **close)


def test_written_gradient_is_autograds():
    """The registered backward against autograd through the specification."""
    leaves = [x.requires_grad_() for x in inputs(T=65).values()]
    specified = reference.smooth(*leaves)
    served = exponential_smoothing(*leaves, backend="reference")
    check_written_gradient(specified, served, leaves, rtol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_have_the_dtype_of_their_inputs(backend):
    x = floats()
    x = {"values": x["values"].half(), "alpha": x["alpha"], "initial": x["initial"].double()}
    leaves = [y.requires_grad_() for y in x.values()]
    out = served(exponential_smoothing, backend)(*leaves)
    assert out.dtype == torch.float16
    grads = torch.autograd.grad(out.sum(), leaves)
    assert [g.dtype for g in grads] == [torch.float16, torch.float32, DOUBLE]


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    x = [y.to(place(backend)).requires_grad_() for y in floats(T=4).values()]
    x[0] = x[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.exponential_smoothing.default, (*x, backend))
    constants = [y.detach() for y in x]
    grad = torch.ones_like(constants[0])
    for needs in ([True, True, True], [False, True, False]):
        torch.library.opcheck(
            ops.exponential_smoothing_backward.default, (grad, *constants, backend, needs)
        )


V = torch.zeros(2, 5, 3, 4)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"values": [1.0]}, TypeError, "values is a list; a tensor fits"),
    ({"values": V.long()}, TypeError, "values is torch.int64; float32, bfloat16"),
    ({"alpha": 0.5}, TypeError, "alpha is a float; a tensor fits"),
    ({"alpha": torch.ones(3).int()}, TypeError, "alpha is torch.int32; float32"),
    ({"initial": None}, TypeError, "initial is a NoneType; a tensor fits"),
    ({"alpha": torch.ones(3).to("meta")}, ValueError, "alpha on meta, .*; one device fits"),
    ({"values": V[0]}, ValueError, r"values has 3 dimensions; \(B, T, H, D\) fits; values"),
    ({"alpha": torch.ones(2)}, ValueError, r"alpha has shape \(2,\); \(3,\) fits; values \(2"),
    ({"alpha": torch.ones(3, 1)}, ValueError, r"alpha has shape \(3, 1\); \(3,\) fits"),
    ({"initial": V[0, 0, 0]}, ValueError, r"initial has shape \(4,\); \(3, 4\) fits; values"),
    ({"initial": V[:, 0]}, ValueError, r"initial has shape \(2, 3, 4\); \(3, 4\) fits"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"values": V, "alpha": torch.full((3,), 0.5), "initial": V[0, 0]}
    check_refused(exponential_smoothing, error, message, right | wrong)
