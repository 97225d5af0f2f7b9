"""The public adaptive_attention: meaning and checks."""

from collections.abc import Sequence

from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.adaptive_attention import autograd  # noqa: F401  (registers the op)
from pyseq.ops.adaptive_attention.reference import COEFFICIENTS

OP = "adaptive_attention"


def adaptive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    coefficients: Sequence[float] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attend more sharply where attention is dispersed: softmax(beta scale <q, k>) V.

    Softmax over more keys than were seen in training spreads out. So each query of each head
    measures the entropy H, in nats, of its softmax(scale <q, k>) over the keys that it sees, and
    takes the inverse temperature

        beta = max(polynomial(H), 1) if H > 0.5, else 1.

    With the published coefficients

    - beta is above 1 only for 0.8486 < H < 5.9445 nats; elsewhere this is plain attention;
    - the largest beta is 2.421, at H = 4.41 nats;
    - so it switches itself off where attention is nearly uniform over more than 381 keys, which is
      where the longest inputs are most dispersed. `coefficients` may then be fitted anew;
    - the max matters: above 5.9445 nats the polynomial soon falls below 0 (-3.9 at H = 7), which
      without it would turn attention over to the keys that match least.

    As beta is at least 1, the entropy of the weights is never more than that of plain attention.
    The gradient is full, through beta as well; where beta is clamped to 1 that part is 0. The
    kinks at the ends count as clamped. Other coefficients may make beta jump at H = 0.5; the
    gradient does not see the jump.

    H is computed from centred logits, ln l - t / l with l = sum e^c, t = sum c e^c and
    c = s - max s, not as -sum p ln(p + 1e-9) as in the paper: the two differ by about S 1e-9.

    Query head h reads key head h // (H // G); keys and values are never expanded. Logits, entropy,
    softmax and sums are kept in float32 (float64 for float64). The last query stands where the last
    key does: query t is at position t + S - T. A query that sees no key gives zeros and has no
    gradient. A NaN or an infinity reaches the outputs and gradients of the queries that see it, and
    no others. Only the reference backend holds all weights at once: its memory is quadratic,
    (B, H, T, S).

    Args:
        query (Tensor (B, H, T, D), float32 | bfloat16 | float16 | float64): any strides.
        key (Tensor (B, G, S, D), dtype of query): any strides; H must be a multiple of G.
        value (Tensor (B, G, S, D), dtype of query): any strides.
        scale (float | None): what <q, k> is multiplied with before its entropy is taken, above 0;
            None: D**-0.5; no unit.
        causal (bool): a query sees no key after its own position.
        coefficients (sequence of float | None): a polynomial in H, highest power first, at least
            one number, constants without a gradient; None: the published (-0.037, 0.481, -2.3,
            4.917, -1.791); [1.0] is plain attention; no unit.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, H, T, D), dtype and memory order of query.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, or a number is out of its range.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Velickovic et al. 2024, Softmax is not Enough (for Sharp Size Generalisation), arXiv
        2410.01104, the JAX listing of adaptive temperature; shared key heads: Ainslie et al. 2023,
        GQA, arXiv 2305.13245.

    Example:
        >>> import torch
        >>> from pyseq.ops import adaptive_attention
        >>> query, key = torch.randn(2, 8, 16, 32), torch.randn(2, 4, 16, 32)
        >>> adaptive_attention(query, key, key, causal=True).shape
        torch.Size([2, 8, 16, 32])
    """
    checks.attention(OP, query, key, value)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    else:
        checks.positive(OP, "scale", scale)
    checks.flag(OP, "causal", causal)
    if coefficients is None:
        coefficients = COEFFICIENTS
    else:
        check_coefficients(OP, coefficients)
    options = (scale, list(coefficients), causal, backend)
    out, _ = registration.call(OP, query, key, value, *options)
    return out


def check_coefficients(op: str, coefficients: Sequence[float]) -> None:
    """At least one finite number."""
    if not isinstance(coefficients, tuple | list):
        kind = type(coefficients).__name__
        raise TypeError(f"{op}: coefficients is a {kind}; a tuple or list of floats fits")
    if len(coefficients) == 0:
        raise ValueError(f"{op}: coefficients is empty; at least one number fits")
    for i, coefficient in enumerate(coefficients):
        checks.finite(op, f"coefficients[{i}]", coefficient)
