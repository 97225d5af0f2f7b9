"""feed_forward with dropout against linear, relu, dropout, linear in eager PyTorch and compiled.

The first size is a layer of the Transformer of "Rule Extrapolation in Language Models", 128 words
of 257 tokens, the second a stack of 5 such models at length 66. On a GPU plain PyTorch serves, so
that there is nothing to compare.

Floor at N=32896 C=10 F=1024: 1.35 GFLOP forward, and three times that backward with the hidden
layer made again: 5.4 GFLOP, at 100 GFLOP/s of two cores 54 ms. Peers read and write the hidden
layer, 135 MB, some ten times.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import attention, ceilings, dropping
from benchmarks.dropping import Op, Tensors
from benchmarks.harness import Case
from pyseq.ops import feed_forward

OP = "feed_forward"
SIZES = [(1, 32896, 10, 1024), (5, 8448, 10, 1024)]
QUICK = [(2, 50, 10, 70)]
SHARE = 0.1
SEED = 1
FLOP = 2 * 2 * 4  # of a hidden feature of a token and a feature of C, with gradients

Size = tuple[int, int, int, int]  # S, N, C, F


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every size in float32, forward and backward together; none on a GPU."""
    if device == "cuda":
        return []
    return [_case(size, quick) for size in (QUICK if quick else SIZES)]


def _case(size: Size, quick: bool) -> Case:
    S, N, C, F = size
    ours: dict[str, Op] = {
        backend: partial(_ours, backend) for backend in attention.backends_on(OP, "cpu", quick)
    }
    peers: dict[str, Op] = {"eager": as_written}
    if attention.can_compile("cpu", quick):
        peers["compiled"] = torch.compile(as_written, dynamic=False)
    tflop = FLOP * S * N * C * F / 1e12
    return Case(
        op=OP,
        direction="forward+backward",
        shape=f"S={S} N={N} C={C} F={F} dropout={SHARE}",
        dtype="float32",
        inputs=partial(
            dropping.inputs,
            partial(_tensors, size),
            (),
            ours["reference"],
            SHARE,
            dict.fromkeys(("weight_in", "bias_in", "weight_out", "bias_out"), N),
        ),
        contestants=dropping.contestants(ours, peers),
        check=dropping.check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic("cpu", quick, torch.float32),
        ceiling_work=tflop,
        device="cpu",
    )


def as_written(x: Tensors, dropout: float) -> Tensor:
    """What users write; the layers of a stack by batched products."""
    z = torch.baddbmm(x["bias_in"][:, None], x["x"], x["weight_in"].mT)
    hidden = functional.dropout(functional.relu(z), dropout)
    return torch.baddbmm(x["bias_out"][:, None], hidden, x["weight_out"].mT)


def _tensors(size: Size, generator: torch.Generator) -> Tensors:
    S, N, C, F = size

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "x": normal(S, N, C),
        "weight_in": normal(S, F, C) * C**-0.5,
        "bias_in": normal(S, F),
        "weight_out": normal(S, C, F) * F**-0.5,
        "bias_out": normal(S, C),
    }


def _ours(backend: str, x: Tensors, dropout: float) -> Tensor:
    return feed_forward(**x, dropout=dropout, seed=SEED, backend=backend)
