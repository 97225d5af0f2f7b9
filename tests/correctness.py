"""How correct is correct: the rule that every op's tests apply, and what they share.

For the output and every gradient, with inputs rounded to the dtype first,
``err(op) <= 2 * err(reference in the same dtype) + 4 * eps(dtype) * max|exact|``,
both errors measured from float64.
"""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pyseq.ops import backends

Arguments = dict[str, Any]
DOUBLE = torch.float64
DTYPES = [torch.float32, torch.bfloat16, torch.float16, DOUBLE]

# What float64 itself leaves of sums of order one, which matters where the truth is 0, and where
# float64 is what is tested.
FLOAT64_ERROR = 1e-12


def random(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def swapped(x: Tensor, first: int, second: int) -> Tensor:
    """The same tensor with two axes swapped in memory."""
    return x.transpose(first, second).contiguous().transpose(first, second)


# The same tensor in other memory.
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: swapped(x, -2, -1),
    "every_other": lambda x: torch.stack([x, x], -1)[..., 0],
}


def backends_of(op: str) -> list[str]:
    """The backends with code for an op; without a GPU, Triton runs in its interpreter."""
    return ["reference", *backends.SERVED_BY[op]]


def place(backend: str) -> torch.device:
    """Where a backend is tested."""
    return torch.device("cuda" if backend == "triton" and torch.cuda.is_available() else "cpu")


