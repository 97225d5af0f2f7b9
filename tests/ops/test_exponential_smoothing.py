"""pyseq.ops.exponential_smoothing against sums and an FFT of its weights, on every backend."""

import math
from functools import partial

import pytest
import torch

from pyseq.ops.exponential_smoothing import exponential_smoothing, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    check_correct,
    check_refused,
    check_written_gradient,
    pairwise,
    random,
    swapped,
)

BACKENDS = ["reference"]


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
    check_correct(
        partial(exponential_smoothing, backend=backend), oracle, reference.smooth, tensors, dtype
    )


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
@pytest.mark.parametrize("T", [1, 2, 64, 131])
def test_equals_a_padded_fft_over_time(T, backend):
    x = inputs(T=T)
    assert torch.allclose(exponential_smoothing(**x, backend=backend), by_fft(**x), atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [0.99, 0.999, 1 - 2**-20])
def test_a_start_that_hardly_matters_keeps_the_digits_of_its_gradient(alpha, backend):
    """With alpha near 1 it is a small number, not the difference of two large ones."""
    values, initial = random(2, 5, 1, 3, seed=1), random(1, 3, seed=2)
    found = []
    for dtype in (torch.float32, DOUBLE):
        start = initial.to(dtype).requires_grad_()
        share = torch.tensor([alpha], dtype=torch.float32).to(dtype)
        out = exponential_smoothing(values.to(dtype), share, start, backend=backend)
        found += torch.autograd.grad(out, start, random(2, 5, 1, 3, seed=3).to(dtype))
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_alpha_keeps_a_level(backend):
    """A constant is its own smoothing, however small alpha is: 1 - alpha is not rounded."""
    values = torch.full((1, 3000, 4, 1), 0.7)
    alpha = torch.tensor([1e-2, 1e-3, 1e-4, 1e-5])
    out = exponential_smoothing(values, alpha, torch.full((4, 1), 0.7), backend=backend)
    assert (out - 0.7).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_state_is_not_rounded_to_the_dtype_of_values(backend):
    """A state in bfloat16 would stand still: 2^-10 of a difference is less than it resolves."""
    values = torch.ones(1, 2000, 1, 1, dtype=torch.bfloat16)
    out = exponential_smoothing(
        values, torch.tensor([2.0**-10]), torch.zeros(1, 1), backend=backend
    )
    assert out[0, -1].item() == pytest.approx(1 - (1 - 2**-10) ** 2000, abs=2**-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 5, 2, 3), (2, 0, 2, 3), (0, 0, 2, 3)])
def test_empty(shape, backend):
    B, T, H, D = shape
    x = {name: y.requires_grad_() for name, y in floats(B=B, T=T, H=H, D=D).items()}
    out = exponential_smoothing(**x, backend=backend)
    assert out.shape == shape
    for grad, y in zip(torch.autograd.grad(out.sum(), list(x.values())), x.values(), strict=True):
        assert grad.shape == y.shape
        assert not grad.any()


# One value or gradient is spoilt; all that does not depend on it must stay what it was.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["values", "gradient", "initial"])
def test_bad_numbers_stay_alone(spoilt, bad, backend):
    clean = floats(B=2, T=12, H=3, D=4) | {"gradient": random(2, 12, 3, 4, seed=4).float()}
    dirty = {name: x.clone() for name, x in clean.items()}
    dirty[spoilt][(1, 6, 2, 3) if spoilt != "initial" else (2, 3)] = bad

    def run(x):
        leaves = [x[name].clone().requires_grad_() for name in ("values", "alpha", "initial")]
        out = exponential_smoothing(*leaves, backend=backend)
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
    before = exponential_smoothing(**x, backend=backend)
    for t in (0, 62, 63, 64, 138):
        changed = x["values"].clone()
        changed[:, t + 1] += 1
        after = exponential_smoothing(**x | {"values": changed}, backend=backend)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert (before[:, t + 1] != after[:, t + 1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_half_continues_from_the_first(backend):
    x = floats(B=1, T=131)
    whole = exponential_smoothing(**x, backend=backend)
    first = exponential_smoothing(**x | {"values": x["values"][:, :64]}, backend=backend)
    second = exponential_smoothing(
        x["values"][:, 64:], x["alpha"], first[0, -1].clone(), backend=backend
    )
    assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-6)


def test_gradcheck():
    leaves = [x.requires_grad_() for x in inputs(T=5, H=2, D=3).values()]
    assert torch.autograd.gradcheck(partial(exponential_smoothing, backend="reference"), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_formulas(backend):
    """g_s = sum over t >= s of (1 - alpha)^(t-s) dA_t, and what follows, as closed sums."""
    x = {name: y.requires_grad_() for name, y in inputs(B=2, T=9, H=2, D=3).items()}
    grad = random(2, 9, 2, 3, seed=5)
    out = exponential_smoothing(**x, backend=backend)
    found = torch.autograd.grad(out, list(x.values()), grad)

    with torch.no_grad():
        values, alpha, initial = (y.detach() for y in x.values())
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
    for ours, formula in zip(found, expected, strict=True):
        assert torch.allclose(ours, formula, rtol=1e-11, atol=1e-12)


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
    out = exponential_smoothing(*leaves, backend=backend)
    assert out.dtype == torch.float16
    grads = torch.autograd.grad(out.sum(), leaves)
    assert [g.dtype for g in grads] == [torch.float16, torch.float32, DOUBLE]


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    x = [y.requires_grad_() for y in floats(T=4).values()]
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
