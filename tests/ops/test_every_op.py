"""What holds for every op in the same form; an op's own file holds what is its own."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from pyseq import ops
from pyseq.kernels import launch
from pyseq.ops import BackendUnavailable, backends
from tests.correctness import backends_of, place, random, served_dtype, undocumented_parameters
from tests.ops.attention_inputs import attention_inputs

ANGLES = torch.linspace(0, 3, 1280).view(320, 4)
ROPE = (ANGLES.cos(), ANGLES.sin())
GAINS = {"query_weight": torch.linspace(0.5, 2, 8), "key_weight": torch.linspace(1, 2, 8)}


class Call(NamedTuple):
    """One way to call an op."""

    inputs: Callable[[int], dict[str, Tensor]]  # tensors for a length
    function: Callable[..., Any]
    constants: tuple[str, ...] = ()  # floating inputs that have no gradient

    def there(self, length: int, backend: str) -> dict[str, Tensor]:
        """The inputs where the backend runs."""
        return {name: x.to(place(backend)) for name, x in self.inputs(length).items()}

    def leaves(self, length: int, backend: str) -> dict[str, Tensor]:
        """The same, those with a gradient as leaves."""
        return {
            name: x.clone().requires_grad_(x.is_floating_point() and name not in self.constants)
            for name, x in self.there(length, backend).items()
        }

    def __call__(self, **arguments: Any) -> Tensor:
        """The output, or all outputs as one vector."""
        out = self.function(**arguments)
        return out if isinstance(out, Tensor) else torch.cat([x.flatten() for x in out])


def floats(*shape, seed=0):
    return random(*shape, seed=seed, dtype=torch.float32)


def integers(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(9))


def attention(T):
    return {name: x.float() for name, x in attention_inputs(B=2, H=4, G=2, T=T, S=T).items()}


def cosine(T):
    return attention(T) | {"scale": torch.linspace(1, 4, 4)} | GAINS


def decode(T):
    caches = {"key_cache": floats(2, 2, T + 3, 8, seed=1), "value_cache": floats(2, 2, T + 3, 8)}
    scale = {"scale": torch.linspace(1, 4, 4), "query_weight": GAINS["query_weight"]}
    return {"query": floats(2, 4, 3, 8)} | caches | scale


def patches(T):
    return {"samples": floats(2, T + 4), "weight": floats(3, 4), "bias": floats(3)}


def narrow_layers(T):
    weights = {"weight_in": floats(2, 40, 6, seed=1), "bias_in": floats(2, 40, seed=2)}
    weights |= {"weight_out": floats(2, 5, 40, seed=3), "bias_out": floats(2, 5, seed=4)}
    return {"x": floats(2, T, 6)} | weights


def recurrent_layer(T):
    weights = {"weight_ih": floats(2, 20, 6, seed=1), "weight_hh": floats(2, 20, 5, seed=2)}
    states = {"hidden": floats(2, 3, 5, seed=4), "cell": floats(2, 3, 5, seed=5)}
    return {"x": floats(2, 3, T, 6)} | weights | {"bias": floats(2, 20, seed=3)} | states


def rotating(op, **options):
    """An op with its rope, on the device of its other tensors."""

    def call(**arguments):
        device = next(iter(arguments[n] for n in ("query", "key") if n in arguments)).device
        return op(**arguments, **options, rope=tuple(table.to(device) for table in ROPE))

    return call


def embed_around_level(samples, weight, **options):
    """Symbols around a center that is computed in the same graph."""
    level = samples.to(torch.float32).mean(1)
    return ops.patch_embed(samples, weight, center=level, spread=9e3, pad_end=True, **options)


# What comes after a dash is another way to call the same op.
CALLS = {
    "adaptive_attention": Call(attention, partial(ops.adaptive_attention, causal=True)),
    "adaptive_attention-coefficients": Call(
        attention, partial(ops.adaptive_attention, coefficients=[0.5, 1.5])
    ),
    "cosine_attention": Call(cosine, rotating(ops.cosine_attention, causal=True)),
    "cosine_decode": Call(decode, rotating(ops.cosine_decode, window=5)),
    "cosine_decode-lengths": Call(
        lambda T: decode(T) | {"lengths": torch.tensor([T + 3, T])},
        rotating(ops.cosine_decode, window=5),
    ),
    "exponential_smoothing": Call(
        lambda T: {
            "values": floats(2, T, 4, 8),
            "alpha": torch.linspace(0.1, 0.9, 4),
            "initial": floats(4, 8, seed=1),
        },
        ops.exponential_smoothing,
    ),
    "feed_forward": Call(narrow_layers, partial(ops.feed_forward, dropout=0.2, seed=3)),
    "feed_forward-gelu": Call(
        lambda T: narrow_layers(T) | {"seed": torch.tensor(T)},
        partial(ops.feed_forward, activation="gelu", dropout=0.2),
    ),
    "gather_windows": Call(
        lambda T: {"stream": torch.arange(400).to(torch.uint16), "offsets": torch.arange(T)},
        partial(ops.gather_windows, length=5),
    ),
    "hard_attention": Call(attention, partial(ops.hard_attention, causal=True)),
    "hard_attention-values": Call(
        attention,
        partial(ops.hard_attention, causal=True, gradient="values", return_index=True),
        ("query", "key"),
    ),
    "lstm": Call(recurrent_layer, ops.lstm),
    "lstm-outputs": Call(
        lambda T: {n: x for n, x in recurrent_layer(T).items() if n not in ("hidden", "cell")},
        lambda **arguments: ops.lstm(**arguments)[0],
    ),
    "patch_embed": Call(patches, partial(ops.patch_embed, stride=3, center=0.3)),
    "patch_embed-pad_end": Call(patches, partial(ops.patch_embed, stride=3, pad_end=True)),
    "patch_embed-symbols": Call(
        lambda T: {
            "samples": integers(65536, 2, T + 4).to(torch.uint16),
            "weight": floats(3, 4),
        },
        embed_around_level,
    ),
    "prepare_keys": Call(
        lambda T: {"key": floats(2, 2, T, 8), "key_weight": GAINS["key_weight"]},
        rotating(ops.prepare_keys, position=3),
    ),
    "scale_cross_entropy": Call(
        lambda T: {
            "hidden": floats(2, T, 8),
            "weight": floats(20, 8, seed=1),
            "bias": floats(20),
            "targets": integers(20, 2, T).to(torch.uint16),
        },
        partial(ops.scale_cross_entropy, scales=(1, 6), scale_weights=(1.0, 0.5), ignore_index=3),
    ),
    "softmax_attention": Call(attention, partial(ops.softmax_attention, causal=True)),
    "softmax_attention-dropout": Call(
        lambda T: attention(T) | {"lengths": torch.tensor([T, T // 2]), "seed": torch.tensor(T)},
        partial(ops.softmax_attention, causal=True, dropout=0.3),
    ),
}


def op_of(name):
    return name.split("-")[0]


OPS = sorted(set(map(op_of, CALLS)))
SERVED = [(name, backend) for name in CALLS for backend in backends_of(op_of(name))]
UNSERVED = [
    (op, name) for op in OPS for name in ("native", "triton") if name not in backends.SERVED_BY[op]
]
DIFFERENTIABLE = [served for served in SERVED if op_of(served[0]) != "gather_windows"]


def positions(length, backend):
    """`length`, or in the interpreter, which runs program after program and slowly, only a few."""
    return 10 if backend == "triton" and launch.interpreted() else length


def gradients(out, leaves):
    wanted = [x for x in leaves.values() if x.requires_grad]
    return torch.autograd.grad(out.square().sum(), wanted) if wanted else ()


def test_every_op_is_here():
    assert set(backends.SERVED_BY) == set(OPS)


# As it comes, sizes become variables of the graph at the second length.
@pytest.mark.parametrize(
    ("name", "backend", "dynamic"),
    [(*served, None) for served in SERVED]
    + [(*served, True) for served in SERVED if "-" not in served[0]],
)
def test_compiles_whole_at_one_length_after_another(name, backend, dynamic):
    """In one graph with what stands before and after it, as in a training."""
    call = CALLS[name]

    def model(**tensors):
        tensors = {n: x * 0.9 if x.requires_grad else x for n, x in tensors.items()}
        return call(**tensors, backend=backend).to(torch.float32).sin()

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for T in (6, 7, 8, 1):
        x = call.leaves(T, backend)
        expected, found = model(**x), compiled(**x)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        pair = gradients(found, x), gradients(expected, x)
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("op", "backend"), UNSERVED)
def test_a_backend_without_code_is_refused(op, backend):
    with pytest.raises(BackendUnavailable, match=f"^{op}: .*{backend}.* cannot serve this call"):
        CALLS[op](**CALLS[op].inputs(4), backend=backend)


@pytest.mark.parametrize("op", OPS)
def test_an_unknown_backend_is_an_error(op):
    with pytest.raises(ValueError, match=f"^{op}: backend is 'cuda'; known: auto, reference"):
        CALLS[op](**CALLS[op].inputs(4), backend="cuda")


@pytest.mark.parametrize("op", OPS)
def test_a_backend_that_is_no_name_is_an_error(op):
    with pytest.raises(TypeError, match=f"^{op}: backend is a NoneType; a str fits"):
        CALLS[op](**CALLS[op].inputs(4), backend=None)


@pytest.mark.parametrize(("name", "backend"), DIFFERENTIABLE)
def test_forward_mode_is_refused(name, backend):
    """PyTorch would take the derivative for 0."""
    x = CALLS[name].there(4, backend)
    for leaf, constant in (
        (n, y) for n, y in x.items() if y.is_floating_point() and n not in CALLS[name].constants
    ):

        def function(y, rest=x, leaf=leaf):
            return CALLS[name](**rest | {leaf: y}, backend=backend)

        with pytest.raises(RuntimeError, match=f"^{op_of(name)}: no derivative in forward mode"):
            torch.func.jvp(function, (constant,), (torch.ones_like(constant),))


class Recorded(TorchDispatchMode):
    """Remembers every call of a registered op of pyseq."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[str, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "pyseq":
            self.calls.append((func._schema.name.removeprefix("pyseq::"), args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CALLS)
def test_the_reference_reads_no_value(name):
    """On a GPU that would wait for it; on the meta device there is none to read."""
    x = CALLS[name].leaves(70, "reference")
    with Recorded() as recorded:
        gradients(CALLS[name](**x, backend="reference"), x)
    room = importlib.import_module(f"pyseq.ops.{op_of(name)}.autograd")
    assert [op.removeprefix(op_of(name)) for op, _ in recorded.calls] in (["", "_backward"], [""])
    for op, arguments in recorded.calls:
        implementation = room._backward if op.endswith("_backward") else room._forward
        on_meta = tree_map_only(Tensor, lambda y: y.to("meta"), arguments)
        outputs = tree_leaves(implementation(*on_meta))
        assert all(y is None or y.is_meta for y in outputs)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "backend"), [x for x in SERVED if x[1] == "triton"])
