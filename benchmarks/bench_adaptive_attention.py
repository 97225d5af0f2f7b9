"""adaptive_attention against the same in eager PyTorch and compiled, forward and with gradients.

The peers hold all weights, 8.6 GB for each copy in float32 at T=4096 and a quarter of it at T=2048,
where their gradients are timed; ours needs memory for its output only. On a CPU without
instructions for bfloat16 the peers multiply in float32, which is many times faster there.

Floor at B=4 H=32 G=8 T=4096 D=128, bfloat16: scores and values are 1.1 TFLOP full, half of it
causal, and sweeping the keys twice, once for the entropy, makes it 1.6 TFLOP: at 770 to 800 TFLOP/s
2.1 ms full and 1.0 ms causal. Rates count the 1.1 TFLOP, so two sweeps reach at most 67 % of the
GEMM's rate. The peers cannot be faster than their weights: three passes over 8.6 GB, each read and
written, at 4.3 TB/s are 12 ms.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks import attention, ceilings
from benchmarks.attention import Attend, Build, Inputs, Shape
from benchmarks.harness import Case
from pyseq.ops import adaptive_attention
from pyseq.ops.adaptive_attention.reference import COEFFICIENTS

OP = "adaptive_attention"
# Shape, and whether gradients are timed.
SIZES = {
    "cuda": [
        (Shape(4, 32, 8, 4096, 128, False), False),
        (Shape(4, 32, 8, 4096, 128, True), False),
        (Shape(4, 32, 8, 2048, 128, True), True),
    ],
    "cpu": [
        (Shape(1, 16, 4, 4096, 64, False), False),
        (Shape(1, 16, 4, 4096, 64, True), False),
        (Shape(1, 16, 4, 1024, 64, True), True),
    ],
}
QUICK = [(Shape(1, 2, 1, 20, 16, True), False), (Shape(1, 2, 1, 20, 16, True), True)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
HIDDEN = -1e30  # a logit of no weight; -inf would make the entropy's gradient NaN
BACKWARD_WORK = 3.5  # of forward and backward together; 2.5 times the forward's products on top


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[tuple[Shape, bool]] | None = None
) -> list[Case]:
    """Every shape, or these `sizes`, and dtype."""
    return [
        _case(shape, dtype, device, quick, backward)
        for shape, backward in sizes or (QUICK if quick else SIZES[device])
        for dtype in DTYPES[device]
    ]


def _case(shape: Shape, dtype: torch.dtype, device: str, quick: bool, backward: bool) -> Case:
    ours: dict[str, Build] = {
        backend: partial(_ours, backend)
        for backend in attention.backends_on(OP, device, quick, shape.T)
    }
    peers: dict[str, Build] = {"eager": partial(_peer, False)}
    if attention.can_compile(device, quick):
        peers["compiled"] = partial(_peer, True)
    tflop = shape.tflop * (BACKWARD_WORK if backward else 1)
    return Case(
        op=OP,
        direction="forward+backward" if backward else "forward",
        shape=str(shape),
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, shape, dtype, device, backward),
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
def _inputs(shape: Shape, dtype: torch.dtype, device: str, backward: bool) -> Iterator[Inputs]:
    with attention.inputs(shape, dtype, device) as given:
        yield attention.expecting(given, _ours("reference", given), backward)


def _ours(backend: str, given: Inputs) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        return adaptive_attention(query, key, value, causal=given.shape.causal, backend=backend)

    return attend


def _peer(compiled: bool, given: Inputs) -> Attend:
    causal = given.shape.causal
    function = torch.compile(as_published, dynamic=False) if compiled else as_published
    dtype = given.query.dtype
    multiplied = dtype if ceilings.multiplies(given.query.device.type, dtype) else torch.float32

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        query, key, value = (x.to(multiplied) for x in (query, key, value))
        return function(query, key, value, causal).to(dtype)

    return attend


def as_published(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """The paper's listing, softmax and entropy in float32; key heads are not expanded."""
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    logits = (query.view(B, G, H // G, T, D) @ key[:, :, None].mT).float() * D**-0.5
    if causal:
        hidden = torch.ones(T, S, dtype=torch.bool, device=query.device).triu(1)
        logits = logits.masked_fill(hidden, HIDDEN)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(-1, keepdim=True)
    beta = torch.zeros_like(entropy)
    for coefficient in COEFFICIENTS:
        beta = beta * entropy + coefficient
    beta = torch.where(entropy > 0.5, beta.clamp_min(1), 1)
    weights = (logits * beta).softmax(-1).to(value.dtype)
    return (weights @ value[:, :, None]).view(B, H, T, D)
