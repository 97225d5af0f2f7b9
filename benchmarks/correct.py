"""The rule that every contestant meets before it is timed.

``err(ours, float64) <= 2 * err(reference in the same dtype, float64) + 4 * eps * max|float64|``
for the output and every gradient, with inputs rounded to the dtype first: the rule of the tests.
Where float64 of everything would take too long, parts of it are compared, exactly.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.harness import WrongAnswer

FLOAT64_ERROR = 1e-12  # what float64 itself leaves of sums of order one


@dataclass(frozen=True)
class Truth:
    """What a named part of a result must be, and how far from it a result may be."""

    exact: Tensor  # float64
    allowed: float

    @classmethod
    def of(cls, exact: Tensor, reference: Tensor, dtype: torch.dtype) -> "Truth":
        """From float64's answer and the reference's in `dtype`."""
        largest = float(exact.abs().max()) if exact.numel() else 0.0
        rounding = 4 * torch.finfo(dtype).eps * largest
        return cls(exact, 2 * _error(reference, exact) + rounding + FLOAT64_ERROR)


def truths(
    exact: Mapping[str, Tensor], reference: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Truth]:
    """A `Truth` for every name; `reference` is rounded as a result would be."""
    return {name: Truth.of(exact[name], reference[name], dtype) for name in exact}


def over_draws(draws: Iterable[dict[str, Truth]]) -> dict[str, Truth]:
    """The first draw's truths, each with the largest tolerance of all draws.

    The reference's error in a parameter's gradient, a sum whose terms cancel, can be small by luck.
    """
    first, *others = draws
    return {
        name: replace(truth, allowed=max(draw[name].allowed for draw in (first, *others)))
        for name, truth in first.items()
    }


def with_plain_sums(truths: Mapping[str, Truth], terms: Mapping[str, int]) -> dict[str, Truth]:
    """Room for peers that add the named sums of so many terms up in float32, one after the other.

    Each addition is rounded by up to eps / 2 of what there is so far, either way. The rule alone
    would refuse such a peer for a reference that adds pairwise; the tests hold ours to the rule.
    """
    half_eps = torch.finfo(torch.float32).eps / 2
    loose = {
        name: replace(
            truth, allowed=truth.allowed + n**0.5 * half_eps * float(truth.exact.abs().max())
        )
        for name, n in terms.items()
        for truth in [truths[name]]
    }
    return {**truths, **loose}


def check(
    expected: Mapping[str, Truth],
    result: Mapping[str, Tensor],
    part: Callable[[str, Tensor], Tensor] = lambda name, x: x,
) -> None:
    """Refuse a result with a tensor that is not finite, or a part that is too far from the truth.

    Args:
        expected (dict): by name; every name must be in the result.
        result (dict): whole tensors.
        part (Callable): takes a name and the whole tensor, returns what the truth is about.

    Raises:
        WrongAnswer: which name, how far, and what would have been allowed.
    """
    if missing := set(expected) - set(result):
        raise WrongAnswer(f"no {', '.join(sorted(missing))} in the result")
    for name, whole in result.items():
        if not bool(torch.isfinite(whole).all()):
            raise WrongAnswer(f"{name} is not finite everywhere")
    for name, truth in expected.items():
        found = part(name, result[name])
        if found.shape != truth.exact.shape:
            raise WrongAnswer(f"{name} has shape {tuple(found.shape)}")
        error = _error(found, truth.exact)
        if not error <= truth.allowed:
            raise WrongAnswer(f"{name} is {error:.3g} off float64's; {truth.allowed:.3g} fits")


def _error(x: Tensor, exact: Tensor) -> float:
    """The largest difference."""
    return float((x.double() - exact).abs().max()) if exact.numel() else 0.0
