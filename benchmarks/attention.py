"""What the attention benchmarks share: shapes, inputs, peers, and how a result is checked.

Float64 of a whole forward and backward would be slow to make, so all queries and keys of the first
and the last key head are compared, one query head at a time, in every entry of the batch: there the
first and the last tile, the diagonal and the largest offsets are.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize, scaled_dot_product_attention

from benchmarks import correct
from benchmarks.harness import Call, Contestant
from pyseq.kernels import launch
from pyseq.ops import backends
from pyseq.ops.prepare_keys.reference import rotate

PROBE = 128  # positions on which an SDPA backend is asked whether it knows shared heads
SCALES = (5.0, 15.0)  # of the first and the last head: temperatures as models train them
SCALE_BOUND = 20.0
ROPE_BASE = 10_000.0
# How many gradients of the output the tolerance is made from.
DRAWS, LONG_DRAWS = 8, 2
# A fused backward makes the weights again from logits and their log-sum-exp, near 15, rounded; what
# is left of it after the cancelling is several times the rule's 4 eps.
SCALE_SLACK = 4
REFERENCE_LENGTH = 2048
SHORT = 256  # the most positions for which many draws cost nothing
SDPA = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}

# Takes query, key, value and scale (H,); returns the output (B, H, T, D).
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Build = Callable[["Inputs"], Attend]
# Takes inputs, query, key and scale; returns the query and key that a plain attention is given.
Prepare = Callable[["Inputs", Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """Sizes of one self-attention: T queries and as many keys."""

    B: int
    H: int
    G: int
    T: int
    D: int
    causal: bool

    def __str__(self) -> str:
        sizes = f"B={self.B} H={self.H} G={self.G} T={self.T} D={self.D}"
        return f"{sizes} {'causal' if self.causal else 'full'}"

    @property
    def tflop(self) -> float:
        """Of scores and of their product with the values; half of it where causal."""
        whole = 4 * self.B * self.H * self.T**2 * self.D / 1e12
        return whole / 2 if self.causal else whole

    @property
    def tokens(self) -> int:
        """Queries of all sequences."""
        return self.B * self.T

    def output_bytes(self, dtype: torch.dtype) -> int:
        """Of one output."""
        return self.B * self.H * self.T * self.D * dtype.itemsize


@dataclass(frozen=True)
class Inputs:
    """Random tensors, and what a result must be; peers' compiled parts are made on first use."""

    shape: Shape
    query: Tensor
    key: Tensor
    value: Tensor
    scale: Tensor  # (H,) float32
    grad: Tensor  # of the output
    rope: tuple[Tensor, Tensor]
    expected: dict[str, correct.Truth]
    compiles: bool = False  # whether peers are compiled

    @cached_property
    def prepare(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """`normalise_and_rotate`, compiled where peers are."""
        if not self.compiles:
            return normalise_and_rotate
        return torch.compile(normalise_and_rotate, dynamic=False)

    @cached_property
    def flex(self) -> Callable[..., Tensor]:
        """FlexAttention, compiled, with the mask of this shape."""
        from torch.nn.attention import flex_attention

        mask = None
        if self.shape.causal:
            T = self.shape.T
            mask = flex_attention.create_block_mask(
                lambda b, h, q, k: q >= k, None, None, T, T, device=self.query.device.type
            )
        compiled = torch.compile(flex_attention.flex_attention, dynamic=False)
        return partial(compiled, block_mask=mask, enable_gqa=True)


def can_compile(device: str, quick: bool) -> bool:
    """Whether compiled peers take part: a CPU's need a C++ compiler, and all of them time."""
    return not quick and (device == "cuda" or shutil.which("c++") is not None)


def backends_on(op: str, device: str, quick: bool, T: int = 0) -> list[str]:
    """Ours: what serves an op there; the interpreter only where it is asked for and inputs small.

    The reference is left out where T is above `REFERENCE_LENGTH`: a call would take long.

    On a GPU Triton is named even where an op has no such code yet: the row is then left out with
    the reason.
    """
    if device == "cuda":
        return ["triton"]
    native = ["native"] if "native" in backends.SERVED_BY[op] else []
    interpreter = ["triton"] if quick and launch.interpreted() else []
    reference = ["reference"] if T <= REFERENCE_LENGTH else []
    return [*reference, *native, *interpreter]


@contextmanager
def inputs(
    shape: Shape, dtype: torch.dtype, device: str, *, compiles: bool = False
) -> Iterator[Inputs]:
    """Normal numbers, and no truth about them yet."""
    torch.compiler.reset()  # a case's peers are compiled for its shape, not for any shape
    B, H, G, T, D = shape.B, shape.H, shape.G, shape.T, shape.D
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device).to(dtype)

    yield Inputs(
        shape,
        query=normal(B, H, T, D),
        key=normal(B, G, T, D),
        value=normal(B, G, T, D),
        scale=torch.linspace(*SCALES, H, device=device),
        grad=normal(B, H, T, D),
        rope=rope_tables(T, D, device),
        expected={},
        compiles=compiles,
    )