def test_a_gpu_is_never_waited_for(name, backend):
    x = CALLS[name].leaves(70, backend)
    gradients(CALLS[name](**x, backend=backend), x)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(CALLS[name](**x, backend=backend), x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("name", "backend"), DIFFERENTIABLE)
def test_a_second_derivative_is_refused(name, backend):
    x = CALLS[name].leaves(4, backend)
    out = CALLS[name](**x, backend=backend)
    for leaf in (y for y in x.values() if y.requires_grad):
        with pytest.raises(RuntimeError, match=f"^{op_of(name)}: no second derivative"):
            torch.autograd.grad(out.sum(), leaf, create_graph=True)


@pytest.mark.parametrize("op", OPS)
def test_the_docstring_names_every_parameter(op):
    assert undocumented_parameters(getattr(ops, op)) == []


@pytest.mark.parametrize(("name", "backend"), DIFFERENTIABLE)
def test_only_wanted_gradients(name, backend):
    call = CALLS[name]
    plain, full = call.there(5, backend), call.leaves(5, backend)
    assert not call(**plain, backend=backend).requires_grad
    trained = [n for n, x in full.items() if x.requires_grad]
    every = gradients(call(**full, backend=backend), full)
    for n, expected in zip(trained, every, strict=True):
        alone = plain | {n: full[n]}
        [found] = gradients(call(**alone, backend=backend), alone)
        assert torch.equal(found, expected), n


