"""pyseq.ops.feed_forward against a loop over tokens, on every backend."""

import math

import pytest
import torch
from torch import nn

from pyseq.ops.feed_forward import feed_forward, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    backends_of,
    check_options,
    check_refused,
    check_written_gradient,
    pairwise,
    random,
    served_dtype,
)
from tests.ops import dropout_oracle

BACKENDS = backends_of("feed_forward")


def inputs(S=2, N=5, C=4, F=20, O=3):  # noqa: E741
    return {
        "x": random(S, N, C, seed=1),
        "weight_in": random(S, F, C, seed=2) / C**0.5,
        "bias_in": random(S, F, seed=3),
        "weight_out": random(S, O, F, seed=4) / F**0.5,
        "bias_out": random(S, O, seed=5),
    }


def floats(**sizes):
    return {name: x.float() for name, x in inputs(**sizes).items()}


def activated(z, activation):
    if activation == "relu":
        return torch.where(z > 0, z, torch.zeros_like(z))
    return z * torch.special.ndtr(z)


def oracle(x, weight_in, bias_in, weight_out, bias_out, *, activation="relu", dropout=0.0, seed=0):
    """One token at a time."""
    stacks = []
    for s in range(x.shape[0]):
        rows = [x.new_zeros(0, bias_out.shape[1])]
        for n in range(x.shape[1]):
            hidden = activated(weight_in[s] @ x[s, n] + bias_in[s], activation)
            if dropout > 0:
                hidden = hidden * dropout_oracle.factors(seed, (s, n), hidden.shape[0], dropout)
            rows.append((weight_out[s] @ hidden + bias_out[s])[None])
        stacks.append(torch.cat(rows))
    return torch.stack(stacks)


def specification(*tensors, activation="relu", dropout=0.0, seed=0, **named):
    found = reference.transform(
        *tensors, **named, seed=torch.tensor(seed), activation=activation, dropout=dropout
    )
    dtype = next(iter(named.values())).dtype if named else tensors[0].dtype
    return found.to(dtype)


def check(tensors, dtype, backend, **options):
    check_options(feed_forward, oracle, specification, tensors, dtype, backend, **options)