def rope_tables(positions: int, D: int, device: str) -> tuple[Tensor, Tensor]:
    """cos and sin (positions, D/2), float32, of rotary positions."""
    frequency = ROPE_BASE ** (-torch.arange(0, D, 2, device=device) / D)
    angle = torch.arange(positions, device=device)[:, None] * frequency
    return angle.cos(), angle.sin()


def expecting(given: Inputs, attend: Callable[..., Tensor], backward: bool) -> Inputs:
    """The inputs with the truth about `sampled` heads.

    Args:
        given (Inputs): without a truth.
        attend (Callable): the reference for one head, called with query, key, value and scale (1,).
        backward (bool): gradients too.
    """
    draws = DRAWS if given.shape.T <= SHORT else LONG_DRAWS
    expected = correct.over_draws(
        _truths(given, seed, attend, backward) for seed in range(draws if backward else 1)
    )
    if "scale" in expected:
        scale = expected["scale"]
        expected["scale"] = replace(scale, allowed=SCALE_SLACK * scale.allowed)
    return replace(given, expected=expected)


def _truths(given: Inputs, seed: int, attend: Attend, backward: bool) -> dict[str, correct.Truth]:
    """For the inputs' own gradient of the output if the seed is 0, else for another one."""
    if seed > 0:
        generator = torch.Generator(given.grad.device).manual_seed(seed)
        given = replace(given, grad=torch.empty_like(given.grad).normal_(generator=generator))
    exact = _by_head(given, attend, torch.float64, backward)
    # The reference in a narrow dtype computes in float32 and rounds its results once.
    reference = _by_head(given, attend, torch.float32, backward)
    dtype = given.query.dtype
    rounded = {name: x if name == "scale" else x.to(dtype) for name, x in reference.items()}
    return correct.truths(exact, rounded, dtype)