@pytest.mark.parametrize(("name", "backend"), SERVED)
def test_the_same_twice(name, backend):
    """Bit for bit, without PyTorch being asked for it."""
    torch.use_deterministic_algorithms(False)  # as the poisoned memory has it
    runs = []
    for _ in range(2):
        x = CALLS[name].leaves(positions(300, backend), backend)
        out = CALLS[name](**x, backend=backend)
        runs.append((out, *gradients(out, x)))
    assert all(map(torch.equal, *runs))


def under_autocast(backend):
    return torch.autocast(place(backend).type, torch.bfloat16)


# Counting flops and checking schemas, among others, switch autograd off inside an op.
def under_a_dispatch_mode(_backend):
    return FlopCounterMode(display=False)


# scale_cross_entropy casts its inputs as a linear layer does, which its own tests are about.
@pytest.mark.parametrize(
    ("name", "backend", "mode"),
    [(*served, under_a_dispatch_mode) for served in SERVED]
    + [(*served, under_autocast) for served in SERVED if served[0] != "scale_cross_entropy"],
)
def test_modes_of_pytorch_do_not_reach_inside(name, backend, mode):
    x = CALLS[name].leaves(positions(70, backend), backend)
    expected = CALLS[name](**x, backend=backend)
    before = gradients(expected, x)
    with mode(backend):
        found = CALLS[name](**x, backend=backend)
        after = gradients(found, x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert all(map(torch.equal, before, after))


# The input whose memory order an op promises for its output.
IN_ORDER_OF = {
    "adaptive_attention": "query",
    "cosine_attention": "query",
    "cosine_decode": "query",
    "exponential_smoothing": "values",
    "hard_attention": "query",
    "prepare_keys": "key",
    "softmax_attention": "query",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("op", "backend"), [(op, backend) for op in IN_ORDER_OF for backend in backends_of(op)]
)
def test_out_keeps_the_memory_order_it_promises(op, backend, dtype):
    """A slice of a joint projection, (B, T, 3, H, D), is seen as (B, H, T, D)."""
    dtype = served_dtype(backend, dtype)
    x = CALLS[op].there(5, backend)
    x = {n: y.to(dtype) if y.dim() == 4 else y for n, y in x.items()}
    name = IN_ORDER_OF[op]
    joint = torch.stack([x[name].transpose(1, 2)] * 3, 2)
    view = x | {name: joint[:, :, 1].transpose(1, 2)}
    out = CALLS[op](**view, backend=backend)
    assert out.transpose(1, 2).is_contiguous()
    assert out.dtype == dtype
    assert out.data_ptr() != view[name].data_ptr()
    torch.testing.assert_close(out, CALLS[op](**x, backend=backend))
