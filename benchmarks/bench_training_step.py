"""One optimiser step of the baseline model against the same model on PyTorch's fused attention.

A step is forward, backward and AdamW on B windows of T symbols, always the same ones. All
contestants start from the same weights; the losses of their first steps must follow those of the
float64 reference, which checks forward, backward and update at once.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Call, Case, Ceiling, Contestant, WrongAnswer
from pyseq.errors import BackendUnavailable
from pyseq.models import Baseline, BaselineConfig
from pyseq.ops.backends import BACKENDS
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.cosine_attention.reference import rotate

CHECKED_STEPS = 3
LEARNING_RATE = 1e-3
# How far a loss may be from float64's, as a share of what the checked steps gain.
TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class Size:
    """A model, the batch that it is trained on, and the size of the GEMM that is its ceiling."""

    config: BaselineConfig
    batch: int
    length: int
    gemm: int

    @property
    def shape(self) -> str:
        config = self.config
        return f"d={config.d_model} layers={config.nlayers} B={self.batch} T={self.length}"


SMALL = Size(BaselineConfig(classes=1024), batch=16, length=256, gemm=1024)
LARGE = Size(
    BaselineConfig(classes=1024, d_model=512, nlayers=8, nhead=16, nhead_kv=16, dim_ff=2048),
    batch=64,
    length=1024,
    gemm=8192,
)
QUICK = Size(
    BaselineConfig(classes=32, d_model=32, nlayers=2, nhead=2, nhead_kv=1, dim_ff=48),
    batch=2,
    length=24,
    gemm=64,
)


@dataclass(frozen=True)
class Inputs:
    """Where all contestants start, and the losses (nats) that float64 has on the way."""

    size: Size
    dtype: torch.dtype
    device: str
    weights: dict[str, Tensor]
    window: Tensor  # (B, T + 1) int64
    losses: list[float]


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """float32 and bfloat16 autocast; the larger model where there is a GPU."""
    size = QUICK if quick else LARGE if device == "cuda" else SMALL
    return [_case(size, dtype, device, compiled=not quick) for dtype in TOLERANCE]


def _case(size: Size, dtype: torch.dtype, device: str, compiled: bool) -> Case:
    tokens = size.batch * size.length
    ours = [f"cosine_attention {backend}" for backend in serving_backends(device)]
    ways = [False, True] if compiled and shutil.which("c++") else [False]
    contestants = [
        Contestant(name + " compiled" * way, partial(_step, name, way), peer=name == "SDPA")
        for name in (*ours, "SDPA")
        for way in ways
    ]
    name = str(dtype).removeprefix("torch.")
    return Case(
        op="training_step",
        direction="step",
        shape=size.shape,
        dtype=name,
        inputs=partial(_inputs, size, dtype, device),
        contestants=contestants,
        check=check,
        unit="tokens/s",
        work=tokens,
        ceilings=[Ceiling(f"{name} GEMM", "TFLOP/s", 2 * size.gemm**3 / 1e12, _gemm)],
        ceiling_work=tokens * Baseline(size.config).flops_per_symbol(size.length) / 1e12,
        checked_calls=CHECKED_STEPS,
        device=device,
    )


def serving_backends(device: str) -> list[str]:
    """The backends of cosine_attention that can be trained with on this machine."""
    serving = []
    for backend in BACKENDS:
        query = torch.ones(1, 1, 2, 16, device=device, requires_grad=True)
        try:
            cosine_attention(query, query, query, scale=1.0, backend=backend).sum().backward()
        except BackendUnavailable:
            continue
        serving.append(backend)
    return serving


def check(inputs: Inputs, result: tuple[int, Tensor]) -> None:
    """Refuse unless the loss follows float64's; later steps must be below where it began."""
    step, loss = result[0], float(result[1])
    first, *_, last = inputs.losses
    if step >= len(inputs.losses):
        if not loss < first:
            raise WrongAnswer(f"loss {loss} after {step} steps on one batch; it began at {first}")
        return
    off, allowed = abs(loss - inputs.losses[step]), TOLERANCE[inputs.dtype] * (first - last)
    if not off <= allowed:
        raise WrongAnswer(
            f"loss {loss} after {step} steps; float64 has {inputs.losses[step]}, {allowed:.2g} off"
            " fits"
        )


@contextmanager
def _inputs(size: Size, dtype: torch.dtype, device: str) -> Iterator[Inputs]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Baseline(size.config).state_dict()
        window = torch.randint(size.config.classes, (size.batch, size.length + 1))
    exact = Inputs(size, torch.float64, device, weights, window.to(device), [])
    step = _step("cosine_attention reference", False, exact)
    losses = [float(step()[1]) for _ in range(CHECKED_STEPS)]
    yield Inputs(size, dtype, device, weights, window.to(device), losses)


def _step(attention: str, compiled: bool, inputs: Inputs) -> Call:
    """A step of a model of its own; returns (steps made before, the loss before this one)."""
    model = Baseline(inputs.size.config)
    model.load_state_dict(inputs.weights)
    model.to(inputs.device)
    for block in model.blocks:
        if attention == "SDPA":
            block.attention = SdpaAttention(block.attention)
        else:
            block.attention.backend = attention.removeprefix("cosine_attention ")
    if inputs.dtype == torch.float64:
        model.double()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True
    )
    loss_of = torch.compile(model.loss) if compiled else model.loss
    steps = 0

    def step() -> tuple[int, Tensor]:
        nonlocal steps
        with _precision(inputs):
            loss = loss_of(inputs.window)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        return steps - 1, loss.detach()

    return step


def _precision(inputs: Inputs):
    if inputs.dtype != torch.bfloat16:
        return nullcontext()
    return torch.autocast(inputs.device, torch.bfloat16)


class SdpaAttention(nn.Module):
    """A CosineAttention layer with its weights, on normalise + `scaled_dot_product_attention`."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer, (B, T, width) = self.layer, x.shape
        by_head = layer.query_key_value(x).view(B, T, -1, layer.head_dim).transpose(1, 2)
        query, key, value = by_head.split((layer.heads, layer.key_heads, layer.key_heads), dim=1)
        cos, sin = layer.rope(T, device=x.device)
        query, key = (nn.functional.normalize(side, dim=-1, eps=1e-6) for side in (query, key))
        # SDPA's scale is a Python float; a trained one goes into the query.
        query = rotate(query, cos, sin) * layer.scale()[:, None, None].to(value.dtype)
        mixed = nn.functional.scaled_dot_product_attention(
            query.to(value.dtype),
            rotate(key, cos, sin).to(value.dtype),
            value,
            is_causal=True,
            scale=1.0,
            enable_gqa=layer.heads != layer.key_heads,
        )
        return layer.out(mixed.transpose(1, 2).reshape(B, T, width))


def _gemm(inputs: Inputs) -> Call:
    """A square matrix product in the dtype that the step's products have."""
    n = inputs.size.gemm
    left, right = (torch.randn(n, n, device=inputs.device).to(inputs.dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)
