"""pyseq.ops.prepare_keys against loops written from its formulas, on every backend."""

import importlib
import itertools
import math
from functools import partial

import pytest
import torch

from pyseq.ops.prepare_keys import prepare_keys, reference
from tests.correctness import (
    DTYPES,
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
from tests.ops.attention_inputs import NORMS, STRIDES, angles, ready

BACKENDS = backends_of("prepare_keys")


def oracle(key, key_weight=None, norm="l2", eps=1e-6, rope=None, position=0):
    B, G, S, D = key.shape
    rows = [
        ready(key[b, g, s], norm, eps, key_weight, rope, position + s)
        for b, g, s in itertools.product(range(B), range(G), range(S))
    ]
    return torch.stack(rows).view(B, G, S, D)


def specification(key, key_weight=None, norm="l2", eps=1e-6, rope=None, position=0):
    cos, sin = rope or (None, None)
    return reference.prepare(key, key_weight, cos, sin, norm, eps, position)


check = partial(check_options, prepare_keys, oracle, specification)


PAIRS = pairwise(
    dtype=DTYPES,
    norm=NORMS,
    G=[1, 3],
    D=[32, 64, 80, 96, 128, 256],
    S=[1, 9, 65, 131],  # 131: several tiles, the last one ragged, for every D
    position=[0, 5],
    rope=[False, True],
    gain=[False, True],
    strides=list(STRIDES),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case.values())))
def test_pairs_of_choices(case, backend):
    S, D, position = case["S"], case["D"], case["position"]
    tensors = {"key": STRIDES[case["strides"]](random(2, case["G"], S, D, seed=1))}
    if case["gain"]:
        tensors["key_weight"] = random(D, seed=5).abs() + 0.5
    rope = angles(position + S + 2, D) if case["rope"] else None
    check(tensors, case["dtype"], backend, norm=case["norm"], rope=rope, position=position)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_a_cache_is_rounded_once(norm, dtype, backend):
    """By half an eps of itself, as promised."""
    dtype = served_dtype(backend, dtype)
    key, weight, rope = random(2, 2, 9, 32).to(dtype), random(32, seed=5), angles(9, 32)
    exact = oracle(key.double(), weight, norm=norm, rope=rope)
    out = served(prepare_keys, backend)(key, key_weight=weight, norm=norm, rope=rope)
    error = (out.double() - exact).abs()
    assert (error <= 0.5 * torch.finfo(dtype).eps * exact.abs() + 2e-6).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_and_short_vectors(dtype, norm, backend):
    key = random(1, 2, 6, 8)
    key[:, 0, 2] = 0
    key[:, 1] *= 0.02  # shorter than eps, where the factor of "l2" is constant
    check({"key": key, "key_weight": random(8, seed=5)}, dtype, backend, norm=norm, eps=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 2, 3, 8), (2, 0, 3, 8), (2, 2, 0, 8)])
def test_empty(shape, backend):
    key, weight = torch.zeros(shape, requires_grad=True), torch.ones(8, requires_grad=True)
    table = torch.ones(4 + shape[2], 4)
    out = served(prepare_keys, backend)(key, key_weight=weight, rope=(table, table), position=4)
    d_key, d_weight = torch.autograd.grad(out.sum(), (key, weight))
    assert out.shape == d_key.shape == shape
    assert not d_weight.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", ["key", "gradient"])
