"""One optimiser step of both models, with our layers and in PyTorch alone.

A step is forward, backward and AdamW on B windows of T symbols, always the same ones. All
contestants of one model start from the same weights; the gradients of their first step and the
losses of the first steps must be those of the reference in float64, which checks backward, update
and forward. In bfloat16 hard attention chooses other keys than in float64 here and there, and there
its gradients need not agree, only its losses.

The baseline's peer is the same model on PyTorch's fused attention. The supercharged model has
layers that PyTorch does not have: its peers are the same model with fused soft attention in the
place of the hard one and the reference of every other layer, and a baseline with as many
parameters, on fused attention.

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
from pyseq.models.sequence_model import SequenceModel
from pyseq.nn import CosineAttention, HardAttention, RotaryEmbedding
from pyseq.nn.self_attention import SelfAttention
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
        """Whether it is the model that PyTorch has all layers of."""
        return isinstance(self.config, BaselineConfig)

    def model(self) -> SequenceModel:
        """A new model."""
        config = self.config
        return Baseline(config) if isinstance(config, BaselineConfig) else Supercharged(config)

    def soft(self) -> "Size":
        """The supercharged model with softmax attention in the place of the hard choice."""
        config = cast(SuperchargedConfig, self.config)
        return replace(self, config=replace(config, hard_train="soft"))

    def baseline(self) -> "Size":
        """A baseline with as many parameters, but for a part of the feed-forward width."""
        config = self.config
        like = BaselineConfig(
            classes=config.classes,
            d_model=config.d_model,
            nlayers=config.nlayers,
            nhead=config.nhead,
            nhead_kv=config.nhead_kv,
            dim_ff=config.dim_ff,
        )
        wanted = parameters(self)
        while parameters(replace(self, config=like)) < wanted:
            like = replace(like, dim_ff=like.dim_ff + 1)
        return replace(self, config=like)


def parameters(size: Size) -> int:
    """Of the model, without making its weights."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in size.model().parameters())


@dataclass(frozen=True)
class Way:
    """A model and what runs its layers: a backend, or "SDPA", PyTorch alone."""

    size: Size
    layers: str
    compiled: bool = False


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
class Truth:
    """Where the steps of one model start, and what float64 finds on the way."""

    weights: dict[str, Tensor]
    losses: list[float]  # nats, before each step
    gradients: list[Tensor]  # of the first step
    exact: bool  # whether the gradients of every dtype must be float64's


@dataclass(frozen=True)
class Inputs:
    """The window that all models are trained on, and the truth about each of them."""

    dtype: torch.dtype
    device: str
    window: Tensor  # (B, T + 1) int64
    truths: dict[Size, Truth]


@dataclass(frozen=True)
class Step:
    """The loss in nats before a step, how many were made earlier, and the first one's gradients."""

    size: Size
    number: int
    loss: Tensor
    gradients: list[Tensor] | None


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """float32 and bfloat16 autocast; on a GPU larger models, and only the latter."""
    sizes = (QUICK_SUPERCHARGED, QUICK)  # last the one whose contestants take long to compile
    if not quick:
        sizes = (SUPERCHARGED[device], LARGE if device == "cuda" else SMALL)
    dtypes = [dtype for dtype in LOSSES_OFF if device == "cpu" or dtype == torch.bfloat16]
    return [_case(size, dtype, device, quick) for size in sizes for dtype in dtypes]


