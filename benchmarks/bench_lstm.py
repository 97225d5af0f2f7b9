"""lstm, forward and backward, against PyTorch's own LSTM (oneDNN on a CPU), a seed after the other.

The first size is a layer of the LSTM of "Rule Extrapolation in Language Models", 3 seeds, 128 words
of 257 tokens; the second has short words. PyTorch's kernel has two biases, of which one is 0. A
loop of steps under torch.compile is left out: it would be compiled for minutes, step by step. On a
GPU PyTorch's kernel serves, so that there is nothing to compare.

Floor at S=3 B=128 T=257 I=H=64: 19.4 GFLOP in six products of equal size, two of them forward; at
100 GFLOP/s of two cores 0.19 s. Beside them 32 million exponentials, and 126 MB of gates and cells
that are written once and read once.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import attention, ceilings, correct
from benchmarks.harness import Call, Case, Contestant
from pyseq.ops import lstm

OP = "lstm"
SIZES = [(3, 128, 257, 64, 64), (3, 128, 66, 64, 64)]
QUICK = [(2, 7, 9, 5, 11)]
FLOP = 2 * 3 * 4  # of a unit of a row, a step, and an input or unit before, with gradients
DRAWS = 2  # gradients of the outputs that the tolerance is made from

Size = tuple[int, int, int, int, int]  # S, B, T, I, H
Tensors = dict[str, Tensor]
Op = Callable[..., Tensor]


@dataclass(frozen=True)
class Inputs:
    """Tensors, the outputs' gradient, and what is right."""

    tensors: Tensors
    grad: Tensor
    expected: dict[str, correct.Truth]


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every size in float32, forward and backward together; none on a GPU."""
    if device == "cuda":
        return []
    return [_case(size, quick) for size in (QUICK if quick else SIZES)]


def _case(size: Size, quick: bool) -> Case:
    S, B, T, I, H = size  # noqa: E741
    contestants = [
        Contestant(backend, partial(_call, partial(_ours, backend)))
        for backend in attention.backends_on(OP, "cpu", quick, T)
    ]
    contestants.append(Contestant("torch.lstm", partial(_call, by_pytorch), peer=True))
    tflop = FLOP * S * B * T * H * (I + H) / 1e12
    return Case(
        op=OP,
        direction="forward+backward",
        shape=f"S={S} B={B} T={T} I={I} H={H}",
        dtype="float32",
        inputs=partial(_inputs, size),
        contestants=contestants,
        check=check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic("cpu", quick, torch.float32),
        ceiling_work=tflop,
        device="cpu",
    )


def check(given: Inputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule to the outputs and every gradient, whole."""
    correct.check(given.expected, result)


def by_pytorch(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
) -> Tensor:
    """The outputs (S, B, T, H) of PyTorch's LSTM with each seed's parameters."""
    outputs = []
    for s in range(x.shape[0]):
        weights = [weight_ih[s], weight_hh[s], bias[s], torch.zeros_like(bias[s])]
        states = [hidden[s][None], cell[s][None]]
        outputs.append(torch.lstm(x[s], states, weights, True, 1, 0.0, True, False, True)[0])
    return torch.stack(outputs)


@contextmanager
def _inputs(size: Size) -> Iterator[Inputs]:
    S, B, T, I, H = size  # noqa: E741
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "x": normal(S, B, T, I),
        "weight_ih": normal(S, 4 * H, I) * I**-0.5,
        "weight_hh": normal(S, 4 * H, H) * H**-0.5,
        "bias": normal(S, 4 * H),
        "hidden": normal(S, B, H).tanh(),
        "cell": normal(S, B, H),
    }
    grads = [normal(S, B, T, H) for _ in range(DRAWS)]
    expected = correct.over_draws(_truths(tensors, grad) for grad in grads)
    yield Inputs(tensors, grads[0], expected)


def _truths(tensors: Tensors, grad: Tensor) -> dict[str, correct.Truth]:
    reference = partial(_ours, "reference")
    exact = _results(reference, {n: x.double() for n, x in tensors.items()}, grad.double())
    truths = correct.truths(exact, _results(reference, tensors, grad), torch.float32)
    return correct.with_plain_sums(truths, {"bias": grad[0, ..., 0].numel()})


def _ours(backend: str, **tensors: Tensor) -> Tensor:
    return lstm(**tensors, backend=backend)[0]


def _call(op: Op, given: Inputs) -> Call:
    return partial(_results, op, given.tensors, given.grad)


def _results(op: Op, tensors: Tensors, grad: Tensor) -> Tensors:
    leaves = {name: x.detach().requires_grad_() for name, x in tensors.items()}
    outputs = op(**leaves)
    gradients = torch.autograd.grad(outputs, list(leaves.values()), grad)
    return {"output": outputs.detach(), **dict(zip(leaves, gradients, strict=True))}
