"""The public softmax_attention: meaning and checks."""

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops import dropout as drops
from pyseq.ops.softmax_attention import autograd  # noqa: F401  (registers the op)

OP = "softmax_attention"


def softmax_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    lengths: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor = 0,
    backend: str = "auto",
) -> Tensor:
    """Mix values with the weights softmax(scale <q, k>), some of them dropped.

    Made for narrow heads on the CPU, where the weights and their dropout cost more memory traffic
    than anything else: the native kernels hold those of a few queries at a time. On a GPU plain
    PyTorch serves. Query head h reads key head h // (H // G). A query that sees no key gives zeros,
    one that sees a NaN or an infinity gives NaN. Nothing is promised where logits overflow float32.

    Args:
        query (Tensor (B, H, T, D), float32 | bfloat16 | float16 | float64): any strides.
        key (Tensor (B, G, S, D), dtype of query): H is a multiple of G.
        value (Tensor (B, G, S, D), dtype of query): what is mixed.
        scale (float | None): what <q, k> is multiplied with, above 0; None: D**-0.5; no unit.
        causal (bool): a query sees no key after its own position; the last query stands at the last
            key.
        lengths (Tensor (B,), int64 | None): keys lengths[b] and later of entry b are not seen, by
            any query.
        dropout (float): the share of weights that become 0, in [0, 1), rounded to a multiple of
            2^-16; the others grow so that their expectation stays; no unit. Nothing here asks
            whether a model trains.
        seed (int | Tensor (), int64): which weights: whether weight s is dropped is a pure function
            of (seed, b, h, t, s), the same on every backend. A tensor is a new seed without a new
            compilation.
        backend (str): "auto", "reference" or "native".

    Returns:
        Tensor (B, H, T, D), dtype and memory order of query.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, or a number is out of its range.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Vaswani et al. 2017, Attention Is All You Need, arXiv 1706.03762, section 3.2.1; dropout
        of the weights as in its published code; the gradient from a kept logarithm of the sum: Dao
        et al. 2022, FlashAttention, arXiv 2205.14135, algorithm 4.

    Example:
        >>> import torch
        >>> from pyseq.ops import softmax_attention
        >>> query, key = torch.randn(2, 5, 16, 2), torch.randn(2, 5, 16, 2)
        >>> lengths = torch.tensor([16, 9])
        >>> softmax_attention(query, key, key, lengths=lengths, dropout=0.1, seed=3).shape
        torch.Size([2, 5, 16, 2])
    """
    checks.attention(OP, query, key, value)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    else:
        checks.positive(OP, "scale", scale)
    checks.flag(OP, "causal", causal)
    _check_lengths(lengths, query)
    drops.check(OP, dropout, seed, query.device)
    options = (scale, causal, float(dropout), backend)
    out, _ = registration.call(OP, query, key, value, lengths, drops.as_tensor(seed), *options)
    return out


def _check_lengths(lengths: Tensor | None, query: Tensor) -> None:
    """None, or one int64 for every entry, on the query's device."""
    if lengths is None:
        return
    checks.tensor(OP, "lengths", lengths, (torch.int64,))
    checks.one_device(OP, query=query, lengths=lengths)
    if lengths.dim() != 1 or lengths.shape[0] != query.shape[0]:
        raise ValueError(
            f"{OP}: lengths has shape {tuple(lengths.shape)}; ({query.shape[0]},) fits;"
            f" {checks.shapes_of(query=query)}"
        )
