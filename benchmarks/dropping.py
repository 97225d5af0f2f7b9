"""What the benchmarks of ops with dropout share: inputs, and how a result is checked.

Ours draw the same zeros on every backend, so their results with dropout are compared. A peer draws
others; what is compared of it is a run of the same code without dropout, made before it is timed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import correct
from benchmarks.harness import Call, Contestant

DRAWS = 2  # gradients of the output that the tolerance is made from
DROPPED, PLAIN = "dropped", "plain"

Tensors = dict[str, Tensor]
# Takes the tensors and the share of dropout.
Op = Callable[[Tensors, float], Tensor]
Result = tuple[str, Tensors]


@dataclass(frozen=True)
class Inputs:
    """Tensors, the output's gradient, and what is right with dropout and without."""

    tensors: Tensors
    constants: tuple[str, ...]  # names of those without a gradient
    grad: Tensor
    share: float
    expected: dict[str, dict[str, correct.Truth]]


@contextmanager
def inputs(
    make: Callable[[torch.Generator], Tensors],
    constants: tuple[str, ...],
    reference: Op,
    share: float,
    sums: Mapping[str, int] | None = None,
) -> Iterator[Inputs]:
    """Tensors from a generator, and the truth about them from the reference.

    `sums` names gradients that are sums, and of how many terms: see `correct.with_plain_sums`.
    """
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    tensors = make(generator)
    out = reference(tensors, 0.0)
    grads = [torch.randn(out.shape, generator=generator) for _ in range(DRAWS)]
    expected = {
        kind: correct.over_draws(
            correct.with_plain_sums(
                _truths(reference, tensors, constants, grad, dropout), sums or {}
            )
            for grad in grads
        )
        for kind, dropout in ((DROPPED, share), (PLAIN, 0.0))
    }
    yield Inputs(tensors, constants, grads[0], share, expected)


def _truths(
    reference: Op, tensors: Tensors, constants: tuple[str, ...], grad: Tensor, dropout: float
) -> dict[str, correct.Truth]:
    wide = {n: x if n in constants else x.double() for n, x in tensors.items()}
    exact = _results(reference, wide, constants, grad.double(), dropout)
    single = _results(reference, tensors, constants, grad, dropout)
    return correct.truths(exact, single, torch.float32)


def contestants(ours: Mapping[str, Op], peers: Mapping[str, Op]) -> list[Contestant]:
    """Forward and all gradients."""
    return [
        *(Contestant(name, partial(_ours, op)) for name, op in ours.items()),
        *(
            Contestant(name, partial(_peer, op), peer=True, optional=True)
            for name, op in peers.items()
        ),
    ]


def check(given: Inputs, result: Result) -> None:
    """Apply the rule to the output and every gradient, whole."""
    kind, found = result
    correct.check(given.expected[kind], found)


def _ours(op: Op, given: Inputs) -> Call:
    def call() -> Result:
        return DROPPED, _results(op, given.tensors, given.constants, given.grad, given.share)

    return call


def _peer(op: Op, given: Inputs) -> Call:
    plain = _results(op, given.tensors, given.constants, given.grad, 0.0)

    def call() -> Result:
        _results(op, given.tensors, given.constants, given.grad, given.share)
        return PLAIN, plain

    return call


def _results(
    op: Op, tensors: Tensors, constants: tuple[str, ...], grad: Tensor, dropout: float
) -> Tensors:
    leaves = {n: x if n in constants else x.detach().requires_grad_() for n, x in tensors.items()}
    trained = {n: x for n, x in leaves.items() if n not in constants}
    out = op(leaves, dropout)
    gradients = torch.autograd.grad(out, list(trained.values()), grad)
    return {"output": out.detach(), **dict(zip(trained, gradients, strict=True))}
