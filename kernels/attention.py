"""What the attention kernels share: who sees whom, key ranges, and rows that are not finite."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def sees(
    position, offs_s, keys, window, prefix,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
):  # fmt: skip
    """Which query, at `position` (rows,), sees which of the first `keys` keys, (rows, columns)."""
    ahead = position[:, None] - offs_s[None, :]
    visible = tl.full(ahead.shape, True, tl.int1)
    if CAUSAL:
        visible = ahead >= 0
        if HAS_WINDOW:
            visible = visible & (ahead < window)
    elif HAS_WINDOW:
        visible = (ahead < window) & (ahead > -window)
    if HAS_PREFIX:
        visible = visible | (offs_s < prefix)[None, :]
    return visible & (offs_s < keys)[None, :]


@triton.jit
def sees_a_key(
    position, keys, window, prefix,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
):  # fmt: skip
    """Which query, at `position` (rows,), sees any key at all."""
    seeing = position >= 0 if CAUSAL else position == position
    if HAS_WINDOW:
        if not CAUSAL:
            seeing = position > -window
        seeing = seeing & (position - window < keys - 1)
    if HAS_PREFIX:
        seeing = seeing | (prefix > 0)
    return seeing & (keys > 0)


@triton.jit
def key_range(
    first, last, keys, window, prefix,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Where queries at positions `first` to `last` have to look, in keys.

    Returns:
        (start, full, rest, stop): tiles from `start` to `full` and from `rest` to `stop` need a
            mask, those from `full` to `rest` are seen whole by every query. `start`, `full` and
            `rest` are multiples of BLOCK_S. Keys of the prefix before `start` come in addition.
    """
    start = 0
    full = 0
    stop = keys
    rest = keys
    if HAS_WINDOW:
        start = tl.maximum(first - window + 1, 0)
        full = tl.maximum(last - window + 1, 0)
        if not CAUSAL:
            stop = tl.minimum(stop, last + window)
            rest = tl.minimum(rest, first + window)
    if CAUSAL:
        stop = tl.minimum(stop, last + 1)
        rest = tl.minimum(rest, first + 1)
    stop = tl.maximum(stop, 0)
    if HAS_PREFIX:  # the last of it may lie past what is seen otherwise
        stop = tl.maximum(stop, tl.minimum(prefix, keys))
    start = tl.minimum(start, stop) // BLOCK_S * BLOCK_S
    full = tl.cdiv(full, BLOCK_S) * BLOCK_S
    rest = tl.maximum(tl.maximum(rest, 0) // BLOCK_S * BLOCK_S, start)
    full = tl.minimum(tl.maximum(full, start), rest)
    return start, full, rest, stop


@triton.jit
def clean_rows(x):
    """x (rows, columns) with zeros for rows that are not finite, and which they were (rows,)."""
    bad = tl.sum(x.to(tl.float32) * 0.0, 1) != 0.0  # 0 * inf is NaN too
    return tl.where(bad[:, None], 0.0, x), bad


@triton.jit
def any_seen(visible, bad):
    """Which rows see a bad column: visible (rows, columns), bad (columns,) -> (rows,)."""
    return tl.max((visible & bad[None, :]).to(tl.int32), 1) > 0
