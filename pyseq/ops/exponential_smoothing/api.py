"""The public exponential_smoothing: meaning and checks."""

from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.exponential_smoothing import autograd  # noqa: F401  (registers the op)

OP = "exponential_smoothing"


def exponential_smoothing(
    values: Tensor, alpha: Tensor, initial: Tensor, *, backend: str = "auto"
) -> Tensor:
    """Smooth each head over time: a_t = alpha v_t + (1 - alpha) a_(t-1), a_(-1) = initial.

    The state is kept in float32 (float64 for float64) and only the output is rounded. A NaN or an
    infinity reaches the outputs from its own time on, of its own feature of its own sequence, and
    no others.

    Args:
        values (Tensor (B, T, H, D), float32 | bfloat16 | float16 | float64): what is smoothed; any
            strides.
        alpha (Tensor (H,), floating): weight of the newest value; must lie in (0, 1), which is not
            checked; no unit.
        initial (Tensor (H, D), floating): the state before the first step, in the unit of values.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, T, H, D), dtype and memory order of values.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: alpha, initial and values disagree about H, D or the device, or values has not
            four dimensions.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Woo et al. 2022, ETSformer, arXiv 2202.01381, exponential smoothing attention.

    Example:
        >>> import torch
        >>> from pyseq.ops import exponential_smoothing
        >>> values = torch.tensor([1.0, 1.0, 1.0]).view(1, 3, 1, 1)
        >>> exponential_smoothing(values, torch.tensor([0.5]), torch.zeros(1, 1)).flatten()
        tensor([0.5000, 0.7500, 0.8750])
    """
    for name, x in (("values", values), ("alpha", alpha), ("initial", initial)):
        checks.tensor(OP, name, x)
    checks.one_device(OP, values=values, alpha=alpha, initial=initial)
    named = {"values": values, "alpha": alpha, "initial": initial}
    if values.dim() != 4:
        raise ValueError(
            f"{OP}: values has {values.dim()} dimensions; (B, T, H, D) fits;"
            f" {checks.shapes_of(**named)}"
        )
    H, D = values.shape[2:]
    if alpha.shape != (H,):
        raise ValueError(
            f"{OP}: alpha has shape {tuple(alpha.shape)}; ({H},) fits; {checks.shapes_of(**named)}"
        )
    if initial.shape != (H, D):
        raise ValueError(
            f"{OP}: initial has shape {tuple(initial.shape)}; ({H}, {D}) fits;"
            f" {checks.shapes_of(**named)}"
        )
    return registration.call(OP, values, alpha, initial, backend)
