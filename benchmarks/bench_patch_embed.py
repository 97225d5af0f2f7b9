"""patch_embed of uint16 samples against cast, window and linear in eager PyTorch and compiled.

Outputs rotate past the cache: on a GPU the calls of one round are replayed from a CUDA graph where
they can be captured, because at B=2 launches would cost more than the work.

Floor at T=65536 P=16 C=512, bfloat16 weights: the output is 8.4 MB at B=2 and 268 MB at B=64, the
samples 0.26 and 8.4 MB: at 4.3 TB/s 2.0 us and 64 us. The product is 0.13 and 4.3 GFLOP, 5.5 us at
the GEMM's 780 TFLOP/s for the larger: bytes are the limit.

With gradients of weight and bias, on the CPU only, the output's gradient is read once more: as many
bytes as were written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks import attention, ceilings, correct, graphs
from benchmarks.harness import Call, Case, Contestant, results_past_cache
from pyseq.ops import patch_embed

OP = "patch_embed"
T, P, C = 65536, 16, 512
BATCHES = (2, 64)
TRAINED = {"cuda": (), "cpu": (16,)}  # batches that are timed with gradients
QUICK = (3, 70, 8, 24)  # B, T, P, C
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
CENTER, SPREAD = 32767.5, 18918.6  # mean and standard deviation of evenly spread u16
MOST_SETS = 32
DRAWS = 2  # gradients of the output that the tolerance is made from

Size = tuple[int, int, int, int]
Embed = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Inputs:
    """Sets of samples, one layer, and what is right in the first and the last row of each set."""

    samples: list[Tensor]  # each (B, T) uint16
    weight: Tensor
    bias: Tensor
    grad: Tensor | None  # of every set's output
    expected: list[dict[str, correct.Truth]]  # gradients whole


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[Size] | None = None
) -> list[Case]:
    """Every size and dtype, forward; some with gradients. Of other `sizes` the forward alone."""
    forward, trained = (
        [QUICK] * min(len(batches), 1) if quick else [(B, T, P, C) for B in batches]
        for batches in (BATCHES, TRAINED[device])
    )
    if sizes:
        forward, trained = list(sizes), []
    return [
        _case(size, dtype, device, quick, backward)
        for backward, each in ((False, forward), (True, trained))
        for size in each
        for dtype in DTYPES[device]
    ]


def _case(size: Size, dtype: torch.dtype, device: str, quick: bool, backward: bool) -> Case:
    B, T, P, C = size
    written = B * (T // P) * C * dtype.itemsize
    read = B * T * torch.uint16.itemsize
    moved = (1 + backward) * (written + read) / 1e9
    contestants = [
        Contestant(backend, partial(_call, partial(_ours, backend), device))
        for backend in attention.backends_on(OP, device, quick)
    ]
    contestants.append(Contestant("eager", partial(_call, as_written, device), peer=True))
    if attention.can_compile(device, quick):
        make = partial(_compiled, device)
        contestants.append(Contestant("compiled", make, peer=True, optional=True))
    return Case(
        op=OP,
        direction="forward+backward" if backward else "forward",
        shape=f"B={B} T={T} P={P} C={C}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, size, dtype, device, written, backward),
        contestants=contestants,
        check=check,
        unit="GB/s",
        work=moved,
        ceilings=ceilings.memory(device, quick),
        ceiling_work=moved,
        result_bytes=written if device == "cpu" else 0,  # a graph keeps its results itself
        checked_calls=3,
        device=device,
    )


def check(inputs: Inputs, result: tuple[int, Mapping[str, Tensor]]) -> None:
    """Apply the rule to the first and the last row of the set that was asked for, and gradients."""
    number, found = result
    correct.check(inputs.expected[number], found, _compared)


def as_written(samples: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What users write: normalise in float32, window, and a linear layer in its own dtype."""
    x = (samples.float() - CENTER) / SPREAD
    return linear(x.unfold(1, weight.shape[1], weight.shape[1]).to(weight.dtype), weight, bias)


def _compared(name: str, x: Tensor) -> Tensor:
    return x[[0, -1]] if name == "output" else x


@contextmanager
def _inputs(
    size: Size, dtype: torch.dtype, device: str, written: int, backward: bool
) -> Iterator[Inputs]:
    torch.compiler.reset()
    B, T, P, C = size
    generator = torch.Generator(device).manual_seed(0)
    sets = min(MOST_SETS, results_past_cache(written, device))
    weight = (torch.randn(C, P, generator=generator, device=device) * P**-0.5).to(dtype)
    bias = torch.randn(C, generator=generator, device=device).to(dtype)
    samples, expected = [], []
    grads = [
        torch.randn(B, T // P, C, generator=generator, device=device).to(dtype)
        for _ in range(DRAWS if backward else 0)
    ]
    for _ in range(sets):
        drawn = torch.randint(1 << 16, (B, T), generator=generator, device=device)
        samples.append(drawn.to(torch.int32).to(torch.uint16))
        draws = (_truths(samples[-1], weight, bias, grad) for grad in grads or [None])
        expected.append(correct.over_draws(draws))
    yield Inputs(samples, weight, bias, grads[0] if backward else None, expected)


def _truths(
    samples: Tensor, weight: Tensor, bias: Tensor, grad: Tensor | None
) -> dict[str, correct.Truth]:
    if grad is None:
        samples = samples[[0, -1]]
    exact, reference = (
        _results(partial(_ours, "reference"), grad, samples, weight.to(wide), bias.to(wide))
        for wide in (torch.float64, torch.float32)
    )
    exact["output"], reference["output"] = exact["output"][[0, -1]], reference["output"][[0, -1]]
    rounded = {name: x.to(weight.dtype) for name, x in reference.items()}
    return correct.truths(exact, rounded, weight.dtype)


def _results(
    embed: Embed, grad: Tensor | None, samples: Tensor, weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    if grad is None:
        return {"output": embed(samples, weight, bias)}
    layer = [x.detach().requires_grad_() for x in (weight, bias)]
    out = embed(samples, *layer)
    d_weight, d_bias = torch.autograd.grad(out, layer, grad.to(out.dtype))
    return {"output": out.detach(), "weight": d_weight, "bias": d_bias}


def _ours(backend: str, samples: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return patch_embed(samples, weight, bias, center=CENTER, spread=SPREAD, backend=backend)


def _call(embed: Embed, device: str, inputs: Inputs) -> Call:
    def embedded(samples: Tensor) -> dict[str, Tensor]:
        return _results(embed, inputs.grad, samples, inputs.weight, inputs.bias)

    return graphs.each_set(embedded, [(x,) for x in inputs.samples], device)


def _compiled(device: str, inputs: Inputs) -> Call:
    return _call(torch.compile(as_written, dynamic=False), device, inputs)