def check(given: Inputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule to the sampled heads."""
    correct.check(given.expected, result, partial(sampled, given.shape))


def sampled(shape: Shape, name: str, x: Tensor) -> Tensor:
    """The part of a tensor by heads that is compared: that of the first and the last key head."""
    groups = sorted({0, shape.G - 1})
    if name in ("key", "value"):
        return x[:, groups]
    each = shape.H // shape.G
    heads = [g * each + i for g in groups for i in range(each)]
    return x[heads] if name == "scale" else x[:, heads]


def forward(attend: Attend, given: Inputs) -> Call:
    """A call that gives the output."""

    def call() -> dict[str, Tensor]:
        with torch.no_grad():
            return {"output": attend(given.query, given.key, given.value, given.scale)}

    call.note = getattr(attend, "note", "")  # type: ignore[attr-defined]
    return call


def forward_and_backward(attend: Attend, given: Inputs) -> Call:
    """A call that gives the output and the gradients of all four inputs."""
    tensors = {"query": given.query, "key": given.key, "value": given.value, "scale": given.scale}
    leaves = {name: x.detach().requires_grad_() for name, x in tensors.items()}

    def call() -> dict[str, Tensor]:
        out = attend(*leaves.values())
        gradients = torch.autograd.grad(out, list(leaves.values()), given.grad, allow_unused=True)
        found = {n: x for n, x in zip(leaves, gradients, strict=True) if x is not None}
        return {"output": out.detach(), **found}

    call.note = getattr(attend, "note", "")  # type: ignore[attr-defined]
    return call


def normalise_and_rotate(
    query: Tensor, key: Tensor, scale: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit length, rotary positions, and the scale of each head in its queries, as users write it.

    SDPA's own scale is a Python float, the same for all heads.
    """
    q, k = (rotate(normalize(x.float(), dim=-1, eps=1e-6), cos, sin) for x in (query, key))
    return (q * scale[:, None, None]).to(query.dtype), k.to(key.dtype)


def sdpa_peers(device: str, prepare: Prepare, scale: float) -> dict[str, Build]:
    """PyTorch's fused attention: its two fastest GPU backends, or the one that a CPU has.

    A backend that knows no shared key heads runs on expanded keys and values, which its row says.
    """
    if device == "cpu":
        return {"SDPA": partial(_sdpa, None, prepare, scale)}
    return {
        f"SDPA {name}": partial(_sdpa, SDPA[name], prepare, scale) for name in ("cuDNN", "flash")
    }


def flex_peer(prepare: Prepare, scale: float) -> dict[str, Build]:
    """FlexAttention, compiled."""

    def build(given: Inputs) -> Attend:
        def attend(query: Tensor, key: Tensor, value: Tensor, per_head: Tensor) -> Tensor:
            query, key = prepare(given, query, key, per_head)
            return given.flex(query, key, value, scale=scale)

        return attend

    return {"FlexAttention compiled": build}


def _sdpa(backend: SDPBackend | None, prepare: Prepare, scale: float, given: Inputs) -> Attend:
    each = given.shape.H // given.shape.G
    shared = each > 1 and _knows_shared_heads(backend, given)

    def attend(query: Tensor, key: Tensor, value: Tensor, per_head: Tensor) -> Tensor:
        query, key = prepare(given, query, key, per_head)
        if not shared:
            key, value = (x.repeat_interleave(each, dim=1) for x in (key, value))
        with nullcontext() if backend is None else sdpa_kernel(backend):
            return scaled_dot_product_attention(
                query,
                key,
                value,
                is_causal=given.shape.causal,
                scale=scale,
                enable_gqa=shared,
            )

    attend.note = "" if shared or each == 1 else ", heads expanded"  # type: ignore[attr-defined]
    return attend


def _knows_shared_heads(backend: SDPBackend | None, given: Inputs) -> bool:
    if backend is None:
        return True
    parts = (x[:1, :, :PROBE] for x in (given.query, given.key, given.value))
    try:
        with sdpa_kernel(backend):
            scaled_dot_product_attention(*parts, is_causal=given.shape.causal, enable_gqa=True)
    except RuntimeError:
        return False
    return True


def contestants(
    ours: Mapping[str, Build], peers: Mapping[str, Build], run: Callable[[Attend, Inputs], Call]
) -> list[Contestant]:
    """Ours and the peers, which are left out where this machine or PyTorch cannot run them."""

    def made(build: Build, given: Inputs) -> Call:
        return run(build(given), given)

    return [
        *(Contestant(name, partial(made, build)) for name, build in ours.items()),
        *(
            Contestant(name, partial(made, build), peer=True, optional=True)
            for name, build in peers.items()
        ),
    ]


def _by_head(
    given: Inputs, attend: Attend, dtype: torch.dtype, backward: bool
) -> dict[str, Tensor]:
    """What the reference makes of the sampled heads, in `dtype`."""
    tensors = {name: getattr(given, name) for name in ("query", "key", "value", "scale", "grad")}
    parts = {name: sampled(given.shape, name, x).to(dtype) for name, x in tensors.items()}
    found = {"output": torch.zeros_like(parts["query"])}
    each = given.shape.H // given.shape.G
    for b, h in itertools.product(*map(range, parts["query"].shape[:2])):
        g = h // each
        places = {"query": (b, h), "key": (b, g), "value": (b, g), "scale": (h,)}
        leaves = [
            parts[name][tuple(slice(i, i + 1) for i in place)].detach().requires_grad_(backward)
            for name, place in places.items()
        ]
        out = attend(*leaves)
        found["output"][b, h] = out.detach()[0, 0]
        if not backward:
            continue
        gradients = torch.autograd.grad(
            out, leaves, parts["grad"][b : b + 1, h : h + 1], allow_unused=True
        )
        for (name, place), gradient in zip(places.items(), gradients, strict=True):
            if gradient is not None:
                total = found.setdefault(name, torch.zeros_like(parts[name]))
                total[place] += gradient[(0,) * len(place)]
    return found
