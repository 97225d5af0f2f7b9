"""The public scale_cross_entropy: meaning, checks, and how the rows' losses are summed up."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.scale_cross_entropy import autograd  # noqa: F401  (registers the op)

OP = "scale_cross_entropy"
INTEGERS = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
REDUCTIONS = ("mean", "sum", "none")


def scale_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    scales: Sequence[int] = (1,),
    scale_weights: Sequence[float] | None = None,
    bias: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of hidden @ weight.T + bias at several resolutions of the alphabet.

    At scale s symbol i falls in bin i // s (the last bin may be narrower), and a row's loss is
    -log of the probability of its target's bin: logsumexp(all logits) - logsumexp(the bin's).
    Scale 1 is ordinary cross-entropy; where one bin holds the whole alphabet the loss is 0. Each is
    a proper score, so their weighted sum is: no other distribution expects less than the true one.

    Logits, softmax and sums are kept in float32 (float64 for float64). The logits of all rows never
    exist together, and the backward pass makes them again. On the reference at most 2^24 of them do
    (or those of one row), forward and backward, in two copies of 64 MiB; bins of a good part of the
    alphabet take a few times that. For inputs narrower than float32 a copy of `weight` in float32
    comes on top, and its gradient is summed in float32. Natively the logits of 192 rows and 256
    symbols are alive in each thread, and backward the gradients of up to 1152 x 1024 of them; the
    gradients of all inputs are summed in float32. On Triton no logits are stored forward, and
    backward 128 MiB of their gradients, rounded to the inputs' dtype; the gradient of `hidden` is
    kept in float32, that of `weight` for up to 16384 symbols at a time.

    Under autocast hidden, weight and bias are cast to its dtype first, as in a linear layer.

    Args:
        hidden (Tensor (..., C), float32 | bfloat16 | float16 | float64): what the logits are made
            from; any strides.
        weight (Tensor (V, C), dtype of hidden): the projection to the alphabet of V symbols.
        targets (Tensor (...), any integer dtype, uint16 too): the true symbols, 0 to V - 1 or
            `ignore_index`. Their values are not checked by the op, which would have to wait for
            the device; another value is an IndexError on the CPU, and an infinite loss in Triton.
        scales (tuple of int): widths of the bins in symbols, at least 1.
        scale_weights (tuple of float | None): what each scale's loss counts in the sum, finite and
            at least 0; None: 1 each; no unit.
        bias (Tensor (V,), dtype of hidden | None): added to the logits.
        ignore_index (int | None): rows with this target have loss 0 and no gradient, whatever
            their `hidden` holds.
        reduction (str): "mean" over the rows that are not ignored, "sum", or "none". The mean of
            no rows is NaN, with gradients of 0, as in torch.nn.functional.cross_entropy.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        tuple of two Tensor, float32 (float64 for float64), in nats, both with gradients:
            the loss, (), or of the shape of targets without a reduction; and the loss at each
            scale before weighing, (n_scales,), or (n_scales, ...).

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, or a number is out of its range.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: logits that are never stored: Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary
        Language Models, arXiv 2411.09009; proper scores: Gneiting and Raftery 2007, Strictly Proper
        Scoring Rules, Prediction, and Estimation, JASA 102.

    Example:
        >>> import torch
        >>> from pyseq.ops import scale_cross_entropy
        >>> hidden, weight = torch.randn(2, 10, 64), torch.randn(1000, 64)
        >>> targets = torch.randint(0, 1000, (2, 10))
        >>> loss, per_scale = scale_cross_entropy(hidden, weight, targets, scales=(1, 16, 256))
        >>> loss.shape, per_scale.shape
        (torch.Size([]), torch.Size([3]))
    """
    check_scales(OP, scales, scale_weights)
    check_reduction(OP, ignore_index, reduction)
    hidden, weight, bias = _check_and_cast(hidden, weight, bias, targets)
    symbols = targets.long()  # uint16 can be stored, but neither compared nor looked up
    losses, _masses = registration.call(
        OP,
        hidden.reshape(symbols.numel(), hidden.shape[-1]),
        weight,
        bias,
        symbols.flatten(),
        list(scales),
        ignore_index,
        backend,
    )  # (n_scales, N)
    if reduction == "none":
        per_scale = losses.view(len(scales), *symbols.shape)
    elif reduction == "sum" or ignore_index is None:
        per_scale = losses.sum(1) if reduction == "sum" else losses.mean(1)
    else:
        per_scale = losses.sum(1) / (symbols != ignore_index).sum()
    if scale_weights is None:
        return per_scale.sum(0), per_scale
    # Python numbers, because a tensor of them would have to be sent to the device at every call.
    weighed = [share * x for share, x in zip(scale_weights, per_scale.unbind(), strict=True)]
    return torch.stack(weighed).sum(0), per_scale