# The kernels hold 48 tokens and 32 features; products are of rows in groups of 6, 12 and 4, and of
# columns in groups of 8 to 32.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("N", [1, 4, 5, 47, 48, 49, 97])
def test_sizes_around_a_tile_of_tokens(N, backend):
    check(inputs(N=N), torch.float32, backend, dropout=0.2, seed=3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("F", [1, 8, 15, 16, 17, 31, 32, 33, 70])
def test_sizes_around_a_block_of_features(F, backend):
    check(inputs(S=1, F=F), torch.float32, backend, dropout=0.2, seed=3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("C", [1, 2, 6, 7, 8, 10, 13, 32, 33])
@pytest.mark.parametrize("O", [1, 8, 11, 33])
def test_widths(C, O, backend):  # noqa: E741
    check(inputs(S=1, N=7, C=C, O=O), torch.float32, backend)


PAIRS = pairwise(
    dtype=DTYPES,
    S=[1, 3],
    N=[1, 11],
    C=[1, 10],
    F=[3, 40],
    O=[2, 10],
    activation=["relu", "gelu"],
    dropout=[0.0, 0.1, 0.6],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    tensors = inputs(*(case[name] for name in "SNCFO"))
    tensors = {
        name: STRIDES[case["strides"]](x) if x.dim() == 3 else x for name, x in tensors.items()
    }
    options = {name: case[name] for name in ("activation", "dropout")}
    check(tensors, case["dtype"], backend, seed=11, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("S", [1, 5, 20])
def test_many_tokens(S, backend):
    """Several parts of a stack; the oracle of loops would take minutes."""
    check_options(
        feed_forward, specification, specification, inputs(S=S, N=1500, C=10, F=64, O=10),
        torch.float32, backend, dropout=0.1, seed=9,
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_pytorchs_layers(activation, backend):
    x = floats(S=1, N=30, C=10, F=64, O=10)
    act = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]()
    layers = nn.Sequential(nn.Linear(10, 64), act, nn.Linear(64, 10))
    with torch.no_grad():
        for own, given in zip(layers.parameters(), list(x.values())[1:], strict=True):
            own.copy_(given[0])
    found = feed_forward(**x, activation=activation, backend=backend)
    torch.testing.assert_close(found, layers(x["x"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gelu_in_its_tails(backend):
    """Where the function is tiny, and where it is nearly z."""
    z = torch.linspace(-12, 12, 4001)[None, :, None]
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1)
    leaf = z.clone().requires_grad_()
    out = feed_forward(leaf, one, zero, one, zero, activation="gelu", backend=backend)
    [slope] = torch.autograd.grad(out.sum(), leaf)
    wide = z.double()
    exact = wide * torch.special.ndtr(wide)
    density = torch.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    assert float((out.detach() - exact).abs().max()) < 1e-6
    assert float((slope - torch.special.ndtr(wide) - wide * density).abs().max()) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stack_is_its_models(backend):
    """But for dropout, whose zeros are drawn by the place in the stack."""
    x = floats(S=3, N=60, C=10, F=70, O=10)
    whole = feed_forward(**x, backend=backend)
    for s in range(3):
        alone = feed_forward(**{n: y[s : s + 1] for n, y in x.items()}, backend=backend)
        torch.testing.assert_close(whole[s : s + 1], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_is_right_on_average(backend):
    x = floats(S=1, N=3, C=2, F=8, O=2)
    plain = feed_forward(**x, backend=backend)
    draws = torch.stack(
        [feed_forward(**x, dropout=0.3, seed=i, backend=backend) for i in range(4000)]
    ).double()
    error = (draws.mean(0) - plain).abs() / (draws.std(0) / math.sqrt(4000))
    assert float(error.max()) < 5
    assert float(draws.std(0).min()) > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_reaches_no_other_token(backend):
    x = floats(S=2, N=60, C=10, F=40, O=10)
    clean = feed_forward(**x, dropout=0.2, backend=backend)
    x["x"][1, 50, 3] = math.nan
    found = feed_forward(**x, dropout=0.2, backend=backend)
    bad = torch.zeros(2, 60, dtype=bool)
    bad[1, 50] = True
    assert torch.equal(found.isnan().all(-1), bad)
    assert torch.equal(found[~bad], clean[~bad])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "sizes", [{"S": 0}, {"N": 0}, {"C": 0}, {"F": 0}, {"O": 0}], ids=lambda sizes: str(*sizes)
)
def test_empty(sizes, backend):
    x = {name: y.float() for name, y in inputs(**{"C": 4, "F": 20} | sizes).items()} if not {
        "C", "F"} & set(sizes) else empty_inside(**sizes)  # fmt: skip
    x = {name: y.requires_grad_() for name, y in x.items()}
    out = feed_forward(**x, dropout=0.1, backend=backend)
    assert out.shape == (*x["x"].shape[:2], x["weight_out"].shape[1])
    torch.testing.assert_close(out, specification(**x, dropout=0.1))
    for leaf, found in zip(
        x.values(), torch.autograd.grad(out.sum(), list(x.values())), strict=True
    ):
        assert found.shape == leaf.shape
        assert found.isfinite().all()


def empty_inside(S=2, N=5, C=4, F=20, O=3):  # noqa: E741
    shapes = {
        "x": (S, N, C),
        "weight_in": (S, F, C),
        "bias_in": (S, F),
        "weight_out": (S, O, F),
        "bias_out": (S, O),
    }
    return {name: torch.ones(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_written_gradient_is_autograds(activation, dropout):
    leaves = [x.requires_grad_() for x in inputs(N=9).values()]
    options = {"activation": activation, "dropout": dropout, "seed": 4}
    ours = feed_forward(*leaves, **options, backend="reference")
    check_written_gradient(specification(*leaves, **options), ours, leaves)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_gradcheck(activation):
    leaves = [x.requires_grad_() for x in inputs(N=3, F=7).values()]
    options = {"activation": activation, "dropout": 0.3, "seed": 2}
    assert torch.autograd.gradcheck(
        lambda *x: feed_forward(*x, **options, backend="reference"), leaves
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend):
    dtype = served_dtype(backend, DOUBLE)
    leaves = [x.to(dtype).requires_grad_() for x in inputs().values()]
    arguments = (*leaves, torch.tensor(3), "relu", 0.25, backend)
    torch.library.opcheck(torch.ops.pyseq.feed_forward.default, arguments)


REFUSED = [
    (ValueError, r"activation is 'tanh'; 'relu' or 'gelu' fits", {"activation": "tanh"}),
    (TypeError, "activation is a NoneType; a str fits", {"activation": None}),
    (ValueError, r"2, 3 and 3 dimensions; x \(S, N, C\)", {"x": torch.ones(2, 4)}),
    (ValueError, r"weight_in has shape \(2, 20, 5\); \(2, 20, 4\) fits; x \(2, 5, 4\)", {
        "weight_in": torch.ones(2, 20, 5)}),
    (ValueError, r"bias_in has shape \(2, 3\); \(2, 20\) fits", {"bias_in": torch.ones(2, 3)}),
    (ValueError, r"weight_out has shape \(1, 3, 20\); \(2, 3, 20\) fits", {
        "weight_out": torch.ones(1, 3, 20)}),
    (ValueError, r"bias_out has shape \(3,\); \(2, 3\) fits", {"bias_out": torch.ones(3)}),
    (TypeError, "one dtype fits", {"x": torch.ones(2, 5, 4, dtype=DOUBLE)}),
    (TypeError, "x is torch.int64; ", {"x": torch.ones(2, 5, 4).long()}),
    (ValueError, "one device fits", {"bias_out": torch.ones(2, 3, device="meta")}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "changes"), REFUSED)
def test_bad_arguments_are_refused(error, message, changes):
    check_refused(feed_forward, error, message, floats() | changes)
