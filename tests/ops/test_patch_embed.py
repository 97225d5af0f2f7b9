"""pyseq.ops.patch_embed against loops written from its formulas, on every backend."""

import math
from functools import partial

import pytest
import torch

from pyseq.kernels.patch_embed import limits
from pyseq.ops import BackendUnavailable
from pyseq.ops.patch_embed import patch_embed, reference
from tests.correctness import (
    DOUBLE,
    DTYPES,
    STRIDES,
    backends_of,
    check_correct,
    check_refused,
    check_written_gradient,
    pairwise,
    place,
    random,
    served,
    served_dtype,
)

BACKENDS = backends_of("patch_embed")


def integers(B, T, dtype):
    limits = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(limits.min, limits.max + 1, (B, T), generator=generator)
    return drawn.to(dtype)


# The oracle: one patch at a time, one formula per line, nothing shared with pyseq.


def oracle(samples, weight, bias=None, center=0.0, spread=1.0, stride=None, pad_end=False):
    (B, T), (C, P) = samples.shape, weight.shape
    stride = P if stride is None else stride
    end = T + stride if pad_end else T
    center, spread = (torch.as_tensor(y, dtype=DOUBLE).expand(B) for y in (center, spread))
    rows = []
    for b in range(B):
        start = 0
        while start + P <= end:
            x = torch.stack([samples[b, min(t, T - 1)] for t in range(start, start + P)])
            x = (x - center[b]) / spread[b]
            rows.append((weight * x).sum(1) + (0 if bias is None else bias))
            start += stride
    if not rows:
        return torch.zeros(B, (end - P) // stride + 1, C, dtype=DOUBLE) + weight.sum()
    return torch.stack(rows).view(B, -1, C)


def specification(samples, weight, bias=None, center=0.0, spread=1.0, stride=None, pad_end=False):
    stride = weight.shape[1] if stride is None else stride
    center, spread = (torch.as_tensor(y, dtype=DOUBLE) for y in (center, spread))
    return reference.embed(samples, weight, bias, center, spread, stride, pad_end)


def check(tensors, dtype, backend, **options):
    constants = [
        name
        for name, x in tensors.items()
        if name in ("center", "spread") or not x.is_floating_point()
    ]
    check_correct(
        partial(served(patch_embed, backend), **options),
        partial(oracle, **options),
        partial(specification, **options),
        tensors,
        served_dtype(backend, dtype),
        constants=constants,
    )


def inputs(B=2, T=37, C=5, P=8):
    return {
        "samples": random(B, T, seed=1),
        "weight": random(C, P, seed=2),
        "bias": random(C, seed=3),
    }


def floats(**options):
    return {name: x.float() for name, x in inputs(**options).items()}


# Patches around a tile of 64, in full over what changes their number.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("N", [1, 63, 64, 65, 131])
@pytest.mark.parametrize(("P", "stride"), [(1, 1), (4, 4), (4, 3), (4, 1)])
def test_sizes_around_a_tile(P, stride, N, pad_end, backend):
    for left in {0, stride - 1}:
        tensors = inputs(B=1, T=P + (N - 1) * stride + left, C=3, P=P)
        check(tensors, torch.float32, backend, stride=stride, pad_end=pad_end)


# Tiles are of 16, 32 or 64 patches, 64 or 128 features and 16 or 32 samples.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("B", "N", "C", "P", "stride"),
    [(2, 33, 129, 33, 11), (1, 17, 200, 16, 16), (3, 15, 16, 100, 99), (2, 2, 128, 256, 1)],
)
def test_sizes_around_tiles_of_all_axes(B, N, C, P, stride, dtype, backend):
    tensors = inputs(B=B, T=P + (N - 1) * stride, C=C, P=P)
    check(tensors, dtype, backend, stride=stride, pad_end=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("most_parts", [1, 2, 4])
def test_sums_over_many_patches_of_many_rows(most_parts, dtype, backend, monkeypatch):
    """A program sums several tiles of patches, across the ends of rows."""
    monkeypatch.setattr(limits, "MOST_PARTS", most_parts)
    check(inputs(B=3, T=8 * 65, C=20, P=8), dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_symbols_that_are_not_normalised(dtype, backend):
    tensors = {"samples": integers(2, 320, torch.uint16), "weight": random(24, 16, seed=2) / 64}
    check(tensors, dtype, backend)


SAMPLES = {
    "as weight": lambda B, T: random(B, T, seed=1) * 3 + 5,
    "uint16": lambda B, T: integers(B, T, torch.uint16),
    "int16": lambda B, T: integers(B, T, torch.int16),
    "float32": lambda B, T: random(B, T, seed=1).float() * 3 + 5,
    "float16": lambda B, T: random(B, T, seed=1).half() * 3 + 5,
}
PAIRS = pairwise(
    dtype=DTYPES,
    samples=list(SAMPLES),
    B=[1, 3],
    T=[80, 97, 131],
    C=[1, 3, 64, 65],
    P=[1, 16, 17, 63, 64, 65],
    stride=["P", "half", "1"],
    pad_end=[False, True],
    bias=[False, True],
    rows=[False, True],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    B, T, C, P = (case[name] for name in "BTCP")
    strided = STRIDES[case["strides"]]
    tensors = {
        "samples": strided(SAMPLES[case["samples"]](B, T)),
        "weight": strided(random(C, P, seed=2)),
    }
    if case["bias"]:
        tensors["bias"] = random(C, seed=3)
    wide = case["samples"] in ("uint16", "int16")
    center, spread = (30000.0, 9000.0) if wide else (4.5, 2.5)
    options = {"stride": {"P": P, "half": (P + 1) // 2, "1": 1}[case["stride"]]}
    options["pad_end"] = case["pad_end"]
    if case["rows"]:
        tensors["center"] = center + torch.linspace(0, 1, B)
        tensors["spread"] = spread + torch.linspace(0, 1, B)
    else:
        options |= {"center": center, "spread": spread}
    check(tensors, case["dtype"], backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    ("value", "samples", "weight"),
    [
        (65535, torch.uint16, torch.float16),  # infinite in float16
        (40001, torch.uint16, torch.bfloat16),  # 39936 in bfloat16
        (65535, torch.uint16, torch.bfloat16),
        (-32767, torch.int16, torch.bfloat16),
        (-32767, torch.int16, torch.float16),
        (16777217.0, torch.float64, torch.float32),  # 16777216 in float32
    ],
)
def test_samples_are_normalised_before_any_rounding(value, samples, weight, rows, backend):
    if backend != "reference" and samples == DOUBLE:
        pytest.skip("refused, which test_float64_samples_are_refused is about")
    x = torch.tensor([[value, value - 1]], dtype=DOUBLE).to(samples)
    center = torch.tensor([value - 1], dtype=DOUBLE) if rows else float(value - 1)
    one = torch.ones(1, 1, dtype=served_dtype(backend, weight))
    out = served(patch_embed, backend)(x, one, center=center)
    assert out.dtype == one.dtype
    assert out.flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("samples", [torch.uint16, torch.int16])
def test_every_integer_is_exact(samples, backend):
    limits = torch.iinfo(samples)
    every = torch.arange(limits.min, limits.max + 1)
    out = served(patch_embed, backend)(every.to(samples)[None], torch.eye(64))
    assert torch.equal(out.flatten(), every.float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_once(dtype, backend):
    """Half precision is the float32 result of the same weight, rounded at the end."""
    dtype = served_dtype(backend, dtype)
    x = {name: y.to(dtype) for name, y in inputs(T=200, P=64, C=33).items()}
    op = partial(served(patch_embed, backend), stride=8, center=0.3, spread=0.7)
    exact = op(**{name: y.float() for name, y in x.items()})
    # Beside the reference sums in float32 may be in another order.
    order = 0 if backend == "reference" else 16 * torch.finfo(torch.float32).eps * exact.abs().max()
    out = op(**x)
    assert ((exact - order).to(dtype) <= out).all()
    assert (out <= (exact + order).to(dtype)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("T", "P", "stride", "pad_end", "N"),
    [
        (336, 16, 8, True, 42),  # PatchTST/42
        (512, 16, 8, True, 64),  # PatchTST/64
        (336, 16, 8, False, 41),
        (16, 16, None, False, 1),
        (16, 16, None, True, 2),
        (17, 16, None, True, 2),
        (31, 16, None, False, 1),
        (32, 16, None, False, 2),
        (65536, 16, None, False, 4096),
    ],
)
def test_number_of_patches(T, P, stride, pad_end, N, backend):
    x = torch.zeros(1, T, dtype=torch.uint16)
    out = served(patch_embed, backend)(x, torch.zeros(2, P), stride=stride, pad_end=pad_end)
    assert out.shape == (1, N, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stride", [16, 8, 5])
def test_equals_unfold_and_linear(stride, backend):
    x = floats(B=3, T=203, P=16, C=24)
    samples, *layer = x.values()
    patches = samples.unfold(1, 16, stride)
    op = served(patch_embed, backend)
    out = op(**x, stride=stride)
    assert torch.allclose(out, torch.nn.functional.linear(patches, *layer), atol=1e-5)
    padded = torch.nn.ReplicationPad1d((0, stride))(samples)
    expected = torch.nn.functional.linear(padded.unfold(1, 16, stride), *layer)
    out = op(**x, stride=stride, pad_end=True)
    assert torch.allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.float32])
def test_strides_do_not_matter(dtype, backend):
    stream = torch.arange(-300, 300).to(dtype)
    weight = random(7, 9).float()
    op = served(patch_embed, backend)
    for view in (
        stream.view(12, 50).mT,
        stream.view(12, 50)[::2, 3::3],
        stream[None, ::2].expand(3, -1),
    ):
        assert torch.equal(op(view, weight, stride=4), op(view.contiguous(), weight, stride=4))
    # Windows of one stream that overlap in memory.
    windows = stream.unfold(0, 50, 10)
    assert torch.equal(op(windows, weight), op(windows.clone(), weight))
    wide = random(9, 14).float().mT[::2]
    assert torch.equal(op(windows, wide), op(windows, wide.contiguous()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pad_end", [False, True])
def test_samples_left_over(pad_end, backend):
    """37 samples hold 4 patches of 8 and 5 more, which count only with pad_end."""
    x = floats() | {"samples": inputs()["samples"].float().requires_grad_()}
    out = served(patch_embed, backend)(**x, pad_end=pad_end)
    (grad,) = torch.autograd.grad(out.square().sum(), x["samples"])
    assert (grad[:, :32] != 0).all()
    assert (grad[:, 32:] != 0).all() == pad_end
    assert grad[:, 32:].any() == pad_end


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_later_samples_do_not_matter(stride, pad_end, backend):
    x = floats(T=70)
    op = partial(served(patch_embed, backend), stride=stride, pad_end=pad_end)
    before = op(**x)
    for t in (0, 7, 8, 41, 69):
        samples = x["samples"].clone()
        samples[:, t] += 1.0
        after = op(**x | {"samples": samples})
        for n in range(before.shape[1]):
            first, last = n * stride, n * stride + 7
            held = first <= t <= last or (t == 69 and last > 69)
            assert torch.equal(before[:, n], after[:, n]) != held


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_at_the_center_give_the_bias(backend):
    x = inputs(T=32)
    samples = torch.full((2, 32), 40001, dtype=torch.int32).to(torch.uint16)
    op = served(patch_embed, backend)
    out = op(samples, x["weight"].half(), x["bias"].half(), center=40001.0)
    assert torch.equal(out, x["bias"].half().expand(2, 4, 5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_number_is_a_row_of_it(backend):
    x = floats()
    op = served(patch_embed, backend)
    number = op(**x, center=0.3, spread=1.7)
    rows = {"center": torch.full((2,), 0.3), "spread": torch.full((2,), 1.7)}
    assert torch.equal(number, op(**x, **rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_has_its_own_center_and_spread(backend):
    x = floats(B=3)
    moved = torch.tensor([[2.0], [-4.0], [8.0]]) * (x["samples"] + 1)
    spread = torch.tensor([2.0, -4.0, 8.0])
    op = served(patch_embed, backend)
    out = op(**x | {"samples": moved}, center=spread, spread=spread)
    assert torch.allclose(out, op(**x), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_empty_batch(dtype, rows, pad_end, backend):
    x = floats() | {"samples": torch.zeros(0, 37).to(dtype)}
    wanted = [y.requires_grad_() for y in x.values() if y.is_floating_point()]
    options = {"center": torch.zeros(0), "spread": torch.ones(0)} if rows else {}
    out = served(patch_embed, backend)(**x, **options, stride=4, pad_end=pad_end)
    assert out.shape == (0, 9 if pad_end else 8, 5)
    for y, grad in zip(wanted, torch.autograd.grad(out.sum(), wanted), strict=True):
        assert grad.shape == y.shape
        assert not grad.any()


# One value is spoilt; whatever may not see it must be what it was, forward and backward.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("spoilt", ["samples", "last sample", "center", "weight", "gradient"])
def test_bad_values_stay_alone(spoilt, pad_end, bad, backend):
    T, stride = 38, 4
    clean = floats(T=T) | {"center": torch.zeros(2)}
    clean["gradient"] = random(2, 9 if pad_end else 8, 5, seed=4).float()
    dirty = {name: x.clone() for name, x in clean.items()}
    place = {
        "samples": ("samples", (1, 13)),
        "last sample": ("samples", (1, T - 1)),
        "center": ("center", (1,)),
        "weight": ("weight", (3, 2)),
        "gradient": ("gradient", (1, 2, 3)),
    }
    name, index = place[spoilt]
    dirty[name][index] = bad

    def run(x):
        leaves = {n: x[n].clone().requires_grad_() for n in ("samples", "weight", "bias")}
        op = served(patch_embed, backend)
        out = op(**leaves, center=x["center"], stride=stride, pad_end=pad_end)
        grads = torch.autograd.grad(out, list(leaves.values()), x["gradient"])
        return dict(zip(("out", *leaves), (out.detach(), *grads), strict=True))

    before, after = run(clean), run(dirty)
    touched = {n: torch.zeros_like(x, dtype=torch.bool) for n, x in before.items()}
    match spoilt:
        case "samples":  # in patch 2 (8 to 15) and patch 3 (12 to 19)
            touched["out"][1, 2:4] = True
            touched["weight"][:, [5, 1]] = True
        case "last sample" if pad_end:  # in patch 8, and twice more as a copy; else left over
            touched["out"][1, 8] = True
            touched["weight"][:, [5, 6, 7]] = True
        case "center":
            touched["out"][1] = True
            touched["weight"][:] = True
        case "weight":
            touched["out"][:, :, 3] = True
            touched["samples"][:, 2 : 4 * before["out"].shape[1] : 4] = True
        case "gradient":
            touched["samples"][1, 8:16] = True
            touched["weight"][3] = True
            touched["bias"][3] = True
    for what, x in after.items():
        assert torch.equal(before[what][~touched[what]], x[~touched[what]]), what
        assert not x[touched[what]].isfinite().any(), what


OPTIONS = [
    {},
    {"stride": 1},
    {"stride": 3, "pad_end": True},
    {"stride": 2, "center": 0.4, "spread": 2.5},
    {"pad_end": True, "center": torch.tensor([0.3, -2.0]), "spread": torch.tensor([0.5, 3.0])},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_gradcheck(options):
    leaves = [x.requires_grad_() for x in inputs(T=11, C=3, P=4).values()]
    op = partial(patch_embed, backend="reference", **options)
    assert torch.autograd.gradcheck(op, leaves)
    assert torch.autograd.gradcheck(op, leaves[:2])


@pytest.mark.parametrize("options", OPTIONS)
def test_written_gradient_is_autograds(options):
    """The registered backward against autograd through the specification."""
    tensors = inputs(T=41, C=6, P=7)
    leaves = [x.requires_grad_() for x in tensors.values()]
    specified = specification(**tensors, **options)
    served = patch_embed(**tensors, **options, backend="reference")
    check_written_gradient(specified, served, leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_gradient_formulas(stride, pad_end, backend):
    """One product at a time: patch n reads sample min(n stride + p, T - 1) with weight p."""
    T, P, C, center, spread = 14, 4, 3, 0.4, 2.5
    dtype = served_dtype(backend, DOUBLE)
    x = {name: y.to(dtype).requires_grad_() for name, y in inputs(T=T, C=C, P=P).items()}
    options = {"stride": stride, "center": center, "spread": spread, "pad_end": pad_end}
    out = served(patch_embed, backend)(**x, **options)
    grad = random(*out.shape, seed=4).to(dtype)
    found = torch.autograd.grad(out, list(x.values()), grad)
    d_samples, d_weight, d_bias = (torch.zeros_like(y, dtype=DOUBLE) for y in x.values())
    with torch.no_grad():
        for b, n, c in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
            d_bias[c] += grad[b, n, c]
            for p in range(P):
                t = min(n * stride + p, T - 1)
                d_samples[b, t] += grad[b, n, c] * x["weight"][c, p] / spread
                d_weight[c, p] += grad[b, n, c] * (x["samples"][b, t] - center) / spread
    for ours, formula in zip(found, (d_samples, d_weight, d_bias), strict=True):
        rtol, atol = (1e-11, 1e-12) if dtype == DOUBLE else (1e-5, 1e-5)
        assert torch.allclose(ours.double(), formula, rtol=rtol, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strides", [*STRIDES, "expanded"])
def test_strides_of_the_gradient_do_not_matter(strides, backend):
    x = {name: y.requires_grad_() for name, y in floats(T=70).items()}
    out = served(patch_embed, backend)(**x, stride=3)
    grad = random(*out.shape, seed=4, dtype=torch.float32)
    if strides == "expanded":
        grad = grad[:1, :, :1].expand_as(out)
    leaves = list(x.values())
    expected = torch.autograd.grad(out, leaves, grad.contiguous(), retain_graph=True)
    found = torch.autograd.grad(out, leaves, STRIDES.get(strides, lambda y: y)(grad))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_keep_their_dtypes(backend):
    samples = random(2, 20).half().requires_grad_()
    dtype = served_dtype(backend, torch.bfloat16)
    samples = samples if dtype == torch.bfloat16 else samples.detach().bfloat16().requires_grad_()
    weight = random(3, 4).to(dtype).requires_grad_()
    bias = random(3).to(dtype).requires_grad_()
    out = served(patch_embed, backend)(samples, weight, bias)
    grads = torch.autograd.grad(out.sum(), [samples, weight, bias])
    assert out.dtype == dtype
    assert [g.dtype for g in grads] == [samples.dtype, dtype, dtype]


@pytest.mark.parametrize("backend", [x for x in BACKENDS if x != "reference"])
def test_float64_samples_are_refused(backend):
    with pytest.raises(BackendUnavailable, match=r"^patch_embed: .* float64 (samples are|is) not"):
        served(patch_embed, backend)(zeros(2, 10, dtype=DOUBLE), zeros(3, 4))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_opcheck(dtype, rows, backend):
    x = {name: y.to(place(backend)) for name, y in floats().items()}
    wants = dtype == torch.float32
    samples = x["samples"].mT.contiguous().mT if wants else integers(2, 37, dtype)
    samples = samples.to(place(backend))
    constants = [
        y.to(place(backend))
        for y in ([torch.zeros(2), torch.ones(2)] if rows else [torch.zeros(()), torch.ones(())])
    ]
    options = [*constants, 3, rows, backend]
    trained = [y.clone().requires_grad_() for y in (x["weight"], x["bias"])]
    ops = torch.ops.pyseq
    arguments = (samples.clone().requires_grad_(wants), *trained, *options)
    torch.library.opcheck(ops.patch_embed.default, arguments)
    out = ops.patch_embed(samples, x["weight"], None, *options)
    arguments = (
        torch.ones_like(out),
        samples,
        x["weight"],
        x["bias"],
        *options,
        [wants, True, rows],
    )
    torch.library.opcheck(ops.patch_embed_backward.default, arguments)


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"samples": [[1]]}, TypeError, "samples is a list; a tensor fits"),
    ({"samples": zeros(2, 10).int()}, TypeError, "samples is torch.int32; uint16, int16, float32"),
    ({"samples": zeros(10)}, ValueError, r"samples have 1 dimensions; \(B, T\) fits; samples"),
    (
        {"samples": zeros(2, 3)},
        ValueError,
        r"3 samples make no patch of 4; at least 4 samples fit; samples \(2, 3\)",
    ),
    ({"samples": zeros(2, 3), "pad_end": True}, ValueError, "3 samples make no patch of 4"),
    ({"samples": zeros(0, 0)}, ValueError, "0 samples make no patch of 4"),
    ({"samples": zeros(2, 10).to("meta")}, ValueError, "samples on meta, weight on cpu"),
    ({"weight": 1.0}, TypeError, "weight is a float; a tensor fits"),
    ({"weight": zeros(3, 4).int()}, TypeError, "weight is torch.int32; float32, bfloat16"),
    ({"weight": zeros(3)}, ValueError, r"weight has shape \(3,\); \(C, P\) with P of at least 1"),
    ({"weight": zeros(3, 0)}, ValueError, r"weight has shape \(3, 0\)"),
    ({"bias": 0.0}, TypeError, "bias is a float; a tensor fits"),
    ({"bias": zeros(3).half()}, TypeError, "weight is torch.float32, bias torch.float16; one"),
    ({"bias": zeros(3).to("meta")}, ValueError, "weight on cpu, bias on meta; one device fits"),
    ({"bias": zeros(4)}, ValueError, r"bias has shape \(4,\); \(3,\) fits; weight \(3, 4\)"),
    ({"stride": 0}, ValueError, "stride is 0; at least 1 fits"),
    ({"stride": 2.0}, TypeError, "stride is a float; an int fits"),
    ({"stride": 5}, ValueError, "stride is 5; at most the length of a patch, 4, fits"),
    ({"stride": 5, "pad_end": True}, ValueError, "stride is 5; at most the length of a patch"),
    ({"center": "0"}, TypeError, "center is a str; a float or a tensor fits"),
    ({"center": [0.0, 1.0]}, TypeError, "center is a list; a float or a tensor fits"),
    ({"spread": True}, TypeError, "spread is a bool; a float or a tensor fits"),
    ({"center": math.nan}, ValueError, "center is nan; a finite number of float32 fits"),
    ({"center": -1e39}, ValueError, r"center is -1e\+39; a finite number of float32 fits"),
    ({"spread": math.inf}, ValueError, "spread is inf; a positive finite number of float32 fits"),
    ({"spread": 0.0}, ValueError, r"spread is 0.0; .* float32 fits, 1.18e-38 to 3.4e\+38"),
    ({"spread": -1}, ValueError, "spread is -1; .* fits, 1.18e-38 to"),
    ({"spread": 1e-50}, ValueError, "spread is 1e-50; .* fits, 1.18e-38 to"),
    ({"center": zeros(3)}, ValueError, r"center has shape \(3,\); a float or a tensor \(2,\) fits"),
    ({"spread": zeros(())}, ValueError, r"spread has shape \(\); .* fits; samples \(2, 10\)"),
    ({"center": zeros(2).int()}, TypeError, "center is torch.int32; a floating dtype fits"),
    ({"center": zeros(2).to("meta")}, ValueError, "center on meta; cpu, as samples, fits"),
    ({"center": zeros(2).requires_grad_()}, ValueError, "center requires a gradient; a constant"),
    ({"spread": zeros(2).requires_grad_()}, ValueError, "spread requires a gradient; a constant"),
    ({"pad_end": 1}, TypeError, "pad_end is a int; True or False fits"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    right = {"samples": zeros(2, 10), "weight": zeros(3, 4), "bias": zeros(3)}
    check_refused(patch_embed, error, message, right | wrong)
