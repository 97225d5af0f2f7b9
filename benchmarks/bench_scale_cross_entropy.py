"""scale_cross_entropy, forward and backward, against F.cross_entropy(linear(x)).

The peers keep all logits: in bfloat16, as a mixed-precision model gives them to the loss, and in
float32, as careful ones do; on a CPU without instructions for bfloat16 they multiply in float32,
which is many times faster there. With several scales there is no peer; what more scales cost is
seen beside the row of one.

Floor at 16384 tokens, C=1024, V=65536, bfloat16: three products of 2.2 TFLOP each, 6.6 TFLOP, at
770 to 800 TFLOP/s 8.2 to 8.6 ms; logits that are made again backward add a fourth, 11 ms, 75 % of
the GEMM's rate. The logits are 2.1 GB in bfloat16: a peer that writes them, reads them twice and
writes and twice reads their gradient needs 3 ms more at 4.3 TB/s, and keeps 2 to 13 GB, where the
gradients alone are 0.17 GB.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from benchmarks import attention, ceilings, correct
from benchmarks.harness import Call, Case, Contestant
from pyseq.ops import scale_cross_entropy

OP = "scale_cross_entropy"
SIZES = {"cuda": (16384, 1024, 65536), "cpu": (4096, 512, 65536)}  # tokens N, C, V
QUICK = (21, 16, 300)
SCALES = ((1,), (1, 256, 1024, 4096))
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}

Size = tuple[int, int, int]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Inputs:
    """Hidden states, projection, targets, and what is right."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor  # (N,) uint16
    expected: dict[str, correct.Truth]


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[Size] | None = None
) -> list[Case]:
    """One scale and several, in every dtype; of other `sizes` than the usual one."""
    return [
        _case(size, scales, dtype, device, quick)
        for size in sizes or [QUICK if quick else SIZES[device]]
        for scales in SCALES
        for dtype in DTYPES[device]
    ]


def _case(
    size: Size, scales: tuple[int, ...], dtype: torch.dtype, device: str, quick: bool
) -> Case:
    N, C, V = size
    contestants = [
        Contestant(backend, partial(_ours_call, scales, backend))
        for backend in attention.backends_on(OP, device, quick)
    ]
    if not ceilings.multiplies(device, dtype):
        peers = {", float32 products": by_float32}
    elif dtype == torch.float32:
        peers = {"": in_dtype}
    else:
        peers = {"": in_dtype, ", float32 logits": in_float32}
    ways = {"eager": False}
    if attention.can_compile(device, quick):
        ways["compiled"] = True
    if scales == (1,):
        contestants += [
            Contestant(way + kind, partial(_peer_call, loss, compiled), peer=True, optional=True)
            for way, compiled in ways.items()
            for kind, loss in peers.items()
        ]
    tflop = 6 * N * C * V / 1e12
    return Case(
        op=OP,
        direction="forward+backward",
        shape=f"tokens={N} C={C} V={V} scales={'/'.join(map(str, scales))}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, size, scales, dtype, device),
        contestants=contestants,
        check=check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic(device, quick, dtype),
        ceiling_work=tflop,
        device=device,
    )


def check(inputs: Inputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule to the loss and both gradients, whole."""
    correct.check(inputs.expected, result)


def in_dtype(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss from logits in the dtype of the hidden states."""
    return cross_entropy(linear(hidden, weight), targets)


def in_float32(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss from logits in float32."""
    return cross_entropy(linear(hidden, weight).float(), targets)


def by_float32(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss from products and logits in float32."""
    return cross_entropy(linear(hidden.float(), weight.float()), targets)


@contextmanager
def _inputs(
    size: Size, scales: tuple[int, ...], dtype: torch.dtype, device: str
) -> Iterator[Inputs]:
    torch.compiler.reset()
    (N, C, V), generator = size, torch.Generator(device).manual_seed(0)
    hidden, weight = (
        torch.randn(shape, generator=generator, device=device) for shape in ((N, C), (V, C))
    )
    tensors = hidden.to(dtype), (weight * C**-0.5).to(dtype)  # logits of order one
    targets = torch.randint(V, (N,), generator=generator, device=device)
    exact, reference = (
        _results(_ours(scales, "reference"), *(x.to(wide) for x in tensors), targets)
        for wide in (torch.float64, torch.float32)
    )
    rounded = {name: x if name == "loss" else x.to(dtype) for name, x in reference.items()}
    expected = correct.truths(exact, rounded, dtype)
    yield Inputs(*tensors, targets.to(torch.int32).to(torch.uint16), expected)


def _ours(scales: tuple[int, ...], backend: str) -> Loss:
    def loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return scale_cross_entropy(hidden, weight, targets, scales=scales, backend=backend)[0]

    return loss


def _ours_call(scales: tuple[int, ...], backend: str, inputs: Inputs) -> Call:
    tensors = inputs.hidden, inputs.weight, inputs.targets
    return partial(_results, _ours(scales, backend), *tensors)


def _peer_call(loss: Loss, compiled: bool, inputs: Inputs) -> Call:
    loss = torch.compile(loss, dynamic=False) if compiled else loss
    # cross_entropy takes no uint16 targets, so that the peers are given int64 ones.
    return partial(_results, loss, inputs.hidden, inputs.weight, inputs.targets.long())


def _results(loss: Loss, hidden: Tensor, weight: Tensor, targets: Tensor) -> dict[str, Tensor]:
    leaves = [x.detach().requires_grad_() for x in (hidden, weight)]
    value = loss(*leaves, targets)
    gradients = torch.autograd.grad(value, leaves)
    return {"loss": value.detach(), **dict(zip(("hidden", "weight"), gradients, strict=True))}
