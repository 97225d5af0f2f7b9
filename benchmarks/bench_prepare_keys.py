"""prepare_keys against the same normalisation and rotation in eager PyTorch and compiled.

Floor at B=4 G=8 S=32768 D=128, bfloat16: 268 MB are read and as many written, 0.54 GB at 4.3 TB/s
make 0.125 ms; the tables of the rotation, 17 MB, are read once more for every head from the cache.
With gradients the keys and the output's gradient are read again and a gradient is written, 1.34 GB
in all: 0.31 ms.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks import attention, ceilings, correct
from benchmarks.harness import Call, Case, Contestant
from pyseq.ops import prepare_keys
from pyseq.ops.prepare_keys.reference import rotate

OP = "prepare_keys"
SIZES = {"cuda": [(4, 8, 32768, 128)], "cpu": [(1, 4, 65536, 64)]}
QUICK = [(2, 1, 21, 16)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
PASSES = {False: 2, True: 5}  # over the keys' bytes, without and with gradients

Size = tuple[int, int, int, int]  # B, G, S, D
Rope = tuple[Tensor, Tensor]
Prepare = Callable[[Tensor, Rope], Tensor]


@dataclass(frozen=True)
class Inputs:
    """Keys, the gradient of what is made of them, the tables, and what is right in two entries."""

    key: Tensor
    grad: Tensor
    rope: Rope
    expected: dict[str, correct.Truth]


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every size and dtype, without and with gradients."""
    return [
        _case(size, dtype, device, quick, backward)
        for size in (QUICK if quick else SIZES[device])
        for dtype in DTYPES[device]
        for backward in (False, True)
    ]


def _case(size: Size, dtype: torch.dtype, device: str, quick: bool, backward: bool) -> Case:
    B, G, S, D = size
    one = B * G * S * D * dtype.itemsize
    contestants = [
        Contestant(backend, partial(_call, partial(_ours, backend), backward))
        for backend in attention.backends_on(OP, device, quick)
    ]
    contestants.append(Contestant("eager", partial(_call, as_written, backward), peer=True))
    if attention.can_compile(device, quick):
        make = partial(_compiled, backward)
        contestants.append(Contestant("compiled", make, peer=True, optional=True))
    return Case(
        op=OP,
        direction="forward+backward" if backward else "forward",
        shape=f"B={B} G={G} S={S} D={D}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, size, dtype, device, backward),
        contestants=contestants,
        check=check,
        unit="GB/s",
        work=PASSES[backward] * one / 1e9,
        ceilings=ceilings.memory(device, quick),
        ceiling_work=PASSES[backward] * one / 1e9,
        result_bytes=one,
        device=device,
    )


def check(inputs: Inputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule to the first and the last entry of the batch."""
    correct.check(inputs.expected, result, lambda name, x: _ends(x))


def as_written(key: Tensor, rope: Rope) -> Tensor:
    """What users write: unit length and rotary positions, in float32."""
    return rotate(normalize(key.float(), dim=-1, eps=1e-6), *rope).to(key.dtype)


@contextmanager
def _inputs(size: Size, dtype: torch.dtype, device: str, backward: bool) -> Iterator[Inputs]:
    torch.compiler.reset()
    generator = torch.Generator(device).manual_seed(0)
    key, grad = (torch.randn(size, generator=generator, device=device).to(dtype) for _ in range(2))
    rope = attention.rope_tables(size[2], size[3], device)
    exact, reference = (
        _results(partial(_ours, "reference"), *(_ends(x).to(wide) for x in (key, grad)), rope)
        if backward
        else {"output": _ours("reference", _ends(key).to(wide), rope)}
        for wide in (torch.float64, torch.float32)
    )
    reference = {name: x.to(dtype) for name, x in reference.items()}
    yield Inputs(key, grad, rope, correct.truths(exact, reference, dtype))


def _ends(x: Tensor) -> Tensor:
    return x[[0, -1]]


def _ours(backend: str, key: Tensor, rope: Rope) -> Tensor:
    return prepare_keys(key, rope=rope, backend=backend)


def _call(prepare: Prepare, backward: bool, inputs: Inputs) -> Call:
    if backward:
        return partial(_results, prepare, inputs.key, inputs.grad, inputs.rope)
    return lambda: {"output": prepare(inputs.key, inputs.rope)}


def _compiled(backward: bool, inputs: Inputs) -> Call:
    return _call(torch.compile(as_written, dynamic=False), backward, inputs)


def _results(prepare: Prepare, key: Tensor, grad: Tensor, rope: Rope) -> dict[str, Tensor]:
    leaf = key.detach().requires_grad_()
    out = prepare(leaf, rope)
    return {"output": out.detach(), "key": torch.autograd.grad(out, leaf, grad)[0]}