@pytest.mark.parametrize("norm", NORMS)
def test_bad_rows_stay_alone(spoilt, bad, norm, backend):
    """The gain's gradient leaves bad keys out; a bad gradient is in every sum over the rows."""
    clean = {name: random(2, 2, 5, 8, seed=i).float() for i, name in enumerate(("key", "gradient"))}
    dirty = {name: x.clone() for name, x in clean.items()}
    dirty[spoilt][1, 0, 3, 2] = bad
    rope = tuple(x.float() for x in angles(5, 8))

    def run(key, gradient):
        leaves = key.requires_grad_(), torch.ones(8, requires_grad=True)
        out = served(prepare_keys, backend)(key, norm=norm, key_weight=leaves[1], rope=rope)
        return out.detach(), *torch.autograd.grad(out, leaves, gradient)

    (before, d_key, _), (after, spoilt_d_key, d_weight) = run(**clean), run(**dirty)
    others = torch.ones(2, 2, 5, dtype=torch.bool)
    others[1, 0, 3] = False
    assert torch.equal(before[others], after[others])
    assert torch.equal(d_key[others], spoilt_d_key[others])
    assert after[1, 0, 3].isfinite().all() == (spoilt == "gradient")
    assert d_weight.isfinite().all() == (spoilt == "key")
    if spoilt == "gradient":
        assert not spoilt_d_key[1, 0, 3].isfinite().all()
    else:
        clean["gradient"][1, 0, 3] = 0
        assert torch.allclose(d_weight, run(**clean)[2], atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("position", [0, 2])
def test_gradcheck(position, norm):
    leaves = [random(2, 2, 3, 6).requires_grad_(), random(6, seed=5).requires_grad_()]
    rope = angles(7, 6)

    def op(key, key_weight):
        return prepare_keys(
            key,
            norm=norm,
            key_weight=key_weight,
            rope=rope,
            position=position,
            backend="reference",
        )

    assert torch.autograd.gradcheck(op, leaves)


@pytest.mark.parametrize("norm", NORMS)
def test_written_gradient_is_autograds(norm):
    """The registered backward against autograd through the specification."""
    leaves = [random(2, 3, 5, 8).requires_grad_(), random(8, seed=5).requires_grad_()]
    rope = angles(8, 8)
    specified = specification(*leaves, norm=norm, rope=rope, position=3)
    served = prepare_keys(
        leaves[0], key_weight=leaves[1], norm=norm, rope=rope, position=3, backend="reference"
    )
    check_written_gradient(specified, served, leaves)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_serves_the_specification(dtype):
    key, rope = random(2, 3, 5, 8).to(dtype), angles(7, 8)
    served = prepare_keys(key, rope=rope, position=2, backend="reference")
    assert torch.equal(served, specification(key, rope=rope, position=2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_formulas(backend):
    """With g = weight * R^T d: dk = (g - k_hat <k_hat, g>) / |k|, and for "rms" with its means."""
    key, weight = random(1, 2, 4, 8), random(8, seed=5)
    grad, rope = random(1, 2, 4, 8, seed=3), angles(4, 8)
    turned = torch.complex(grad[..., :4], grad[..., 4:]) / torch.complex(*rope)
    back = torch.cat([turned.real, turned.imag], -1)
    g = back * weight
    length = key.norm(dim=-1, keepdim=True)
    unit = key / length
    of_l2 = (g - unit * (unit * g).sum(-1, keepdim=True)) / length
    size = (key.square().mean(-1, keepdim=True) + 0.5).sqrt()
    of_rms = (g - key / size * (key / size * g).mean(-1, keepdim=True)) / size
    dtype = served_dtype(backend, torch.float64)
    exact = dtype == torch.float64
    tolerances = {"rtol": 1e-10, "atol": 1e-11} if exact else {"rtol": 1e-5, "atol": 1e-5}
    leaves = [x.to(dtype).requires_grad_() for x in (key, weight)]
    for norm, d_key, hat in (("l2", of_l2, key / length), ("rms", of_rms, key / size)):
        out = served(prepare_keys, backend)(
            leaves[0], norm=norm, eps=0.5, key_weight=leaves[1], rope=rope
        )
        found = torch.autograd.grad(out, leaves, grad.to(dtype))
        assert torch.allclose(found[0].double(), d_key, **tolerances)
        assert torch.allclose(found[1].double(), (back * hat).sum((0, 1, 2)), **tolerances)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_prepared_one_by_one(backend):
    """A cache filled in pieces holds what one call makes of all keys."""
    key, rope = random(2, 2, 11, 16).float(), tuple(x.float() for x in angles(14, 16))
    op = served(prepare_keys, backend)
    whole = op(key, rope=rope, position=3)
    pieces = [op(key[:, :, a:b], rope=rope, position=3 + a) for a, b in ((0, 4), (4, 5), (5, 11))]
    if backend == "triton":  # which lays out its sums as the strides and alignments allow
        torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=1e-6, atol=1e-7)
    else:
        assert torch.equal(torch.cat(pieces, 2), whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rotation_alone(backend):
    """Without a norm the lengths stay, and <q, k> depends on the distance of the positions."""
    rope = (torch.arange(20.0)[:, None] * torch.tensor([1.0, 0.1])).double()
    rope = rope.cos(), rope.sin()
    dtype = served_dtype(backend, torch.float64)
    q, k = random(1, 1, 1, 4).to(dtype), random(1, 1, 1, 4, seed=1).to(dtype)

    def at(x, position):
        return served(prepare_keys, backend)(x, norm=None, rope=rope, position=position)

    assert torch.allclose(at(q, 7).norm(), q.norm())
    assert torch.allclose((at(q, 7) * at(k, 4)).sum(), (at(q, 18) * at(k, 15)).sum())
    assert torch.equal(served(prepare_keys, backend)(q, norm=None), q)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_where_nothing_is_to_be_done(backend):
    joint = torch.randn(2, 5, 3, 4, 8)[:, :, 1].transpose(1, 2)  # of a joint projection
    joint[1, 2, 3, 4] = math.nan
    joint = joint.to(place(backend))
    out = prepare_keys(joint, norm=None, backend=backend)
    assert torch.equal(out.view(torch.int32), joint.view(torch.int32))
    assert out.transpose(1, 2).is_contiguous()
    assert out.data_ptr() != joint.data_ptr()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("full", [False, True])
def test_opcheck(full, backend):
    where = place(backend)
    key = torch.randn(2, 5, 3, 8, device=where).transpose(1, 2).requires_grad_()
    weight = torch.rand(8, requires_grad=True, device=where) if full else None
    tables = [x.float().to(where) for x in angles(9, 8)] if full else [None, None]
    options = ["rms" if full else None, 1e-6, 4, backend]
    ops = torch.ops.pyseq
    torch.library.opcheck(ops.prepare_keys.default, (key, weight, *tables, *options))
    constants = [None if x is None else x.detach() for x in (key, weight)]
    arguments = (torch.ones_like(key), *constants, *tables, *options, [True, full])
    torch.library.opcheck(ops.prepare_keys_backward.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_whole(backend):
    """Once for all positions after the first two: a decoding loop must not compile every step."""
    rope = tuple(x.float().to(place(backend)) for x in angles(20, 8))
    key = torch.randn(1, 2, 3, 8, requires_grad=True, device=place(backend))
    compiled_for = []

    def count(graph, _inputs):
        compiled_for.append(graph)
        return graph

    def model(key, position):
        return prepare_keys(key * 2, rope=rope, position=position, backend=backend).tanh()

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    counted = torch.compile(model, fullgraph=True, backend=count)
    for position in (2, 3, 4, 9, 11):
        expected, found = model(key, position), compiled(key, position)
        assert torch.allclose(expected, found, atol=1e-6)
        grads = [torch.autograd.grad(x.square().sum(), key)[0] for x in (expected, found)]
        assert torch.allclose(*grads, atol=1e-6)
        counted(key, position)
    assert len(compiled_for) == 2


K = torch.zeros(2, 2, 7, 8)
TABLE = torch.zeros(9, 4)
WRONG: list[tuple[dict, type[Exception], str]] = [
    ({"key": [1]}, TypeError, "key is a list; a tensor fits"),
    ({"key": K.long()}, TypeError, "key is torch.int64; float32, bfloat16"),
    ({"key": K[0]}, ValueError, "3 dimensions; key .B, G, S, D., D above 0, fits; key"),
    ({"key": K[..., :0]}, ValueError, "4 dimensions; key .B, G, S, D., D above 0, fits; key"),
    ({"norm": "L2"}, ValueError, "norm is 'L2'; 'l2', 'rms', 'layer' or None fits"),
    ({"eps": 0.0}, ValueError, "eps is 0.0; a positive finite number of float32 fits"),
    ({"key_weight": TABLE}, ValueError, r"key_weight has shape \(9, 4\); \(8,\) fits; key"),
    ({"position": -1}, ValueError, "position is -1; at least 0 fits"),
    ({"position": 1.0}, TypeError, "position is a float; an int fits"),
    ({"rope": TABLE}, TypeError, "rope is a Tensor; a pair of tensors"),
    ({"rope": (TABLE, TABLE), "position": 3}, ValueError, r"two of \(at least 10, 4\) fit; key"),
    ({"rope": (TABLE, TABLE), "key": K[..., 1:]}, ValueError, "rope cannot pair 7 features"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_errors(wrong, error, message):
    check_refused(prepare_keys, error, message, {"key": K} | wrong)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("eps", [1e-5, 2e-5, 5e-6, 1e-6, 0.1])
def test_gradient_of_rows_shorter_than_eps(eps, backend):
    """Their factor is 1 / eps, although 1 / eps rounded, times eps, may be below 1."""
    key = random(1, 2, 3, 4, seed=3)
    dtype = served_dtype(backend, torch.float64)
    key = (0.7 * eps * key / key.norm(dim=-1, keepdim=True)).to(dtype).requires_grad_()
    grad = random(1, 2, 3, 4, seed=4).to(dtype)
    [found] = torch.autograd.grad(served(prepare_keys, backend)(key, eps=eps), key, grad)
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, grad / eps, rtol=rtol, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads_last", [False, True])
def test_more_rows_than_the_programs_take_at_once(heads_last, backend):
    """In float16, where a sum that was rounded on its way through the tiles would show."""
    key = random(2, 3, 300, 32, seed=1)
    tensors = {"key": swapped(key, 1, 2) if heads_last else key, "key_weight": random(32, seed=5)}
    check(tensors, torch.float16, backend, rope=angles(300, 32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_of_any_strides(backend):
    key, weight, (cos, sin) = random(2, 2, 5, 8), random(8, 2, seed=5), angles(9, 8)
    op = served(prepare_keys, backend)
    key, weight = key.float(), weight.float()
    expected = op(key, key_weight=weight[:, 0].contiguous(), rope=(cos, sin), position=2)
    strided = torch.stack([cos, cos], 1)[:, 1], sin.T.contiguous().T
    assert torch.equal(op(key, key_weight=weight[:, 0], rope=strided, position=2), expected)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_one_gradient_alone(needs):
    """Which the kernel makes alone; without the key's, it needs no room for it."""
    key, weight = random(2, 2, 5, 8).float(), random(8, seed=5).float()
    grad = random(2, 2, 5, 8, seed=6).float()
    for backend in BACKENDS:
        op = served(prepare_keys, backend)
        both = [x.clone().requires_grad_() for x in (key, weight)]
        expected = torch.autograd.grad(op(both[0], key_weight=both[1]), both, grad)
        leaves = [x.detach().requires_grad_(need) for x, need in zip(both, needs, strict=True)]
        wanted = leaves[needs.index(True)]
        [found] = torch.autograd.grad(op(leaves[0], key_weight=leaves[1]), wanted, grad)
        assert torch.equal(found, expected[needs.index(True)])


def test_a_gradient_whose_features_lie_far_apart_is_brought_near(monkeypatch):
    """The kernel counts 32 bits from the first feature of a row to the last."""
    module = importlib.import_module("pyseq.kernels.prepare_keys.backward")
    brought = []
    monkeypatch.setattr(module, "near_rows", lambda grad: brought.append(grad) or grad)
    key = random(2, 2, 5, 8).float().requires_grad_()
    torch.autograd.grad(served(prepare_keys, "triton")(key), key, torch.ones_like(key))
    assert [grad.shape for grad in brought] == [key.shape]