def check_scales(op: str, scales: Sequence[int], scale_weights: Sequence[float] | None) -> None:
    """At least one positive int, and None or as many finite numbers of at least 0."""
    if not isinstance(scales, tuple | list):
        raise TypeError(f"{op}: scales is a {type(scales).__name__}; a tuple of ints fits")
    if not scales:
        raise ValueError(f"{op}: no scales; at least one fits")
    for scale in scales:
        checks.count(op, "a scale", scale, 1)
    if scale_weights is None:
        return
    if not isinstance(scale_weights, tuple | list):
        kind = type(scale_weights).__name__
        raise TypeError(f"{op}: scale_weights is a {kind}; a tuple of floats or None fits")
    if len(scale_weights) != len(scales):
        raise ValueError(
            f"{op}: {len(scale_weights)} scale_weights for {len(scales)} scales; as many fit"
        )
    for share in scale_weights:
        checks.finite(op, "a scale weight", share)
        if share < 0:
            raise ValueError(f"{op}: a scale weight is {share}; at least 0 fits")


def check_reduction(op: str, ignore_index: int | None, reduction: str) -> None:
    """Which rows count, and what becomes of them."""
    if ignore_index is not None and (
        isinstance(ignore_index, bool) or not isinstance(ignore_index, int)
    ):
        kind = type(ignore_index).__name__
        raise TypeError(f"{op}: ignore_index is a {kind}; an int or None fits")
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: reduction is {reduction!r}; 'mean', 'sum' or 'none' fits")


def _check_and_cast(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    floating = {"hidden": hidden, "weight": weight}
    if bias is not None:
        floating["bias"] = bias
    for name, x in floating.items():
        checks.tensor(OP, name, x)
    checks.tensor(OP, "targets", targets, INTEGERS)
    floating = {name: _autocast(x) for name, x in floating.items()}
    checks.one_dtype(OP, **floating)
    checks.one_device(OP, **floating, targets=targets)
    if hidden.dim() == 0 or hidden.shape[:-1] != targets.shape:
        raise ValueError(
            f"{OP}: hidden has shape {tuple(hidden.shape)} for targets {tuple(targets.shape)};"
            " a last axis C after the shape of targets fits;"
            f" {checks.shapes_of(**floating, targets=targets)}"
        )
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[-1] or 0 in weight.shape:
        raise ValueError(
            f"{OP}: weight has shape {tuple(weight.shape)}; (V, {hidden.shape[-1]}), V and C at"
            f" least 1, fits; {checks.shapes_of(**floating, targets=targets)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{OP}: bias has shape {tuple(bias.shape)}; ({weight.shape[0]},) fits;"
            f" {checks.shapes_of(**floating, targets=targets)}"
        )
    return floating["hidden"], floating["weight"], floating.get("bias")


def _autocast(x: Tensor) -> Tensor:
    """x as a linear layer would see it under autocast, which leaves float64 alone."""
    device = x.device.type
    if x.dtype == torch.float64 or x.is_meta or not torch.is_autocast_enabled(device):
        return x
    return x.to(torch.get_autocast_dtype(device))
