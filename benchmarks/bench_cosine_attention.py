"""cosine_attention against normalise + RoPE + fused attention, forward and with its gradients.

Contestants: "fused" normalises and rotates inside the kernel; "prepared" runs prepare_keys on
queries and keys first, and then plain attention; "online" is "fused" without the promised bound of
the logits, so the difference is what the constant offset is worth. Peers normalise and rotate in
one compiled kernel each, with the scale of every head folded into its queries, and then call
PyTorch's fused attention or FlexAttention.

Floor at B=4 H=32 G=8 T=8192 D=128, bfloat16: 4.4 TFLOP of matrix products full, 2.2 causal, 2.2 and
1.1 at D=64; at 770 to 800 TFLOP/s that is 5.5 to 5.7 ms full and half of it causal; forward and
backward are 3.5 times that. 0.7 GB of tensors at 4.3 TB/s are 0.16 ms: arithmetic is the limit.
Anchors: cuDNN at 691 TFLOP/s forward and 594 backward (full) would need 6.4 ms and, backward,
18.5 ms; at 644 and 541 (causal) 3.4 and 10.2 ms. Published forward kernels in plain Triton run at
400 to 520 TFLOP/s, 8.5 to 11 ms (full).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks import attention, ceilings
from benchmarks.attention import SCALE_BOUND, Attend, Build, Inputs, Shape
from benchmarks.harness import Case
from pyseq.ops import cosine_attention, prepare_keys

OP = "cosine_attention"
SIZES = {
    "cuda": [
        *(Shape(4, 32, 8, 8192, D, causal) for D in (128, 64) for causal in (False, True)),
        Shape(4, 32, 8, 1024, 128, True),  # small enough for the eager peer
    ],
    "cpu": [
        *(Shape(1, 16, 4, 4096, 64, causal) for causal in (False, True)),
        Shape(1, 16, 4, 16384, 64, False),  # for its memory
    ],
}
QUICK = [Shape(1, 2, 1, 20, 16, True)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
TRAINED_LENGTH = {"cuda": 8192, "cpu": 4096}  # the longest that is timed with gradients
# On a CPU, where FlexAttention has no backward and was four times as slow as the fused attention.
FLEX_LENGTH = 4096
EAGER_LENGTH = 1024  # the longest for which an eager peer's weights are worth their memory
# Keys and queries of unit length, rounded to bfloat16, may be longer by its eps.
PREPARED_BOUND = 1.01 * SCALE_BOUND
BACKWARD_WORK = 3.5  # of forward and backward together; 2.5 times the forward's products on top


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[Shape] | None = None
) -> list[Case]:
    """Every shape and dtype, forward and with gradients; of other `sizes` than the usual ones."""
    return [
        _case(shape, dtype, device, quick, backward)
        for shape in sizes or (QUICK if quick else SIZES[device])
        for dtype in DTYPES[device]
        for backward in (False, True)
        if not backward or TRAINED_LENGTH[device] >= shape.T
    ]


def _case(shape: Shape, dtype: torch.dtype, device: str, quick: bool, backward: bool) -> Case:
    ours: dict[str, Build] = {}
    for backend in attention.backends_on(OP, device, quick, shape.T):
        if backend != "triton":
            ours[backend] = partial(_fused, backend, SCALE_BOUND)
            continue
        ours["triton fused"] = partial(_fused, backend, SCALE_BOUND)
        ours["triton prepared"] = partial(_prepared, backend)
        if not backward:
            ours["triton online"] = partial(_fused, backend, None)
    compiles = attention.can_compile(device, quick)
    peers = attention.sdpa_peers(device, _normalised, scale=1.0)
    if quick or shape.T <= EAGER_LENGTH:
        peers["eager"] = _eager
    elif compiles and (device == "cuda" or (not backward and shape.T <= FLEX_LENGTH)):
        peers |= attention.flex_peer(_normalised, scale=1.0)
    tflop = shape.tflop * (BACKWARD_WORK if backward else 1)
    return Case(
        op=OP,
        direction="forward+backward" if backward else "forward",
        shape=str(shape),
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, shape, dtype, device, compiles, backward),
        contestants=attention.contestants(
            ours, peers, attention.forward_and_backward if backward else attention.forward
        ),
        check=attention.check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic(device, quick, dtype),
        ceiling_work=tflop,
        result_bytes=shape.output_bytes(dtype),
        device=device,
    )


@contextmanager
def _inputs(
    shape: Shape, dtype: torch.dtype, device: str, compiles: bool, backward: bool
) -> Iterator[Inputs]:
    with attention.inputs(shape, dtype, device, compiles=compiles) as given:
        reference = partial(_attend, given, "reference", None)
        yield attention.expecting(given, reference, backward)


def _attend(
    given: Inputs,
    backend: str,
    bound: float | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor,
) -> Tensor:
    return cosine_attention(
        query,
        key,
        value,
        scale=scale,
        rope=given.rope,
        causal=given.shape.causal,
        scale_bound=bound,
        backend=backend,
    )


def _fused(backend: str, bound: float | None, given: Inputs) -> Attend:
    return partial(_attend, given, backend, bound)


def _prepared(backend: str, given: Inputs) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        query, key = (prepare_keys(x, rope=given.rope, backend=backend) for x in (query, key))
        return cosine_attention(
            query,
            key,
            value,
            scale=scale,
            norm=None,
            causal=given.shape.causal,
            scale_bound=PREPARED_BOUND,
            backend=backend,
        )

    return attend


def _normalised(given: Inputs, query: Tensor, key: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return given.prepare(query, key, scale, *given.rope)


def _eager(given: Inputs) -> Attend:
    shape = given.shape
    hidden = torch.ones(shape.T, shape.T, dtype=torch.bool, device=given.query.device).triu(1)

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        query, key = _normalised(given, query, key, scale)
        key, value = (x.repeat_interleave(shape.H // shape.G, dim=1) for x in (key, value))
        logits = query @ key.mT
        if shape.causal:
            logits = logits.masked_fill(hidden, float("-inf"))
        return logits.softmax(-1) @ value

    return attend