def _case(size: Size, dtype: torch.dtype, device: str, quick: bool) -> Case:
    tokens = size.batch * size.length
    served = serving_backends(device)
    if device == "cuda" and size.is_baseline:  # whose reference would take most of the time
        served = [backend for backend in served if backend != "reference"] or served
    ways = {backend: Way(size, backend) for backend in served}
    peers = {"SDPA": Way(size, "SDPA")}
    if not size.is_baseline:
        like = size.baseline()
        ways |= {f"baseline as large, {x}": Way(like, x) for x in served if x != "reference"}
        peers = {
            "soft, SDPA": Way(size.soft(), "SDPA"),
            "baseline as large, SDPA": Way(like, "SDPA"),
        }
    compiles = not quick and (device == "cuda" or shutil.which("c++") is not None)
    contestants = [
        Contestant(
            name + " compiled" * compiled,
            partial(_step, replace(way, compiled=compiled)),
            peer=name in peers,
        )
        for name, way in (ways | peers).items()
        for compiled in ((False, True) if compiles else (False,))
    ]
    name = str(dtype).removeprefix("torch.")
    return Case(
        op="training_step",
        direction="step",
        shape=size.shape,
        dtype=name,
        inputs=partial(
            _inputs, list(dict.fromkeys(x.size for x in (ways | peers).values())), dtype, device
        ),
        contestants=contestants,
        check=check,
        unit="tokens/s",
        work=tokens,
        ceilings=[
            Ceiling(f"{name} GEMM", "TFLOP/s", 2 * size.gemm**3 / 1e12, partial(_gemm, size.gemm))
        ],
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


def check(inputs: Inputs, step: Step) -> None:
    """Refuse unless gradients and losses follow float64's; later losses must be below the first."""
    truth, loss = inputs.truths[step.size], float(step.loss)
    first, *_, last = truth.losses
    if step.number >= len(truth.losses):
        if not loss < first:
            raise WrongAnswer(
                f"loss {loss} after {step.number} steps on one batch; it began at {first}"
            )
    elif not abs(loss - truth.losses[step.number]) <= LOSSES_OFF[inputs.dtype] * (first - last):
        raise WrongAnswer(
            f"loss {loss} after {step.number} steps; float64 has {truth.losses[step.number]}"
        )
    if step.gradients is None or (inputs.dtype == torch.bfloat16 and not truth.exact):
        return
    whole = torch.stack([exact.norm() for exact in truth.gradients]).norm()
    for number, (ours, exact) in enumerate(zip(step.gradients, truth.gradients, strict=True)):
        # The gradient of a temperature is a sum whose terms cancel: relative to the whole as well.
        allowed = GRADIENTS_OFF[inputs.dtype] * float(exact.norm() + 1e-3 * whole)
        off = float((ours.double() - exact).norm())
        if not off <= allowed:
            raise WrongAnswer(f"gradient {number} is {off:.2g} off float64's; {allowed:.2g} fits")


@contextmanager
def _inputs(sizes: list[Size], dtype: torch.dtype, device: str) -> Iterator[Inputs]:
    """For models that are trained on windows of one length and of the same classes."""
    torch.compiler.reset()
    batch, length, classes = sizes[0].batch, sizes[0].length, sizes[0].config.classes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        window = torch.randint(classes, (batch, length + 1))
        weights = {size: size.model().state_dict() for size in sizes}
    inputs = Inputs(torch.float64, device, window.to(device), {})
    for size in sizes:
        chooses = getattr(size.config, "hard_train", None) == "straight_through"
        inputs.truths[size] = start = Truth(weights[size], [], [], exact=not chooses)
        step = _step(Way(size, "reference"), inputs)
        made = [step() for _ in range(CHECKED_STEPS)]
        inputs.truths[size] = replace(
            start, losses=[float(x.loss) for x in made], gradients=made[0].gradients
        )
    yield replace(inputs, dtype=dtype)


def _step(way: Way, inputs: Inputs) -> Call:
    """Steps of a model of its own."""
    model = way.size.model()
    model.load_state_dict(inputs.truths[way.size].weights)
    model.to(inputs.device)
    backend = "reference" if way.layers == "SDPA" else way.layers
    for module in list(model.modules()):
        if hasattr(module, "backend"):
            module.backend = backend
        if way.layers == "SDPA":
            for name, layer in module.named_children():
                if isinstance(layer, SelfAttention):
                    setattr(module, name, SdpaAttention(layer))
    if inputs.dtype == torch.float64:
        model.double()
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    objective = torch.compile(model.objective) if way.compiled else model.objective
    steps = 0

    def step() -> Step:
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
        return Step(way.size, steps - 1, loss.detach(), gradients)

    return step


def _precision(inputs: Inputs):
    if inputs.dtype != torch.bfloat16:
        return nullcontext()
    return torch.autocast(inputs.device, torch.bfloat16)


class SdpaAttention(nn.Module):
    """A soft attention layer with its weights, on `scaled_dot_product_attention`."""

    def __init__(self, layer: SelfAttention):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *, cache: None = None) -> Tensor:
        assert cache is None  # a training step keeps none
        layer, (B, T, width) = self.layer, x.shape
        by_head = layer.query_key_value(x).view(B, T, -1, layer.head_dim).transpose(1, 2)
        query, key, value = by_head.split((layer.heads, layer.key_heads, layer.key_heads), dim=1)
        scale = 1.0
        if isinstance(layer, CosineAttention):
            query, key = (nn.functional.normalize(side, dim=-1, eps=1e-6) for side in (query, key))
        elif isinstance(layer, HardAttention):
            scale = layer.scale
        cos, sin = cast(RotaryEmbedding, layer.rope)(T, device=x.device)
        query, key = (rotate(side, cos, sin) for side in (query, key))
        if isinstance(layer, CosineAttention):
            # SDPA's scale is a Python float; a trained one goes into the query.
            query = query * layer.scale()[:, None, None].to(value.dtype)
        mixed = nn.functional.scaled_dot_product_attention(
            query.to(value.dtype),
            key.to(value.dtype),
            value,
            is_causal=True,
            scale=scale,
            enable_gqa=layer.heads != layer.key_heads,
        )
        return layer.out(mixed.transpose(1, 2).reshape(B, T, width))


def _gemm(n: int, inputs: Inputs) -> Call:
    """A square matrix product in the dtype that the step's products have."""
    left, right = (torch.randn(n, n, device=inputs.device).to(inputs.dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)
