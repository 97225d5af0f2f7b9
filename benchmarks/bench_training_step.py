"""One optimiser step of both models: the baseline against the same on PyTorch's fused attention.

A step is forward, backward and AdamW on B windows of T symbols, always the same ones. All
contestants start from the same weights; the gradients of their first step and the losses of the
first steps must be those of the reference in float64, which checks backward, update and forward.
The supercharged model has layers that PyTorch does not have, and so no peer: its steps on one
backend stand beside those on the other. In bfloat16 its hard attention chooses other keys than in
float64 here and there, and there its gradients need not agree, only its losses.

Anchor: the share of the GEMM's rate is the model's FLOP use; a step cannot be faster than 6 FLOP
per weight and symbol at that rate.
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
from pyseq.models import Baseline, BaselineConfig, Supercharged, SuperchargedConfig
from pyseq.models.baseline import Block
from pyseq.models.sequence_model import SequenceModel
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

    config: BaselineConfig | SuperchargedConfig
    batch: int
    length: int
    gemm: int

    @property
    def shape(self) -> str:
        config, kind = self.config, "" if self.is_baseline else "supercharged "
        return f"{kind}d={config.d_model} layers={config.nlayers} B={self.batch} T={self.length}"

    @property
    def is_baseline(self) -> bool:
        """Whether it is the model that has peers."""
        return isinstance(self.config, BaselineConfig)

    def model(self) -> SequenceModel:
        """A new model."""
        config = self.config
        return Baseline(config) if isinstance(config, BaselineConfig) else Supercharged(config)


SMALL = Size(BaselineConfig(classes=1024), batch=16, length=256, gemm=1024)
LARGE = Size(  # four layers, because compiling more of them takes minutes
    BaselineConfig(classes=1024, d_model=1024, nlayers=4, nhead=16, nhead_kv=4, dim_ff=4096),
    batch=32,
    length=1024,
    gemm=8192,
)
QUICK = Size(
    BaselineConfig(classes=32, d_model=32, nlayers=2, nhead=2, nhead_kv=1, dim_ff=48),
    batch=2,
    length=24,
    gemm=64,
)
SUPERCHARGED = {
    "cpu": Size(SuperchargedConfig(classes=1024, dropout=0.0), batch=16, length=256, gemm=1024),
    "cuda": Size(
        SuperchargedConfig(
            classes=1024, d_model=1024, nlayers=4, nhead=16, nhead_kv=4, dim_ff=4096, dropout=0.0
        ),
        batch=32,
        length=1024,
        gemm=8192,
    ),
}
QUICK_SUPERCHARGED = Size(
    SuperchargedConfig(
        classes=32,
        d_model=32,
        nlayers=2,
        nhead=2,
        nhead_kv=1,
        dim_ff=48,
        dropout=0.0,
        patch=4,
        local_width=32,
        memory=2,
    ),
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
    """float32 and bfloat16 autocast; on a GPU larger models, and only the latter."""
    sizes = (QUICK_SUPERCHARGED, QUICK)  # last the one whose contestants take long to compile
    if not quick:
        sizes = (SUPERCHARGED[device], LARGE if device == "cuda" else SMALL)
    dtypes = [dtype for dtype in LOSSES_OFF if device == "cpu" or dtype == torch.bfloat16]
    return [
        _case(size, dtype, device, compiled=not quick and size.is_baseline)
        for size in sizes
        for dtype in dtypes
    ]


def _case(size: Size, dtype: torch.dtype, device: str, compiled: bool) -> Case:
    tokens = size.batch * size.length
    served = serving_backends(device)
    if device == "cuda" and size.is_baseline:  # whose reference would take most of the time
        served = [backend for backend in served if backend != "reference"] or served
    names = [f"{'cosine_attention' if size.is_baseline else 'all ops'} {x}" for x in served]
    if size.is_baseline:
        names.append("SDPA")
    ways = [False, True] if compiled and (device == "cuda" or shutil.which("c++")) else [False]
    contestants = [
        Contestant(name + " compiled" * way, partial(_step, name, way), peer=name == "SDPA")
        for name in names
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
        ceiling_work=tokens * size.model().flops_per_symbol(size.length) / 1e12,
        checked_calls=CHECKED_STEPS,
        device=device,
    )


def serving_backends(device: str) -> list[str]:
    """The backends of cosine_attention that can be trained with on this machine.

    Triton's interpreter is none of them: a step of it would take minutes.
    """
    serving = []
    for backend in BACKENDS:
        if backend == "triton" and device == "cpu":
            continue
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
    hard = not inputs.size.is_baseline and inputs.dtype == torch.bfloat16
    if gradients is None or hard:
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
    torch.compiler.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = size.model().state_dict()
        window = torch.randint(size.config.classes, (size.batch, size.length + 1))
    inputs = Inputs(size, torch.float64, device, weights, window.to(device), [], [])
    step = _step("reference", False, inputs)
    _, losses, gradients = zip(*(step() for _ in range(CHECKED_STEPS)), strict=True)
    yield replace(inputs, dtype=dtype, losses=[float(x) for x in losses], gradients=gradients[0])


def _step(attention: str, compiled: bool, inputs: Inputs) -> Call:
    """A step of a model of its own.

    It returns how many steps were made before, the loss then, and in the first step the gradients.
    """
    model = inputs.size.model()
    model.load_state_dict(inputs.weights)
    model.to(inputs.device)
    for module in list(model.modules()):
        if attention != "SDPA" and hasattr(module, "backend"):
            module.backend = attention.split()[-1]
        elif attention == "SDPA" and isinstance(module, Block):
            module.attention = SdpaAttention(module.attention)
    if inputs.dtype == torch.float64:
        model.double()
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    objective = torch.compile(model.objective) if compiled else model.objective
    steps = 0

    def step() -> tuple[int, Tensor, list[Tensor] | None]:
        nonlocal steps
        with _precision(inputs):
            loss = objective(inputs.window)[0]
        loss.backward()
        optimizer.step()
        gradients = None
        if steps == 0:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
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
