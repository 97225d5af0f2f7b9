"""The public prepare_keys: meaning and checks."""

from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.prepare_keys import autograd  # noqa: F401  (registers the op)

OP = "prepare_keys"


def prepare_keys(
    key: Tensor,
    *,
    norm: str | None = "l2",
    eps: float = 1e-6,
    key_weight: Tensor | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    position: int = 0,
    backend: str = "auto",
) -> Tensor:
    """Normalise, weight and rotate keys as cosine_attention would, once, for a cache.

    Each row is taken for itself, in float32 (float64 for float64), and rounded once, to key's
    dtype. `cosine_attention` never rounds what it makes of a key, so `cosine_decode` from a
    bfloat16 or float16 cache differs from it by that rounding: each feature of a key is off by at
    most half an eps of itself. A row with a NaN or an infinity spoils itself and its own gradient
    only; key_weight's gradient leaves it out.

    Args:
        key (Tensor (B, G, S, D), float32 | bfloat16 | float16 | float64): any strides. With `norm`
            None and a `rope`, queries or keys of any attention that only rotates.
        norm (str | None): "l2": x / max(||x||, eps), so that <q, k> is a cosine; "rms":
            x / sqrt(mean(x^2) + eps); "layer": the mean removed, then as "rms"; None: x itself.
        eps (float): keeps the norm of a zero vector finite; above 0, in the units of x for "l2",
            of x^2 for "rms" and "layer".
        key_weight (Tensor (D,), floating | None): gain of the normalised key; no unit.
        rope (tuple of two Tensor (positions, D/2), floating | None): (cos, sin) of the angles by
            which the pairs (i, i + D/2) are rotated after the norm; row p serves position p, so
            positions must be at least position + S. They are constants and have no gradient.
        position (int): where the first key stands; the others follow it.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, G, S, D), dtype and memory order of key.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, a number is out of its range, or the
            rope tables have no row for a key.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Henry et al. 2020, Query-Key Normalization for Transformers, arXiv 2010.04245; rotation:
        Su et al. 2021, RoFormer, arXiv 2104.09864.

    Example:
        >>> import torch
        >>> from pyseq.ops import prepare_keys
        >>> cache = torch.zeros(2, 4, 100, 32)
        >>> cache[:, :, 7:10] = prepare_keys(torch.randn(2, 4, 3, 32), position=7)
        >>> cache[0, 0, 7].norm().round(decimals=5)
        tensor(1.)
    """
    checks.tensor(OP, "key", key)
    if key.dim() != 4 or key.shape[3] == 0:
        raise ValueError(
            f"{OP}: {key.dim()} dimensions; key (B, G, S, D), D above 0, fits;"
            f" {checks.shapes_of(key=key)}"
        )
    checks.norm(OP, norm, eps)
    checks.gain(OP, "key_weight", key_weight, key=key)
    checks.count(OP, "position", position, 0)
    if rope is not None:
        S, D = key.shape[2:]
        checks.rope(OP, rope, D, position + S, key=key)
    cos, sin = (None, None) if rope is None else rope
    return registration.call(OP, key, key_weight, cos, sin, norm, eps, position, backend)
