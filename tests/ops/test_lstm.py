"""pyseq.ops.lstm against a loop over single rows, on every backend."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from pyseq.ops.lstm import lstm, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    backends_of,
    check_correct,
    check_refused,
    check_same_gradients,
    pairwise,
    random,
    served,
    served_dtype,
    swapped,
)

BACKENDS = backends_of("lstm")
NAMES = ("x", "weight_ih", "weight_hh", "bias", "hidden", "cell")


def inputs(S=2, B=3, T=4, I=3, H=5):  # noqa: E741
    return {
        "x": random(S, B, T, I, seed=1),
        "weight_ih": random(S, 4 * H, I, seed=2) / max(I, 1) ** 0.5,
        "weight_hh": random(S, 4 * H, H, seed=3) / max(H, 1) ** 0.5,
        "bias": random(S, 4 * H, seed=4),
        "hidden": random(S, B, H, seed=5).tanh(),
        "cell": random(S, B, H, seed=6),
    }


def floats(**sizes):
    return {name: x.float() for name, x in inputs(**sizes).items()}


def oracle(x, weight_ih, weight_hh, bias, hidden, cell):
    """One row at a time, gate by gate."""
    S, B, T, _ = x.shape
    H = weight_hh.shape[2]
    outputs, last = [], []
    for s in range(S):
        for b in range(B):
            h, c = hidden[s, b], cell[s, b]
            for t in range(T):
                z = weight_ih[s] @ x[s, b, t] + weight_hh[s] @ h + bias[s]
                i, f, g, o = (z[k * H : (k + 1) * H] for k in range(4))
                c = c / (1 + torch.exp(-f)) + g.tanh() / (1 + torch.exp(-i))
                h = c.tanh() / (1 + torch.exp(-o))
                outputs.append(h)
            last += [h, c]
    hidden, cell = torch.stack(last).view(S, B, 2, H).unbind(2)
    return torch.stack(outputs).view(S, B, T, H), hidden, cell


def specification(*tensors):
    dtype = tensors[0].dtype
    return tuple(y.to(dtype) for y in reference.layer(*tensors)[:3])


def joined(*tensors, op=lstm, **named):
    """All that the op returns side by side, so that every part has a gradient."""
    tensors = tensors or [named.pop(name) for name in NAMES]
    outputs, hidden, cell = op(*tensors, **named)
    return torch.cat([outputs, hidden[:, :, None], cell[:, :, None]], 2)


def check(tensors, dtype, backend, exact=oracle):
    check_correct(
        partial(joined, op=served(lstm, backend)),
        partial(joined, op=exact),
        partial(joined, op=specification),
        tensors,
        served_dtype(backend, dtype),
    )


# The kernels hold 24 rows and add up the weights' gradients every 4 steps; products are of
# rows in groups of 6, 12 and 4, and of columns in groups of 8 to 32.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B", [1, 4, 23, 24, 25, 49])
def test_sizes_around_a_tile_of_rows(B, backend):
    check(inputs(B=B), torch.float32, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 8, 9, 17])
def test_sizes_around_the_steps_held(T, backend):
    check(inputs(T=T), torch.float32, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("I", [1, 8, 11, 16, 33])
@pytest.mark.parametrize("H", [1, 3, 7, 8, 9, 15, 16, 17, 33])
def test_widths(I, H, backend):  # noqa: E741
    check(inputs(S=1, B=2, T=3, I=I, H=H), torch.float32, backend)


PAIRS = pairwise(
    dtype=DTYPES,
    S=[1, 3],
    B=[1, 7],
    T=[1, 6],
    I=[1, 10],
    H=[3, 16, 20],
    strides=[*STRIDES, "time_first"],
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    tensors = inputs(*(case[name] for name in "SBTIH"))
    if case["strides"] == "time_first":
        tensors["x"] = swapped(tensors["x"], 1, 2)
    else:
        tensors = {name: STRIDES[case["strides"]](x) for name, x in tensors.items()}
    check(tensors, case["dtype"], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_rows_and_steps(backend):
    """Several tiles in a part; the oracle of loops would take minutes."""
    check(inputs(S=1, B=210, T=70, I=8, H=12), torch.float32, backend, exact=specification)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pytorchs_lstm(backend):
    """The same parameters, one bias being 0."""
    x = floats(S=1, B=6, T=30, I=10, H=20)
    theirs = nn.LSTM(10, 20, batch_first=True)
    with torch.no_grad():
        for own, given in zip(theirs.parameters(), list(x.values())[1:4], strict=False):
            own.copy_(given[0])
        theirs.bias_hh_l0.zero_()
    outputs, (hidden, cell) = theirs(x["x"][0], (x["hidden"], x["cell"]))
    found = lstm(**x, backend=backend)
    torch.testing.assert_close(found, (outputs[None], hidden, cell), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_states_they_are_0(backend):
    x = floats()
    zeros = torch.zeros_like(x["cell"])
    expected = lstm(**x | {"hidden": zeros, "cell": zeros}, backend=backend)
    given = {name: y for name, y in x.items() if name not in ("hidden", "cell")}
    assert all(map(torch.equal, lstm(**given, backend=backend), expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_halves_of_time_are_the_whole(backend):
    x = floats(T=9)
    whole = lstm(**x, backend=backend)
    outputs, hidden, cell = lstm(**x | {"x": x["x"][:, :, :4]}, backend=backend)
    rest = {"x": x["x"][:, :, 4:], "hidden": hidden, "cell": cell}
    later, hidden, cell = lstm(**x | rest, backend=backend)
    found = (torch.cat([outputs, later], 2), hidden, cell)
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stack_is_its_models(backend):
    """Bit for bit on the CPU's kernels, with gradients: a model learns the same in any stack."""
    tolerance = 0 if backend == "native" else 1e-6

    def results(x):
        leaves = {name: y.detach().clone().requires_grad_() for name, y in x.items()}
        out = joined(**leaves, backend=backend)
        return [out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))]

    x = floats(S=3, B=60, T=7, I=6, H=10)
    whole = results(x)
    for s in range(3):
        alone = results({name: y[s : s + 1] for name, y in x.items()})
        for one, every in zip(alone, whole, strict=True):
            torch.testing.assert_close(one, every[s : s + 1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_of_some_outputs(used, backend):
    """What is not used has no gradient, which is not zeros in memory."""
    leaves = [y.requires_grad_() for y in floats(T=6).values()]
    wide = [y.detach().double().requires_grad_() for y in leaves]
    found, expected = (
        torch.autograd.grad(sum(op(*given)[k].sin().sum() for k in used), given)
        for op, given in ((partial(lstm, backend=backend), leaves), (specification, wide))
    )
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gates_in_their_tails_and_near_0(backend):
    """One gate moves and the others are wide open: sigmoid and tanh themselves."""
    z = torch.cat([torch.linspace(-40, 40, 4001), torch.logspace(-30, 0, 301)])
    z = torch.cat([z, -z, torch.tensor([0.0, -100.0, 1e30, -1e30])])
    open_, nothing = 40.0, torch.zeros(1, 4, 1)

    def run(gate, bias):
        weight = nothing.clone()
        weight[0, gate] = 1
        bias = torch.tensor([bias])
        return lstm(z[None, :, None, None], weight, nothing, bias, backend=backend)

    wide = z.double()
    _, _, cell = run(2, [open_, 0.0, 0.0, open_])  # tanh(z)
    check_relative(cell.flatten(), wide.tanh(), 5e-7)
    _, _, cell = run(0, [0.0, 0.0, open_, open_])  # sigmoid(z)
    # The exponent is a product that is rounded: what that loses grows with it.
    check_relative(cell.flatten(), wide.sigmoid(), 5e-7 + 1e-7 * wide.abs())


def check_relative(found, exact, allowed):
    """Right in relation to the value; what is below 2^-125 is nearly 0."""
    assert bool(((found.double() - exact).abs() <= allowed * exact.abs() + 2.0**-125).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_reaches_no_other_row_and_no_earlier_step(backend):
    x = floats(S=2, B=30, T=6, I=10, H=9)
    clean = lstm(**x, backend=backend)
    x["x"][1, 26, 3, 2] = math.nan
    found = lstm(**x, backend=backend)
    bad = torch.zeros(2, 30, 6, dtype=bool)
    bad[1, 26, 3:] = True
    assert torch.equal(found[0].isnan().all(-1), bad)
    assert torch.equal(found[0][~bad], clean[0][~bad])
    for state, expected in zip(found[1:], clean[1:], strict=True):
        assert torch.equal(state.isnan().all(-1), bad[:, :, -1])
        assert torch.equal(state[~bad[:, :, -1]], expected[~bad[:, :, -1]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "sizes", [{"S": 0}, {"B": 0}, {"T": 0}, {"I": 0}, {"H": 0}], ids=lambda sizes: str(*sizes)
)
def test_empty(sizes, backend):
    leaves = [x.requires_grad_() for x in floats(**sizes).values()]
    found, expected = lstm(*leaves, backend=backend), specification(*leaves)
    torch.testing.assert_close(found, expected)
    if "T" in sizes:
        assert found[1].data_ptr() != leaves[4].data_ptr()
    grads = (
        torch.autograd.grad(sum(y.square().sum() for y in out), leaves, materialize_grads=True)
        for out in (found, expected)
    )
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_written_gradient_is_autograds():
    leaves = [x.requires_grad_() for x in inputs(T=9).values()]
    ours = joined(*leaves, op=partial(lstm, backend="reference"))
    specified = joined(*leaves, op=specification)
    torch.testing.assert_close(ours, specified, rtol=0, atol=0)
    check_same_gradients(ours, specified, leaves, random(*ours.shape, seed=7))


def test_gradcheck():
    leaves = [x.requires_grad_() for x in inputs(S=1, B=2, T=3, H=2).values()]
    assert torch.autograd.gradcheck(partial(lstm, backend="reference"), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taped", [True, False])
def test_opcheck(taped, backend):
    dtype = served_dtype(backend, DOUBLE)
    leaves = [x.to(dtype).requires_grad_() for x in inputs().values()]
    torch.library.opcheck(torch.ops.pyseq.lstm.default, (*leaves, taped, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tape_that_was_not_kept_is_made_again(backend):
    leaves = [x.requires_grad_() for x in floats().values()]
    grads = []
    for taped in (True, False):
        outputs, *_, tape = torch.ops.pyseq.lstm(*leaves, taped, backend)
        assert (tape.numel() > 0) == taped
        grads.append(torch.autograd.grad(outputs.square().sum(), leaves))
    assert all(map(torch.equal, *grads))


REFUSED = [
    (ValueError, r"3, 3 and 3 dimensions; x \(S, B, T, I\)", {"x": torch.ones(2, 4, 3)}),
    (ValueError, r"weight_ih has shape \(2, 20, 5\); \(2, 20, 3\) fits; x \(2, 3, 4, 3\)", {
        "weight_ih": torch.ones(2, 20, 5)}),
    (ValueError, r"weight_hh has shape \(2, 21, 5\); \(2, 20, 5\) fits", {
        "weight_hh": torch.ones(2, 21, 5), "weight_ih": torch.ones(2, 20, 3)}),
    (ValueError, r"bias has shape \(20,\); \(2, 20\) fits", {"bias": torch.ones(20)}),
    (ValueError, r"hidden has shape \(1, 3, 5\); \(2, 3, 5\) fits", {
        "hidden": torch.ones(1, 3, 5)}),
    (ValueError, r"cell has shape \(2, 3, 4\); \(2, 3, 5\) fits", {"cell": torch.ones(2, 3, 4)}),
    (TypeError, "one dtype fits", {"x": torch.ones(2, 3, 4, 3, dtype=DOUBLE)}),
    (TypeError, "x is torch.int64; ", {"x": torch.ones(2, 3, 4, 3).long()}),
    (TypeError, "hidden is a float; a tensor fits", {"hidden": 0.0}),
    (ValueError, "one device fits", {"bias": torch.ones(2, 20, device="meta")}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "changes"), REFUSED)
def test_bad_arguments_are_refused(error, message, changes):
    check_refused(lstm, error, message, floats() | changes)
