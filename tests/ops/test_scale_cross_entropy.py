"""pyseq.ops.scale_cross_entropy against loops written from its formulas, on every backend."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyseq.kernels.scale_cross_entropy import limits
from pyseq.ops.scale_cross_entropy import parts, reference, scale_cross_entropy
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    backends_of,
    check_options,
    check_refused,
    check_same_gradients,
    check_written_gradient,
    nan_filled_memory,
    pairwise,
    place,
    random,
    served,
    served_dtype,
)

BACKENDS = backends_of("scale_cross_entropy")
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
INTEGERS += [torch.uint16, torch.uint32, torch.uint64]


def draw(V, *shape, seed=3):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


def inputs(N=6, V=13, C=8, bias=True, dtype=DOUBLE):
    tensors = {"hidden": random(N, C, seed=1), "weight": random(V, C, seed=2)}
    tensors |= {"bias": random(V, seed=4)} if bias else {}
    return {name: x.to(dtype) for name, x in tensors.items()}


# The oracle: one row at a time, probabilities summed into bins, nothing shared with pyseq.


def oracle_rows(hidden, weight, bias, targets, scales, ignore_index):
    """Losses (n_scales, N)."""
    rows = []
    for h, t in zip(hidden, targets.tolist(), strict=True):
        if t == ignore_index:
            rows.append(weight.new_zeros(len(scales)))
            continue
        logits = weight @ h if bias is None else weight @ h + bias
        mass = torch.exp(logits - float(logits.detach().max()))
        p = mass / mass.sum()
        bins = [[i for i in range(len(p)) if i // s == t // s] for s in scales]
        rows.append(torch.stack([-torch.log(p[b].sum()) for b in bins]))
    return torch.stack(rows, 1) if rows else weight.new_zeros(len(scales), 0)


def pair(rows, targets, scale_weights=None, ignore_index=None, reduction="mean"):
    """The loss and the losses per scale, as one vector, of losses (n_scales, N)."""
    weights = scale_weights or [1.0] * len(rows)
    if reduction != "none":
        kept = sum(t != ignore_index for t in targets.tolist())
        rows = rows.sum(1, keepdim=True) / (kept if reduction == "mean" else 1)
    loss = sum(w * row for w, row in zip(weights, rows, strict=True))
    return torch.cat([loss[None], rows]).flatten()


def oracle(hidden, weight, bias=None, *, targets, scales=(1,), ignore_index=None, **options):
    flat, t = hidden.reshape(-1, hidden.shape[-1]), targets.flatten()
    rows = oracle_rows(flat, weight, bias, t, scales, ignore_index)
    return pair(rows, t, ignore_index=ignore_index, **options)


def specification(hidden, weight, bias=None, *, targets, scales=(1,), ignore_index=None, **options):
    flat, t = hidden.reshape(-1, hidden.shape[-1]), targets.long().flatten()
    rows = reference.losses(flat, weight, bias, t, scales, ignore_index)
    return pair(rows, t, ignore_index=ignore_index, **options)


def ours(hidden, weight, bias=None, *, targets, **options):
    loss, per_scale = scale_cross_entropy(hidden, weight, targets, bias=bias, **options)
    return torch.cat([loss.flatten(), per_scale.flatten()])


check = partial(check_options, ours, oracle, specification)


# The sizes around a tile of 64 rows or symbols, in full; everything else meets pairwise below.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("V", [2, 63, 64, 65, 131])
@pytest.mark.parametrize("N", [1, 63, 64, 65, 131])
def test_sizes_around_a_tile(N, V, backend):
    check(inputs(N, V), torch.float32, backend, targets=draw(V, N), scales=(1, 7))


# Not 33 symbols in bins of 32: what little a bin leaves there is less than float32's sums of all
# round off, and the reference's error is luck.
PAIRS = pairwise(
    dtype=DTYPES,
    shape=[(1,), (9,), (3, 5), (2, 3, 2)],
    V=[40, 64, 100],
    C=[1, 8, 80, 131],
    scales=[(1,), (3,), (1, 4, 16), (16, 1), (1, 1000), (32, 32)],
    weighed=[False, True],
    bias=[False, True],
    ignore_index=[None, -100, 5],
    reduction=["mean", "sum", "none"],
    integers=INTEGERS,
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    shape, V, C, ignored = case["shape"], case["V"], case["C"], case["ignore_index"]
    tensors = inputs(1, V, C, bias=case["bias"]) | {"hidden": random(*shape, C, seed=1)}
    for name in ("hidden", "weight"):
        tensors[name] = STRIDES[case["strides"]](tensors[name])
    targets = draw(V, *shape)
    signed = case["integers"].is_signed
    if ignored is not None and (signed or ignored >= 0) and targets.numel() > 1:
        targets.view(-1)[1::3] = ignored
    options = {name: case[name] for name in ("scales", "ignore_index", "reduction")}
    if case["weighed"]:
        options["scale_weights"] = [0.5, 0.0, 2.0][: len(case["scales"])]
    check(tensors, case["dtype"], backend, targets=targets.to(case["integers"]), **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scales", [(10,), (1, 10, 4096)])
def test_last_bin_may_be_narrower(scales, backend):
    """V = 10001 in bins of 10: the last one holds symbol 10000 alone."""
    targets = torch.tensor([0, 9, 10, 9998, 9999, 10000])
    check(inputs(6, 10001), torch.float32, backend, targets=targets, scales=scales)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignore_index", [None, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_scale_one_is_cross_entropy(reduction, ignore_index, backend):
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.requires_grad_() for name, y in inputs(40, 13, dtype=dtype).items()}
    targets = draw(13, 40)
    ignored = {} if ignore_index is None else {"ignore_index": ignore_index}
    logits = nn.functional.linear(*x.values())
    expected = nn.functional.cross_entropy(logits, targets, reduction=reduction, **ignored)
    op = served(scale_cross_entropy, backend)
    loss, per_scale = op(**x, targets=targets, reduction=reduction, **ignored)
    close = {"rtol": 1e-12, "atol": 1e-14} if dtype == DOUBLE else {"rtol": 1e-5, "atol": 1e-5}
    assert torch.allclose(loss, expected, **close)
    assert torch.equal(per_scale, loss[None])
    grad = random(*loss.shape, seed=8).to(dtype)
    found, wanted = (torch.autograd.grad(y, list(x.values()), grad) for y in (loss, expected))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, **close)


@pytest.mark.parametrize("backend", BACKENDS)
def test_narrow_inputs_have_exact_logits(backend):
    """bfloat16 holds 8 bits: losses as good as this cannot come from logits in it."""
    x = inputs(50, 200, 64, dtype=served_dtype(backend, torch.bfloat16))
    targets = draw(200, 50)
    options = {"targets": targets, "scales": (1, 16), "reduction": "none"}
    exact = oracle(**{name: y.double() for name, y in x.items()}, **options)
    found = served(ours, backend)(**x, **options)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_formulas(backend):
    """d logits = sum_s g_s (softmax - softmax within the bin), from dense matrices."""
    N, V, scales = 9, 23, (1, 4, 10)
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.requires_grad_() for name, y in inputs(N, V, dtype=dtype).items()}
    targets, g = draw(V, N), random(len(scales), N, seed=7).to(dtype)
    op = served(scale_cross_entropy, backend)
    _, per_scale = op(**x, targets=targets, scales=scales, reduction="none")
    found = torch.autograd.grad(per_scale, list(x.values()), g)
    with torch.no_grad():
        p = torch.softmax(x["hidden"] @ x["weight"].T + x["bias"], -1)
        D = torch.zeros(N, V, dtype=dtype)
        for s, g_s in zip(scales, g, strict=True):
            same = torch.arange(V) // s == (targets // s)[:, None]
            within = torch.where(same, p, 0) / torch.where(same, p, 0).sum(-1, keepdim=True)
            D += g_s[:, None] * (p - within)
        expected = (D @ x["weight"], D.T @ x["hidden"], D.sum(0))
    for a, b in zip(found, expected, strict=True):
        close = {"rtol": 1e-11, "atol": 1e-13} if dtype == DOUBLE else {"rtol": 1e-5, "atol": 1e-5}
        assert torch.allclose(a, b, **close)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [None, 2])
def test_gradcheck(ignore_index, reduction):
    leaves = [x.requires_grad_() for x in inputs(4, 7, 3).values()]

    def op(hidden, weight, bias):
        return scale_cross_entropy(
            hidden,
            weight,
            torch.tensor([6, 2, 0, 5]),
            bias=bias,
            scales=(1, 2, 3, 9),
            scale_weights=(0.5, 1.0, 2.0, 1.0),
            ignore_index=ignore_index,
            reduction=reduction,
            backend="reference",
        )

    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("scales", [(1,), (5,), (1, 4, 10, 50)])
def test_written_gradient_is_autograds(scales):
    """The registered backward against autograd through the specification."""
    N, V = 30, 23
    x, targets = inputs(N, V), draw(V, N)
    assert (targets == 3).any()
    x["hidden"][targets == 3] = math.nan  # ignored
    leaves = [y.requires_grad_() for y in x.values()]
    specified = reference.losses(*leaves, targets, scales, 3)
    ours, _ = torch.ops.pyseq.scale_cross_entropy(*leaves, targets, scales, 3, "reference")
    check_written_gradient(specified, ours, leaves)


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_parts_equal_the_whole(monkeypatch, rows):
    """The oracle's other cases are one part each; less than a row's logits is one row a part."""
    options = {"targets": draw(50, 60), "scales": (1, 8), "ignore_index": 9}
    monkeypatch.setattr(parts, "MAX_LOGITS", 49 if rows == 1 else rows * 50)
    check(inputs(60, 50), torch.float32, "reference", **options)
    check(inputs(60, 50), torch.bfloat16, "reference", **options)


@pytest.mark.parametrize("columns", [9, 32, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_chunks_equal_the_whole(monkeypatch, dtype, columns):
    """Triton's backward in one part or many of rows and columns, its forward in one split or all.

    Fresh memory is NaN, and a chunk of 4 KiB is less than a tile.
    """
    monkeypatch.setattr(limits, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(limits, "FEWEST_COLUMNS", columns)
    monkeypatch.setattr(limits, "MOST_COLUMNS", columns)
    monkeypatch.setattr(limits, "PROGRAMS", columns)
    assert limits.chunk(37, 150, 2)[1] == columns
    with nan_filled_memory():
        check(inputs(37, 150), dtype, "triton", targets=draw(150, 37), scales=(1, 40, 100))


class LargestTensor(TorchDispatchMode):
    """The elements of the largest tensor that anything makes, in our ops too."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "pyseq":  # a mode is off inside what it dispatches
            with self:
                key = torch._C.DispatchKey.CompositeExplicitAutograd
                return func._op_dk(key, *args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


def test_logits_of_all_rows_never_exist():
    N, V, C = 512, 65536, 8
    hidden = torch.randn(N, C, requires_grad=True)
    weight = torch.randn(V, C, requires_grad=True)
    targets = draw(V, N).to(torch.uint16)
    with LargestTensor() as forward:
        loss, _ = scale_cross_entropy(
            hidden, weight, targets, scales=(1, 16, 256), backend="reference"
        )
    with LargestTensor() as backward:
        loss.backward()
    assert forward.elements == backward.elements == parts.MAX_LOGITS == N * V // 2


def test_the_largest_tensor_is_seen():
    """A check of the check above, where the logits fit in one part."""
    x = inputs(30, 20)
    with LargestTensor() as largest:
        scale_cross_entropy(**x, targets=draw(20, 30))
    assert largest.elements == 600


GROWTH = """
import resource
import torch
from pyseq.ops import scale_cross_entropy

def run(N, V):
    hidden = torch.randn(N, 32, requires_grad=True)
    weight = torch.randn(V, 32, requires_grad=True)
    targets = torch.randint(V, (N,))
    scale_cross_entropy(hidden, weight, targets, scales=(1, 16), backend="native")[0].backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = run(16, 16)
print(run(8192, 16384) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit")
def test_the_kernels_memory_is_not_the_logits():
    """The process grows by less than a quarter of the 512 MiB that all logits would take."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 8192 * 16384


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_empty(reduction, shape, backend):
    x = {name: y.float().requires_grad_() for name, y in inputs(1, 13).items()}
    x["hidden"] = torch.zeros(*shape, 8, requires_grad=True)
    options = {"scales": (1, 4), "reduction": reduction, "ignore_index": 2}
    op = served(scale_cross_entropy, backend)
    loss, per_scale = op(**x, targets=draw(13, *shape), **options)
    assert loss.shape == (shape if reduction == "none" else ())
    assert per_scale.shape == (2, *loss.shape)
    if reduction != "none":
        assert loss.isnan() if reduction == "mean" else loss == 0
    for grad in torch.autograd.grad(loss.sum(), list(x.values())):
        assert not grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignore_index", [-100, 7])
def test_mean_of_ignored_rows_only(ignore_index, backend):
    """NaN with gradients of 0, as PyTorch's own."""
    x = {name: y.float().requires_grad_() for name, y in inputs().items()}
    targets = torch.full((6,), ignore_index)
    op = served(scale_cross_entropy, backend)
    loss, _ = op(**x, targets=targets, ignore_index=ignore_index, scales=(1, 4))
    logits = nn.functional.linear(*x.values())
    theirs = nn.functional.cross_entropy(logits, targets, ignore_index=ignore_index)
    assert loss.isnan()
    assert theirs.isnan()
    for y in (loss, theirs):
        assert not any(grad.any() for grad in torch.autograd.grad(y, list(x.values())))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ignore_index", [-100, 12])
def test_ignored_rows_do_not_matter(ignore_index, bad, backend):
    """The losses and gradients are those of the other rows alone, whatever an ignored row holds."""
    x = {name: y.float() for name, y in inputs(10, 13).items()}
    targets = draw(12, 10)
    kept = torch.arange(10) % 3 != 1
    alone = {name: y.clone().requires_grad_() for name, y in x.items()}
    wanted = ours(**alone | {"hidden": alone["hidden"][kept]}, targets=targets[kept], scales=(1, 5))
    expected = torch.autograd.grad(wanted.sum(), list(alone.values()))
    x["hidden"][~kept] = bad
    targets[~kept] = ignore_index
    leaves = {name: y.requires_grad_() for name, y in x.items()}
    options = {"targets": targets, "scales": (1, 5), "ignore_index": ignore_index}
    found = served(ours, backend)(**leaves, **options)
    assert torch.allclose(found, wanted, atol=1e-6)
    grads = torch.autograd.grad(found.sum(), list(leaves.values()))
    assert not grads[0][~kept].any()
    for a, b in zip(grads, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    rows = served(scale_cross_entropy, backend)(**leaves, **options, reduction="none")[1]
    assert not rows[:, ~kept].any()
    assert rows[:, kept].all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_rows_stay_alone(bad, backend):
    targets = draw(13, 10)

    def run(spoil_hidden=False, spoil_grad=False, grad_of_row=1.0):
        x = {name: y.float() for name, y in inputs(10, 13).items()}
        grad = torch.ones(2, 10)
        grad[:, 4] = grad_of_row
        if spoil_hidden:
            x["hidden"][4, 3] = bad
        if spoil_grad:
            grad[1, 4] = bad
        leaves = [y.requires_grad_() for y in x.values()]
        op = served(scale_cross_entropy, backend)
        _, rows = op(*leaves[:2], targets, bias=leaves[2], scales=(1, 5), reduction="none")
        return rows.detach(), torch.autograd.grad(rows, leaves, grad)

    others = torch.arange(10) != 4
    rows, (d_hidden, *_) = run()
    for spoilt in ({"spoil_hidden": True}, {"spoil_grad": True}):
        bad_rows, (bad_hidden, bad_weight, _) = run(**spoilt)
        assert torch.allclose(rows[:, others], bad_rows[:, others], atol=1e-6)
        assert torch.allclose(d_hidden[others], bad_hidden[others], atol=1e-6)
        assert not bad_hidden[4].isfinite().any()
        assert not bad_weight.isfinite().all()
        assert bad_rows[:, 4].isnan().all() == ("spoil_hidden" in spoilt)
    # A row that nothing is asked of, as behind a mask, keeps its NaN from the weights.
    for a, b in zip(run(grad_of_row=0.0)[1], run(True, grad_of_row=0.0)[1], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("V", [1, 13])
def test_a_bin_of_everything_costs_nothing(V, backend):
    x = {name: y.float().requires_grad_() for name, y in inputs(6, V).items()}
    op = served(scale_cross_entropy, backend)
    loss, per_scale = op(**x, targets=draw(V, 6), scales=(V, V + 1, 1 << 40))
    assert per_scale.tolist() == [0.0, 0.0, 0.0]
    assert loss == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, list(x.values())))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits(dtype, backend):
    """Far below the maximum a bin keeps its mass in logarithms, where its probability is 0."""
    dtype = served_dtype(backend, dtype)
    size = 9984.0  # near 10^4, and a number of all three dtypes
    logits = torch.tensor([size, 0, -size, -size, -size, size, -size], dtype=dtype)
    hidden = logits.expand(7, 7).clone().requires_grad_()
    op = served(scale_cross_entropy, backend)
    symbols = torch.arange(7)
    loss, per_scale = op(
        hidden, torch.eye(7, dtype=dtype), symbols, scales=(1, 2), reduction="none"
    )
    everything = size + math.log(2)
    one = everything - logits.double()
    pairs = [size, size, math.log(2) - size, math.log(2) - size, size, size, -size]
    two = everything - torch.tensor(pairs, dtype=DOUBLE)
    assert torch.allclose(per_scale.double(), torch.stack([one, two]), rtol=1e-7, atol=1e-6)
    p = torch.tensor([0.5, 0, 0, 0, 0, 0.5, 0])
    within = torch.eye(7) + torch.tensor(
        [
            [1, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
            [0, 0, 0.5, 0.5, 0, 0, 0],
            [0, 0, 0.5, 0.5, 0, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 0, 1],
        ]
    )
    [grad] = torch.autograd.grad(loss.sum(), hidden)
    assert torch.equal(grad.float(), 2 * p - within)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coarser_bins_never_cost_more(backend):
    x = {name: y.float() * 2 for name, y in inputs(200, 131).items()}
    op, scales = served(scale_cross_entropy, backend), (1, 2, 6, 12, 60, 120, 240)
    _, rows = op(**x, targets=draw(131, 200), scales=scales, reduction="none")
    assert (rows[1:] <= rows[:-1] + 1e-5).all()
    assert (rows[:-1].mean(1) > rows[1:].mean(1)).all()


@pytest.mark.parametrize("scales", [(1,), (1, 3), (3,)])
def test_the_true_distribution_is_best(scales):
    """Minimise the expected loss over all logits: every bin's probability comes out true."""
    V = 7
    p = torch.softmax(random(V, seed=5), 0)
    logits = random(V, seed=6).requires_grad_()

    def expected_loss(logits):
        rows, _ = scale_cross_entropy(
            logits.expand(V, V),
            torch.eye(V, dtype=DOUBLE),
            torch.arange(V),
            scales=scales,
            reduction="none",
            backend="reference",  # what is tested is the loss's meaning, in float64
        )
        return (p * rows).sum()

    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = expected_loss(logits)
        loss.backward()
        return loss

    assert expected_loss(logits.detach()) > expected_loss(p.log()) + 0.01
    optimizer.step(closure)
    found = torch.softmax(logits.detach(), 0)
    for start in range(0, V, min(scales)):
        bin_ = slice(start, start + min(scales))
        assert torch.allclose(found[bin_].sum(), p[bin_].sum(), atol=1e-4)
    entropy = 0.0  # of the bins, summed over the scales
    for s in scales:
        masses = torch.stack([p[start : start + s].sum() for start in range(0, V, s)])
        entropy -= float((masses * masses.log()).sum())
    assert float(expected_loss(p.log())) == pytest.approx(entropy, abs=1e-12)
    assert float(expected_loss(logits.detach())) == pytest.approx(entropy, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_targets_of_any_integer_dtype(dtype, backend):
    # Every dtype is made int64 before Triton, in whose interpreter 65536 symbols take seconds.
    largest = 300 if backend == "triton" and dtype != torch.uint16 else 65536
    V = min(largest, torch.iinfo(dtype).max + 1)
    targets = torch.tensor([0, 1, 100, V // 2, V - 2, V - 1])
    hidden, weight = random(6, 4).float(), random(V, 4, seed=2).float()
    op = served(ours, backend)
    for ignore_index in (V - 1,) if backend == "triton" else (None, V - 1, -100):
        options = {"scales": (1, 256), "ignore_index": ignore_index}
        expected = ours(hidden, weight, targets=targets, **options)
        found = op(hidden, weight, targets=targets.to(dtype), **options)
        assert torch.allclose(
            found, expected, rtol=1e-6, atol=0 if backend == "reference" else 1e-6
        )


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("target", [-100, -1, 13, 14])
@pytest.mark.parametrize("scales", [(1,), (5,), (20,)])
def test_targets_outside_the_alphabet(scales, target, backend):
    """On the CPU; 13 and 14 would fall in the last bin of 5, and -1 counts from the end."""
    x = inputs(2, 13, dtype=torch.float32)
    with pytest.raises(IndexError, match="out of range"):
        scale_cross_entropy(**x, targets=torch.tensor([3, target]), scales=scales, backend=backend)


@pytest.mark.parametrize("target", [-100, -1, 13, 14, 1 << 40])
def test_targets_outside_the_alphabet_in_triton(target):
    """Their loss is infinite, and the other rows know nothing of it."""
    x = inputs(3, 13, dtype=torch.float32)
    options = {"scales": (1, 5), "reduction": "none"}
    op = served(scale_cross_entropy, "triton")
    _, rows = op(**x, targets=torch.tensor([3, target, 12]), **options)
    _, right = op(**x, targets=torch.tensor([3, 3, 12]), **options)
    assert rows[:, 1].tolist() == [math.inf, math.inf]
    assert torch.equal(rows[:, ::2], right[:, ::2])


def test_small_gradients_of_float16_do_not_vanish():
    """A mean over many rows of many symbols: 2^-30 is no number of float16."""
    x = {name: y.requires_grad_() for name, y in inputs(12, 40, dtype=torch.float16).items()}
    found, expected = (
        torch.autograd.grad(
            served(ours, backend)(**x, targets=draw(40, 12), scales=(1, 4)).sum() * 2.0**-15,
            x["weight"],
        )[0]
        for backend in ("triton", "reference")
    )
    assert found.any()
    assert torch.allclose(found, expected, rtol=2e-3, atol=2.0**-24)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_is_the_weighted_sum(backend):
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.requires_grad_() for name, y in inputs(9, 23, dtype=dtype).items()}
    options = {"targets": draw(23, 9), "scales": (1, 4, 10)}
    op = served(scale_cross_entropy, backend)
    loss, per_scale = op(**x, **options, scale_weights=(2, 0.0, 0.25))
    assert torch.allclose(loss, 2 * per_scale[0] + 0.25 * per_scale[2])
    plain, same = op(**x, **options)
    assert torch.equal(same, per_scale)
    assert torch.allclose(plain, per_scale.sum())
    leaves = list(x.values())
    weighed = 2 * per_scale[0] + 0.25 * per_scale[2]
    for a, b in zip(
        torch.autograd.grad(loss, leaves, retain_graph=True),
        torch.autograd.grad(weighed, leaves),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-8 if dtype == DOUBLE else 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_of_targets(backend):
    """A single row, and more axes than one, are the flat rows."""
    x = inputs(12, 13, dtype=served_dtype(backend, DOUBLE))
    targets = draw(13, 12)
    options = {"scales": (1, 4), "reduction": "none"}
    op = served(scale_cross_entropy, backend)
    loss, per_scale = op(**x, targets=targets, **options)
    for shape in ((12,), (3, 4), (2, 3, 2), (12, 1)):
        shaped = x | {"hidden": x["hidden"].view(*shape, 8), "targets": targets.view(shape)}
        found, founds = op(**shaped, **options)
        assert torch.equal(found, loss.view(shape))
        assert torch.equal(founds, per_scale.view(2, *shape))
    first = x | {"hidden": x["hidden"][0], "targets": targets[0]}
    assert torch.allclose(op(**first, **options)[1], per_scale[:, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mixed", [torch.float32, torch.bfloat16])
def test_autocast_casts_as_a_linear_layer(mixed, backend):
    """Hidden rows come in either dtype; the losses are those of narrow inputs, in float32."""
    dtype, device = served_dtype(backend, torch.bfloat16), place(backend)
    x = {name: y.to(device) for name, y in inputs(dtype=torch.float32).items()}
    options = {"targets": draw(13, 6).to(device), "scales": (1, 3), "backend": backend}
    narrow = {name: y.to(dtype).requires_grad_() for name, y in x.items()}
    expected = ours(**narrow, **options)
    grads = torch.autograd.grad(expected.sum(), list(narrow.values()))
    leaves = x | {"hidden": x["hidden"].to(mixed if mixed == torch.float32 else dtype)}
    leaves = {name: y.requires_grad_() for name, y in leaves.items()}
    with torch.autocast(device.type, dtype):
        out = ours(**leaves, **options)
        found = torch.autograd.grad(out.sum(), list(leaves.values()))
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    for a, b, leaf in zip(found, grads, leaves.values(), strict=True):
        assert a.dtype == leaf.dtype
        assert torch.equal(a.float(), b.float())


def test_autocast_leaves_float64_alone():
    x, targets = inputs(), draw(13, 6)
    expected = ours(**x, targets=targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(**x, targets=targets), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, bias, backend):
    dtype, device = served_dtype(backend, dtype), place(backend)
    x = [y.to(device) for y in inputs(6, 13, bias=bias, dtype=dtype).values()]
    x[0] = x[0].mT.contiguous().mT
    targets = draw(13, 6).to(device)
    tensors = [*(y.requires_grad_() for y in x), *([] if bias else [None]), targets]
    options = [[1, 5], 3, backend]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.scale_cross_entropy.default, (*tensors, *options))
    constants = [y if y is None else y.detach() for y in tensors]
    out, masses = ops.scale_cross_entropy(*constants, *options)
    arguments = (torch.ones_like(out), *constants, masses, *options, [True, True, bias])
    torch.library.opcheck(ops.scale_cross_entropy_backward.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole_under_autocast(dynamic, backend):
    dtype, device = served_dtype(backend, torch.bfloat16), place(backend)
    x = inputs(8, 20, dtype=torch.float32)
    x = {name: y.to(device).requires_grad_() for name, y in x.items()}
    options = {"targets": draw(20, 2, 4).to(torch.uint16), "scales": (1, 6), "ignore_index": 3}
    options["targets"] = options["targets"].to(device)

    def model(hidden, weight, bias):
        with torch.autocast(device.type, dtype):
            hidden = (hidden * 2).view(2, 4, 8)
            loss, per_scale = scale_cross_entropy(
                hidden, weight, bias=bias, scale_weights=(1.0, 0.5), backend=backend, **options
            )
        return loss + per_scale.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    expected, found = model(**x), compiled(**x)
    assert torch.allclose(expected, found)
    check_same_gradients(
        found, expected, list(x.values()), torch.ones_like(found), rtol=1e-5, atol=1e-6
    )


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"hidden": [1]}, TypeError, "hidden is a list; a tensor fits"),
    ({"weight": f(13, 8).int()}, TypeError, "weight is torch.int32; float32, bfloat16"),
    ({"weight": f(13, 8).half()}, TypeError, "weight torch.float16; one dtype fits"),
    ({"bias": f(13).double()}, TypeError, "bias torch.float64; one dtype fits"),
    ({"bias": True}, TypeError, "bias is a bool; a tensor fits"),
    ({"targets": f(6)}, TypeError, "targets is torch.float32; int64, int32"),
    ({"targets": [1]}, TypeError, "targets is a list; a tensor fits"),
    ({"weight": f(13, 8).to("meta")}, ValueError, "weight on meta.*; one device fits"),
    ({"targets": f(6).int().to("meta")}, ValueError, "targets on meta; one device fits"),
    ({"targets": f(5).int()}, ValueError, r"\(6, 8\) for targets \(5,\); a last axis C"),
    ({"hidden": f(), "targets": f().int()}, ValueError, r"hidden has shape \(\) for targets"),
    ({"weight": f(13)}, ValueError, r"weight has shape \(13,\); \(V, 8\), .*fits; hidden"),
    ({"weight": f(13, 7)}, ValueError, r"weight has shape \(13, 7\); \(V, 8\)"),
    ({"weight": f(0, 8)}, ValueError, r"weight has shape \(0, 8\); \(V, 8\)"),
    ({"hidden": f(6, 0), "weight": f(3, 0)}, ValueError, "V and C at least 1, fits; hidden"),
    ({"bias": f(12)}, ValueError, r"bias has shape \(12,\); \(13,\) fits; hidden"),
    ({"scales": 4}, TypeError, "scales is a int; a tuple of ints fits"),
    ({"scales": ()}, ValueError, "no scales; at least one fits"),
    ({"scales": (1, 0)}, ValueError, "a scale is 0; at least 1 fits"),
    ({"scales": (1, 2.0)}, TypeError, "a scale is a float; an int fits"),
    ({"scale_weights": 1.0}, TypeError, "scale_weights is a float; a tuple of floats or None"),
    ({"scale_weights": (1.0, 1.0)}, ValueError, "2 scale_weights for 1 scales; as many fit"),
    ({"scale_weights": (-1.0,)}, ValueError, "a scale weight is -1.0; at least 0 fits"),
    (
        {"scale_weights": (math.inf,)},
        ValueError,
        "a scale weight is inf; a finite number of float32 fits",
    ),
    ({"scale_weights": ("1",)}, TypeError, "a scale weight is a str; a float fits"),
    ({"ignore_index": 1.0}, TypeError, "ignore_index is a float; an int or None fits"),
    ({"ignore_index": True}, TypeError, "ignore_index is a bool"),
    ({"reduction": "avg"}, ValueError, "reduction is 'avg'; 'mean', 'sum' or 'none' fits"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"hidden": f(6, 8), "weight": f(13, 8), "targets": f(6).int()}
    check_refused(scale_cross_entropy, error, message, right | wrong)


def test_autocast_does_not_excuse_float64():
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(TypeError, match=r"hidden is torch.float64, weight torch.bfloat16; one"),
    ):
        scale_cross_entropy(f(6, 8).double(), f(13, 8), f(6).int())
