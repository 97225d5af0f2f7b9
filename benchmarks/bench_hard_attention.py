"""hard_attention forward against PyTorch's fused soft attention and an eager argmax and gather.

Fused soft attention computes something else; it is the peer because it is what a model would use
instead. Its output is held against softmax(<q, k> / sqrt(D)) V, ours and the eager one's against
the rule of the op: the chosen key's float64 logit is within tolerance of the best one, the output
is that row of value bit for bit, and where the gap to the second best is larger than the tolerance
the index is the best one's. The eager peer holds all logits, 17 GB in bfloat16 at T=8192.

Floor at B=4 H=32 G=8 T=8192 D=128, bfloat16: one product instead of two, 2.2 TFLOP full and half
of it causal, at 770 to 800 TFLOP/s 2.7 to 2.9 ms and 1.4 ms; 0.7 GB of tensors at 4.3 TB/s are
0.16 ms. Rates count this one product, so the share of the GEMM's rate is that of the floor. cuDNN's
soft attention, at 691 TFLOP/s of twice the work, would need 6.4 ms, 2.2 times our floor. The
comparison of every logit with its lane's best is what keeps us from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import attention, ceilings
from benchmarks.attention import Inputs, Shape
from benchmarks.harness import Call, Case, Contestant, WrongAnswer
from pyseq.ops import hard_attention

OP = "hard_attention"
SIZES = {
    "cuda": [Shape(4, 32, 8, 8192, D, causal) for D in (128, 64) for causal in (False, True)],
    "cpu": [
        *(Shape(1, 16, 4, 4096, 64, causal) for causal in (False, True)),
        Shape(1, 16, 4, 16384, 64, False),  # for its memory
    ],
}
QUICK = [Shape(1, 2, 1, 40, 16, True)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
LARGEST_LOGITS = {"cuda": 24e9, "cpu": 2e9}  # bytes of the eager peer's
ROWS = 1024  # queries whose float64 logits exist at once


@dataclass(frozen=True)
class HardInputs:
    """Tensors, the truth about the soft peers, and how far a chosen logit may be from the best."""

    given: Inputs
    tolerance: float


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[Shape] | None = None
) -> list[Case]:
    """Every shape, or these `sizes`, and dtype; the gradient is not timed."""
    shapes = sizes or (QUICK if quick else SIZES[device])
    return [_case(shape, dtype, device, quick) for shape in shapes for dtype in DTYPES[device]]


def _case(shape: Shape, dtype: torch.dtype, device: str, quick: bool) -> Case:
    contestants = [
        Contestant(backend, partial(_ours, backend))
        for backend in attention.backends_on(OP, device, quick, shape.T)
    ]
    for name, build in attention.sdpa_peers(device, _as_they_are, shape.D**-0.5).items():
        contestants.append(Contestant(name, partial(_soft, build), peer=True, optional=True))
    small = shape.B * shape.H * shape.T**2 * dtype.itemsize <= LARGEST_LOGITS[device]
    if small and (quick or ceilings.multiplies(device, dtype)):
        contestants.append(Contestant("eager", _eager, peer=True, optional=True))
    tflop = shape.tflop / 2  # no product with the values
    return Case(
        op=OP,
        direction="forward",
        shape=str(shape),
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, shape, dtype, device),
        contestants=contestants,
        check=check,
        unit="TFLOP/s",
        work=tflop,
        ceilings=ceilings.arithmetic(device, quick, dtype),
        ceiling_work=tflop,
        result_bytes=shape.output_bytes(dtype),
        device=device,
    )


@contextmanager
def _inputs(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[HardInputs]:
    with attention.inputs(shape, dtype, device) as given:
        given = attention.expecting(given, partial(_soft_reference, shape), backward=False)
        largest = max(float(best.abs().max()) for _, best, _ in _best_two(given))
        yield HardInputs(given, 4 * torch.finfo(dtype).eps * largest)


def check(inputs: HardInputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule of the op to the sampled heads, or that of sums to a soft peer."""
    given = inputs.given
    if "index" not in result:
        attention.check(given, result)
        return
    shape = given.shape
    index = attention.sampled(shape, "index", result["index"])
    output = attention.sampled(shape, "output", result["output"])
    value = attention.sampled(shape, "value", given.value)
    value = value.repeat_interleave(shape.H // shape.G, dim=1)
    if not bool(((index >= 0) & (index < shape.T)).all()):
        raise WrongAnswer("an index is outside of the keys")
    if not torch.equal(output, value.gather(2, index[..., None].expand_as(output))):
        raise WrongAnswer("a row of the output is not the row of value that the index names")
    for rows, best, scores in _best_two(given):
        chosen = index[:, :, rows]
        found = scores.gather(-1, chosen[..., None])[..., 0]
        off = float((best[..., 0] - found).max())
        if not off <= inputs.tolerance:
            raise WrongAnswer(f"a chosen logit is {off:.3g} below the best; {inputs.tolerance:.3g}")
        clear = best[..., 0] - best[..., 1] > inputs.tolerance
        if bool((clear & (found < best[..., 0])).any()):
            raise WrongAnswer("another key than the best one was chosen where the best is clear")


def _best_two(given: Inputs) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For slices of queries: the two highest float64 logits (..., 2), and all, -inf hidden."""
    shape = given.shape
    query = attention.sampled(shape, "query", given.query).double()
    key = attention.sampled(shape, "key", given.key).double()
    key = key.repeat_interleave(shape.H // shape.G, dim=1)
    for start in range(0, shape.T, ROWS):
        rows = slice(start, min(start + ROWS, shape.T))
        scores = query[:, :, rows] @ key.mT
        if shape.causal:
            t = torch.arange(rows.start, rows.stop, device=key.device)
            later = torch.arange(shape.T, device=key.device) > t[:, None]
            scores.masked_fill_(later, float("-inf"))
        best = scores.topk(2, dim=-1).values
        # The first query of a causal attention has one key, and nothing second.
        yield rows, best.clamp_min(torch.finfo(best.dtype).min), scores


def _ours(backend: str, inputs: HardInputs) -> Call:
    given = inputs.given

    def call() -> dict[str, Tensor]:
        output, index = hard_attention(
            given.query,
            given.key,
            given.value,
            causal=given.shape.causal,
            gradient=None,
            return_index=True,
            backend=backend,
        )
        return {"output": output, "index": index}

    return call


def _soft(build: attention.Build, inputs: HardInputs) -> Call:
    return attention.forward(build(inputs.given), inputs.given)


def _as_they_are(given: Inputs, query: Tensor, key: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return query, key


def _soft_reference(
    shape: Shape, query: Tensor, key: Tensor, value: Tensor, scale: Tensor
) -> Tensor:
    logits = (query * shape.D**-0.5) @ key.mT
    if shape.causal:
        hidden = torch.ones(shape.T, shape.T, dtype=torch.bool, device=query.device).triu(1)
        logits = logits.masked_fill(hidden, float("-inf"))
    return logits.softmax(-1) @ value


def _eager(inputs: HardInputs) -> Call:
    given, shape = inputs.given, inputs.given.shape
    hidden = torch.ones(shape.T, shape.T, dtype=torch.bool, device=given.query.device).triu(1)

    def call() -> dict[str, Tensor]:
        grouped = given.query.unflatten(1, (shape.G, -1))
        scores = (grouped @ given.key[:, :, None].mT).flatten(1, 2)
        if shape.causal:
            scores.masked_fill_(hidden, float("-inf"))
        index = scores.argmax(-1)
        value = given.value.repeat_interleave(shape.H // shape.G, dim=1)
        rows = index[..., None].expand(*index.shape, shape.D)
        return {"output": value.gather(2, rows), "index": index}

    return call
