"""The public patch_embed: meaning and checks."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.patch_embed import autograd  # noqa: F401  (registers the op)
from pyseq.ops.patch_embed.reference import working_dtype

OP = "patch_embed"
SAMPLES = (torch.uint16, torch.int16, *checks.FLOATING)


def patch_embed(
    samples: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | None = None,
    center: float | Tensor = 0.0,
    spread: float | Tensor = 1.0,
    pad_end: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Cut a series into patches, normalise and embed them: W ((x - center) / spread) + b.

    Patch n holds the samples n * stride to n * stride + P - 1, and there are
    N = (T - P) // stride + 1 of them. Without `pad_end` the (T - P) % stride samples left over at
    the end are in no patch and have no influence; with it every sample is in one.

    Everything is computed in float32 (float64 if samples or weight are float64) and rounded once,
    at the end; on triton, products with a weight in half precision are taken with the first 21 bits
    of the samples, and products in float32 follow PyTorch's setting for tf32. A NaN in
    a sample reaches the patches that hold it and the gradient of weight, and nothing else.

    Args:
        samples (Tensor (B, T), uint16 | int16 | float32 | bfloat16 | float16 | float64): the
            series, in any unit, with a gradient if they are floating; any strides; T must be at
            least P.
        weight (Tensor (C, P), float32 | bfloat16 | float16 | float64): as of a Linear(P, C).
        bias (Tensor (C,), dtype of weight | None): added to every embedding.
        stride (int | None): samples from the start of a patch to the start of the next, 1 to P;
            None is P.
        center (float | Tensor (B,), floating): what is subtracted, for every row or for each its
            own; in the unit of samples; a constant without a gradient.
        spread (float | Tensor (B,), floating): what is divided by then; positive, which is not
            checked in a tensor; in the unit of samples; a constant without a gradient.
        pad_end (bool): extend every row by `stride` copies of its last sample first.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, N, C), dtype of weight.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, T is below P, or a number is out of its
            range.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Nie et al. 2022, PatchTST, arXiv 2211.14730, section 3.1.

    Example:
        >>> import torch
        >>> from pyseq.ops import patch_embed
        >>> samples = torch.tensor([[0, 40001, 65535, 32768]]).to(torch.uint16)
        >>> weight = torch.ones(3, 2, dtype=torch.bfloat16)
        >>> patch_embed(samples, weight, center=32768.0, spread=32768.0).shape
        torch.Size([1, 2, 3])
    """
    _check_weight(weight, bias)
    P = weight.shape[1]
    check_samples(OP, samples, P)
    checks.one_device(OP, samples=samples, weight=weight)
    stride = P if stride is None else stride
    check_stride(OP, stride, P)
    checks.flag(OP, "pad_end", pad_end)
    return registration.call(
        OP,
        samples,
        weight,
        bias,
        _as_tensor("center", center, checks.finite, samples, weight),
        _as_tensor("spread", spread, checks.positive, samples, weight),
        stride,
        pad_end,
        backend,
    )


def check_samples(op: str, samples: Tensor, P: int) -> None:
    """Samples (B, T) of at least one patch of P."""
    checks.tensor(op, "samples", samples, SAMPLES)
    if samples.dim() != 2:
        raise ValueError(
            f"{op}: samples have {samples.dim()} dimensions; (B, T) fits;"
            f" {checks.shapes_of(samples=samples)}"
        )
    T = samples.shape[1]
    if T < P:
        raise ValueError(
            f"{op}: {T} samples make no patch of {P}; at least {P} samples fit;"
            f" {checks.shapes_of(samples=samples)}"
        )


def check_stride(op: str, stride: int, P: int) -> None:
    """From 1 to P: a longer one would leave out samples between the patches."""
    checks.count(op, "stride", stride, 1)
    if stride > P:
        raise ValueError(f"{op}: stride is {stride}; at most the length of a patch, {P}, fits")


def _check_weight(weight: Tensor, bias: Tensor | None) -> None:
    checks.tensor(OP, "weight", weight)
    if weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(
            f"{OP}: weight has shape {tuple(weight.shape)}; (C, P) with P of at least 1 fits"
        )
    if bias is None:
        return
    checks.tensor(OP, "bias", bias)
    checks.one_dtype(OP, weight=weight, bias=bias)
    checks.one_device(OP, weight=weight, bias=bias)
    C = weight.shape[0]
    if bias.shape != (C,):
        raise ValueError(
            f"{OP}: bias has shape {tuple(bias.shape)}; ({C},) fits;"
            f" {checks.shapes_of(weight=weight)}"
        )


def _as_tensor(
    name: str,
    x: float | Tensor,
    check: Callable[[str, str, float], None],
    samples: Tensor,
    weight: Tensor,
) -> Tensor:
    """The constant `name` as a tensor () or (B,)."""
    if isinstance(x, bool) or not isinstance(x, int | float | Tensor):
        raise TypeError(f"{OP}: {name} is a {type(x).__name__}; a float or a tensor fits")
    if not isinstance(x, Tensor):
        check(OP, name, x)
        return torch.full((), x, dtype=working_dtype(samples, weight), device=samples.device)
    B = samples.shape[0]
    if x.shape != (B,):
        raise ValueError(
            f"{OP}: {name} has shape {tuple(x.shape)}; a float or a tensor ({B},) fits;"
            f" {checks.shapes_of(samples=samples)}"
        )
    checks.parameter(OP, name, x, samples.device, "samples")
    checks.constant(OP, name, x)
    return x
