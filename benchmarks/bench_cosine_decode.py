"""cosine_decode of one new position against prepared keys and PyTorch's fused attention.

All peers normalise and rotate the query as users write it. "grouped" gives the H / G query heads of
a key head to SDPA as so many queries, so that each key is read once; without it SDPA is asked for
shared key heads. On a GPU every call is replayed from a CUDA graph, where it can be captured: a
model that decodes replays one too, and launches would cost more than the work.

Floor at T=1 S=65536 H=32 G=8 D=128, bfloat16: keys and values of one sequence are 268 MB, of eight
2.1 GB. At 4.3 TB/s, the copy rate with reads and writes counted, that is 62 us and 0.50 ms; the
datasheet's 4.8 TB/s would give 56 us and 0.45 ms. The arithmetic, 1.1 GFLOP a sequence, is nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize, scaled_dot_product_attention

from benchmarks import attention, ceilings, correct, graphs
from benchmarks.harness import Call, Case, Contestant, results_past_cache
from pyseq.ops import cosine_decode, prepare_keys
from pyseq.ops.prepare_keys.reference import rotate

OP = "cosine_decode"
SCALE = 10.0
SETS = 4  # of a query and a cache


@dataclass(frozen=True)
class Shape:
    """Sizes of one step: B sequences with S keys each, of which the newest is the query's own."""

    B: int
    H: int
    G: int
    S: int
    D: int

    def __str__(self) -> str:
        return f"B={self.B} H={self.H} G={self.G} T=1 S={self.S} D={self.D}"

    def cache_bytes(self, dtype: torch.dtype) -> int:
        """Of keys and values."""
        return 2 * self.B * self.G * self.S * self.D * dtype.itemsize


SIZES = {
    "cuda": [Shape(1, 32, 8, 65536, 128), Shape(8, 32, 8, 65536, 128)],
    "cpu": [Shape(1, 16, 4, 65536, 64), Shape(8, 16, 4, 65536, 64)],
}
QUICK = [Shape(1, 4, 2, 35, 16)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}


@dataclass(frozen=True)
class Inputs:
    """As many sets of a query and a cache as do not fit in the last cache, and what is right."""

    shape: Shape
    # Query (B, H, 1, D), prepared keys (B, G, S, D) and values (B, G, S, D).
    sets: list[tuple[Tensor, Tensor, Tensor]]
    rope: tuple[Tensor, Tensor]
    expected: list[dict[str, correct.Truth]]


def cases(
    quick: bool = False, device: str = "cpu", sizes: Sequence[Shape] | None = None
) -> list[Case]:
    """Every shape, or these `sizes`, and dtype."""
    return [
        _case(shape, dtype, device, quick)
        for shape in sizes or (QUICK if quick else SIZES[device])
        for dtype in DTYPES[device]
    ]


def _case(shape: Shape, dtype: torch.dtype, device: str, quick: bool) -> Case:
    contestants = [
        Contestant(backend, partial(_ours, backend, device))
        for backend in attention.backends_on(OP, device, quick)
    ]
    peers: dict[str, SDPBackend | None] = dict(attention.SDPA) if device == "cuda" else {"": None}
    contestants += [
        Contestant(
            f"SDPA {name}{' grouped' * grouped}".replace("  ", " ").strip(),
            partial(_sdpa, backend, grouped, device),
            peer=True,
            optional=True,
        )
        for name, backend in peers.items()
        for grouped in (False, True)
    ]
    moved = shape.cache_bytes(dtype) / 1e9
    return Case(
        op=OP,
        direction="forward",
        shape=str(shape),
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, shape, dtype, device),
        contestants=contestants,
        check=check,
        unit="GB/s",
        work=moved,
        ceilings=ceilings.memory(device, quick, reads=True),
        ceiling_work=moved,
        checked_calls=3,
        device=device,
    )


def check(inputs: Inputs, result: tuple[int, Mapping[str, Tensor]]) -> None:
    """Apply the rule to the output of the set that was asked for."""
    number, found = result
    correct.check(inputs.expected[number], found)


@contextmanager
def _inputs(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[Inputs]:
    torch.compiler.reset()
    generator = torch.Generator(device).manual_seed(0)
    B, H, G, S, D = shape.B, shape.H, shape.G, shape.S, shape.D
    # In a graph several, so that the gaps between its replays do not count.
    sets = SETS if device == "cuda" else results_past_cache(shape.cache_bytes(dtype), device)
    sets = min(SETS, sets)
    rope = attention.rope_tables(S, D, device)

    def normal(*size: int) -> list[Tensor]:
        return [
            torch.randn(size, generator=generator, device=device).to(dtype) for _ in range(sets)
        ]

    queries, values = normal(B, H, 1, D), normal(B, G, S, D)
    keys = [prepare_keys(x, rope=rope, backend="reference") for x in normal(B, G, S, D)]
    expected = []
    for tensors in zip(queries, keys, values, strict=True):
        exact, reference = (
            _decode("reference", rope, *(x.to(wide) for x in tensors))
            for wide in (torch.float64, torch.float32)
        )
        expected.append(correct.truths({"output": exact}, {"output": reference.to(dtype)}, dtype))
    yield Inputs(shape, list(zip(queries, keys, values, strict=True)), rope, expected)


def _decode(
    backend: str, rope: tuple[Tensor, Tensor], query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    return cosine_decode(
        query, key, value, scale=SCALE, rope=rope, scale_bound=SCALE, backend=backend
    )


def _ours(backend: str, device: str, inputs: Inputs) -> Call:
    return _each_set(partial(_decode, backend, inputs.rope), device, inputs)


def _sdpa(backend: SDPBackend | None, grouped: bool, device: str, inputs: Inputs) -> Call:
    cos, sin = (table[-1:] for table in inputs.rope)
    shape = inputs.shape

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = rotate(normalize(query.float(), dim=-1, eps=1e-6), cos, sin).to(key.dtype)
        if grouped:
            query = query.view(shape.B, shape.G, -1, shape.D)
        with nullcontext() if backend is None else sdpa_kernel(backend):
            out = scaled_dot_product_attention(
                query, key, value, scale=SCALE, enable_gqa=not grouped and shape.H != shape.G
            )
        return out.reshape(shape.B, shape.H, 1, shape.D)

    return _each_set(attend, device, inputs)


def _each_set(attend: Callable[..., Tensor], device: str, inputs: Inputs) -> Call:
    def decode(*tensors: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"output": attend(*tensors)}

    return graphs.each_set(decode, inputs.sets, device)