def served_dtype(backend: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype, or the nearest one that a backend serves where it is tested."""
    if backend == "reference":
        return dtype
    if dtype == torch.float64:
        return torch.float32
    if backend == "native":
        return dtype
    on_cpu = place(backend).type == "cpu"  # where the interpreter's bfloat16 products are wrong
    return torch.float16 if dtype == torch.bfloat16 and on_cpu else dtype


def served(op: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """The op on one backend, for tensors on the CPU: taken to where it runs, and back."""

    def call(*arguments: Any, **named: Any) -> Any:
        there = tree_map_only(Tensor, lambda x: x.to(place(backend)), (arguments, named))
        out = op(*there[0], **there[1], backend=backend)
        return tree_map_only(Tensor, Tensor.cpu, out)

    return call


def check_correct(
    op: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    *,
    constants: Sequence[str] = (),
    noise: float = FLOAT64_ERROR,
) -> None:
    """Apply the rule to the output and every gradient of one op.

    The reference's error is the worst over a few random gradients of the output: one alone can be
    small by luck, above all in a parameter's gradient, a sum whose terms cancel.

    Args:
        op: called as op(**tensors); returns one tensor.
        exact: the same in float64, by other code where there is any.
        reference: the same in plain PyTorch, differentiable, in any dtype.
        tensors: float64 inputs, which are rounded to `dtype`, or float32 ones, which are kept.
            Strides are kept too.
        dtype: what the op is tested in.
        constants: names of inputs that have no gradient.
        noise: an error that gradients may have beside, where terms of order one cancel.
    """
    rounded = {
        name: _recast(x, dtype if x.dtype == torch.float64 else x.dtype)
        for name, x in tensors.items()
    }
    doubles = {name: _recast(x, torch.float64) for name, x in rounded.items()}
    trained = [name for name in tensors if name not in constants]

    golden = _output_and_gradients(exact, doubles, trained, dtype, seed=0)
    ours = _output_and_gradients(op, rounded, trained, dtype, seed=0)
    reference_error = dict.fromkeys(golden, 0.0)
    for seed in range(8):
        truths = _output_and_gradients(reference, doubles, trained, dtype, seed)
        for name, theirs in _output_and_gradients(reference, rounded, trained, dtype, seed).items():
            reference_error[name] = max(reference_error[name], _error(theirs, truths[name]))
    eps = torch.finfo(dtype).eps
    for name, truth in golden.items():
        assert ours[name].shape == truth.shape, f"{name}: {ours[name].shape}, not {truth.shape}"
        if truth.numel() == 0:
            continue
        error = _error(ours[name], truth)
        allowed = 2 * reference_error[name] + 4 * eps * float(truth.abs().max())
        allowed += FLOAT64_ERROR if name == "output" else noise
        assert error <= allowed, f"{name} in {dtype}: error {error:.3g}, allowed {allowed:.3g}"


def check_options(
    op: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    backend: str,
    **options: Any,
) -> None:
    """Apply the rule with the same options to all three, in the `served_dtype`."""
    check_correct(
        partial(served(op, backend), **options),
        partial(exact, **options),
        partial(reference, **options),
        tensors,
        served_dtype(backend, dtype),
    )


def _recast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy with the same strides, in another dtype."""
    copy = torch.empty_strided(x.shape, x.stride(), dtype=dtype)
    return copy.copy_(x.detach())


def _output_and_gradients(
    op: Callable[..., Tensor],
    tensors: dict[str, Tensor],
    trained: list[str],
    dtype: torch.dtype,
    seed: int,
) -> dict[str, Tensor]:
    leaves = {name: x.detach().requires_grad_(name in trained) for name, x in tensors.items()}
    out = op(**leaves)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(dtype).to(out.dtype)
    # Its last two axes are swapped in memory: an op may not count on a contiguous gradient.
    grad = grad.mT.contiguous().mT if grad.dim() > 1 else grad
    wanted = [leaves[name] for name in trained]
    grads = torch.autograd.grad(out, wanted, grad)
    return {
        "output": out.detach(),
        **{f"gradient of {name}": g for name, g in zip(trained, grads, strict=True)},
    }


def _error(x: Tensor, truth: Tensor) -> float:
    """The largest difference; NaN counts as infinite."""
    if not truth.numel():
        return 0.0
    return float((x.double() - truth).abs().nan_to_num(nan=float("inf")).max())


def check_written_gradient(
    specified: Tensor, served: Tensor, leaves: Sequence[Tensor], *, rtol: float = 1e-12
) -> None:
    """A registered op against its specification: the same output, and autograd's gradients."""
    torch.testing.assert_close(served, specified, rtol=0, atol=0, equal_nan=True)
    check_same_gradients(served, specified, leaves, random(*served.shape, seed=7), rtol=rtol)


def check_same_gradients(
    out: Tensor,
    other: Tensor,
    leaves: Sequence[Tensor],
    grad: Tensor | None = None,
    *,
    rtol: float = 1e-12,
    atol: float = 1e-12,
) -> None:
    """Two outputs have the same gradients; without `grad`, those of the sum of their squares."""
    found, expected = (
        torch.autograd.grad(y.square().sum() if grad is None else y, leaves, grad)
        for y in (out, other)
    )
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def check_refused(
    op: Callable[..., Any], error: type[Exception], message: str, arguments: Arguments
) -> None:
    """A call ends in an error that begins with the op's name."""
    with pytest.raises(error, match=f"^{op.__name__}: ") as caught:
        op(**arguments)
    assert caught.match(message)


def sees(t: int, s: int, T: int, S: int, causal: bool, window: int | None, prefix: int) -> bool:
    """Whether query t of T sees key s of S: the oracle of every attention."""
    if s < prefix:
        return True
    ahead = t + S - T - s
    if causal:
        return ahead >= 0 and (window is None or ahead < window)
    return window is None or -window < ahead < window


@contextlib.contextmanager
def nan_filled_memory() -> Iterator[None]:
    """Fill every tensor that PyTorch leaves uninitialised with NaN, so that a read of it shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = filling
        torch.use_deterministic_algorithms(deterministic)


def pairwise(seed: int = 0, **choices: Sequence[Any]) -> list[Arguments]:
    """Few cases in which every two choices of different arguments meet at least once."""
    draw = Random(seed)
    names = list(choices)
    wanted = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i in range(len(choices[a]))
        for j in range(len(choices[b]))
    }
    cases = []
    while wanted:
        candidates = []
        unmet = sorted(wanted)
        for _ in range(30):
            (a, i), (b, j) = draw.choice(unmet)
            case = {name: draw.randrange(len(choices[name])) for name in names} | {a: i, b: j}
            met = {p for p in wanted if all(case[name] == index for name, index in p)}
            candidates.append((len(met), sorted(case.items()), met))
        _, best, met = max(candidates, key=lambda c: c[0])
        wanted -= met
        cases.append({name: choices[name][index] for name, index in best})
    return cases


def undocumented_parameters(public: Any) -> list[str]:
    """Parameters of a function, or of a class's constructor, that its docstring does not name."""
    text = inspect.getdoc(public) or ""
    parameters = inspect.signature(public).parameters
    return [name for name in parameters if f"\n    {name} (" not in text and name != "self"]
