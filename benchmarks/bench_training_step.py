"""One optimiser step of the baseline model against the same model on PyTorch's fused attention.

A step is forward, backward and AdamW on B windows of T symbols, always the same ones. All
contestants start from the same weights; the gradients of their first step and the losses of the
first steps must be those of the reference in float64, which checks backward, update and forward.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.harness import Call, Case, Ceiling, Contestant, WrongAnswer
from pyseq.errors import BackendUnavailable
from pyseq.models import Baseline, BaselineConfig
from pyseq.nn import CosineAttention, RotaryEmbedding
from pyseq.ops.backends import BACKENDS
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.prepare_keys.reference import rotate

CHECKED_STEPS = 3
LEARNING_RATE = 1e-3
# How far gradients may be from float64's, as a share of their norm: rounding alone gives 2e-6 and
# 3e-2, seeing the future 0.2 and more; and losses, as a share of what the checked steps gain.
GRADIENTS_OFF = {torch.float32: 1e-4, torch.bfloat16: 0.1}
LOSSES_OFF = {torch.float32: 0.01, torch.bfloat16: 0.1}


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
    """Where all contestants start, and what float64 finds on the way."""

    size: Size
    dtype: torch.dtype
    device: str
    weights: dict[str, Tensor]
    window: Tensor  # (B, T + 1) int64
    losses: list[float]  # nats, before each step
    gradients: list[Tensor]  # of the first step


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """float32 and bfloat16 autocast; the larger model where there is a GPU."""
    size = QUICK if quick else LARGE if device == "cuda" else SMALL
    return [_case(size, dtype, device, compiled=not quick) for dtype in LOSSES_OFF]


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


def check(inputs: Inputs, result: tuple[int, Tensor, list[Tensor] | None]) -> None:
    """Refuse unless gradients and losses follow float64's; later losses must be below the first."""
    step, loss, gradients = result[0], float(result[1]), result[2]
    first, *_, last = inputs.losses
    if step >= len(inputs.losses):
        if not loss < first:
            raise WrongAnswer(f"loss {loss} after {step} steps on one batch; it began at {first}")
    elif not abs(loss - inputs.losses[step]) <= LOSSES_OFF[inputs.dtype] * (first - last):
        raise WrongAnswer(f"loss {loss} after {step} steps; float64 has {inputs.losses[step]}")
    if gradients is None:
        return
    whole = torch.stack([exact.norm() for exact in inputs.gradients]).norm()
    for number, (ours, exact) in enumerate(zip(gradients, inputs.gradients, strict=True)):
        # The gradient of a temperature is a sum whose terms cancel: relative to the whole as well.
        allowed = GRADIENTS_OFF[inputs.dtype] * float(exact.norm() + 1e-3 * whole)
        off = float((ours.double() - exact).norm())
        if not off <= allowed:
            raise WrongAnswer(f"gradient {number} is {off:.2g} off float64's; {allowed:.2g} fits")


@contextmanager
def _inputs(size: Size, dtype: torch.dtype, device: str) -> Iterator[Inputs]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Baseline(size.config).state_dict()
        window = torch.randint(size.config.classes, (size.batch, size.length + 1))
    inputs = Inputs(size, torch.float64, device, weights, window.to(device), [], [])
    step = _step("cosine_attention reference", False, inputs)
    _, losses, gradients = zip(*(step() for _ in range(CHECKED_STEPS)), strict=True)
    yield replace(inputs, dtype=dtype, losses=[float(x) for x in losses], gradients=gradients[0])


def _step(attention: str, compiled: bool, inputs: Inputs) -> Call:
    """A step of a model of its own.

    It returns how many steps were made before, the loss then, and in the first step the gradients.
    """
    model = Baseline(inputs.size.config)
    model.load_state_dict(inputs.weights)
    model.to(inputs.device)
    for block in model.blocks:
        layer = cast(CosineAttention, block.attention)
        if attention == "SDPA":
            block.attention = SdpaAttention(layer)
        else:
            layer.backend = attention.removeprefix("cosine_attention ")
    if inputs.dtype == torch.float64:
        model.double()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True
    )
    loss_of = torch.compile(model.loss) if compiled else model.loss
    steps = 0

    def step() -> tuple[int, Tensor, list[Tensor] | None]:
        nonlocal steps
        with _precision(inputs):
            loss = loss_of(inputs.window)
        loss.backward()
        optimizer.step()
        gradients = [cast(Tensor, p.grad) for p in model.parameters()] if steps == 0 else None
        optimizer.zero_grad()
        steps += 1
        return steps - 1, loss.detach(), gradients

    return step


def _precision(inputs: Inputs):
    if inputs.dtype != torch.bfloat16:
        return nullcontext()
    return torch.autocast(inputs.device, torch.bfloat16)


class SdpaAttention(nn.Module):
    """A CosineAttention layer with its weights, on normalise + `scaled_dot_product_attention`."""

    def __init__(self, layer: CosineAttention):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *, cache: None = None) -> Tensor:
        assert cache is None  # a training step keeps none
        layer, (B, T, width) = self.layer, x.shape
        by_head = layer.query_key_value(x).view(B, T, -1, layer.head_dim).transpose(1, 2)
        query, key, value = by_head.split((layer.heads, layer.key_heads, layer.key_heads), dim=1)
        cos, sin = cast(RotaryEmbedding, layer.rope)(T, device=x.device)
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
