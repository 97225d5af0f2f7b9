"""Every Triton kernel once, forward and backward, at sizes off its tiles, for all or named ops.

It is what compute-sanitizer looks at, so it is short; whether the results are right is told by the
tests, and here only as far as a gross error would be. Without a GPU it runs in the interpreter.
"""

import sys
import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import attention
from pyseq import ops
from pyseq.errors import BackendUnavailable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.bfloat16 if DEVICE == "cuda" else torch.float32]
# Past one tile on a GPU, which no size here divides; the interpreter is slow.
T, S, D = (203, 331, 80) if DEVICE == "cuda" else (5, 19, 16)
OFF = {torch.bfloat16: 0.05, torch.float32: 0.01}  # as a share of the largest number

Run = Callable[[str, torch.dtype], dict[str, Tensor]]


def main(names: list[str]) -> int:
    """Run the named ops, or all; 1 if one fails or is grossly wrong, after a line for each."""
    status = 0
    for name in names or list(RUNS):
        for dtype in DTYPES:
            words = verdict(RUNS[name], dtype)
            print(f"{name} {str(dtype).removeprefix('torch.')}: {words}", flush=True)
            # Without a GPU there is none for some dtypes; with one, every op has its kernels.
            missing = words.startswith("no kernel") and not torch.cuda.is_available()
            status |= words != "ok" and not missing
    return int(status)


def verdict(run: Run, dtype: torch.dtype) -> str:
    """ "ok", why there is no kernel, or what is wrong."""
    try:
        found = run("triton", dtype)
    except BackendUnavailable as error:
        return f"no kernel: {error}"
    except Exception as error:  # the other kernels are run all the same
        traceback.print_exc()
        return f"failed: {type(error).__name__}"
    for name, expected in run("reference", dtype).items():
        size = float(expected.double().abs().max())
        off = float((found[name].double() - expected.double()).abs().max())
        if not off <= OFF[dtype] * size:
            return f"{name} is off by {off:.2g} of {size:.2g}"
    return "ok"


def _normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def _heads(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value whose heads lie side by side in memory, as a projection gives them."""
    shapes = ((2, T, 4, D), (2, S, 2, D), (2, S, 2, D))
    query, key, value = (
        _normal(*shape, dtype=dtype, seed=i).transpose(1, 2) for i, shape in enumerate(shapes)
    )
    return query, key, value


def _gradients(op: Callable[..., Tensor], **tensors: Tensor) -> dict[str, Tensor]:
    leaves = {name: x.detach().requires_grad_() for name, x in tensors.items()}
    out = op(**leaves)
    grad = _normal(*out.shape, dtype=out.dtype, seed=9)
    found = torch.autograd.grad(out, list(leaves.values()), grad, allow_unused=True)
    named = {n: x for n, x in zip(leaves, found, strict=True) if x is not None}
    return {"output": out.detach(), **named}


def _cosine_attention(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    scale = torch.linspace(5, 15, 4, device=DEVICE)
    rope = attention.rope_tables(S, D, DEVICE)
    found = {}
    for name, options in {
        "causal": {"causal": True, "scale_bound": 15.0, "rope": rope},
        "window": {"causal": True, "window": 70, "prefix": 3},
    }.items():

        def attend(options=options, **tensors: Tensor) -> Tensor:
            return ops.cosine_attention(**tensors, **options, backend=backend)

        query, key, value = _heads(dtype)
        results = _gradients(attend, query=query, key=key, value=value, scale=scale)
        found |= {f"{name} {part}": x for part, x in results.items()}
    return found


def _cosine_decode(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    query, key, value = _heads(dtype)
    lengths = torch.tensor([S, S // 2], device=DEVICE)
    out = ops.cosine_decode(
        query[:, :, :3], key, value, scale=0.1, norm=None, lengths=lengths, backend=backend
    )
    return {"output": out}


def _prepare_keys(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    rope = attention.rope_tables(S + 5, D, DEVICE)
    weight = torch.linspace(0.5, 2, D, device=DEVICE).to(dtype)

    def prepare(key: Tensor, key_weight: Tensor) -> Tensor:
        return ops.prepare_keys(
            key, norm="rms", key_weight=key_weight, rope=rope, position=5, backend=backend
        )

    return _gradients(prepare, key=_heads(dtype)[1], key_weight=weight)


def _hard_attention(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    query, key, value = _heads(dtype)
    # Whole numbers, so that every backend has the same scores, ties and choices.
    query, key = (x.sign() * (x.abs() > 0.8) for x in (query, key))

    def attend(**tensors: Tensor) -> Tensor:
        return ops.hard_attention(**tensors, causal=True, backend=backend)

    return _gradients(attend, query=query, key=key, value=value)


def _adaptive_attention(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    query, key, value = _heads(dtype)

    def attend(**tensors: Tensor) -> Tensor:
        return ops.adaptive_attention(**tensors, causal=True, backend=backend)

    return _gradients(attend, query=query, key=key, value=value)


def _patch_embed(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    samples = torch.arange(3 * 11 * T).remainder(65521).view(3, -1).to(torch.uint16).to(DEVICE)

    def embed(weight: Tensor, bias: Tensor) -> Tensor:
        return ops.patch_embed(
            samples,
            weight,
            bias,
            stride=9,
            center=3e4,
            spread=2e4,
            pad_end=True,
            backend=backend,
        )

    return _gradients(embed, weight=_normal(37, 11, dtype=dtype), bias=_normal(37, dtype=dtype))


def _exponential_smoothing(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    def smooth(**tensors: Tensor) -> Tensor:
        return ops.exponential_smoothing(**tensors, backend=backend)

    alpha = torch.tensor([0.03, 0.5, 0.9], device=DEVICE)
    values, initial = _normal(2, T, 3, D, dtype=dtype), _normal(3, D, dtype=torch.float32)
    return _gradients(smooth, values=values, alpha=alpha, initial=initial)


def _scale_cross_entropy(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    targets = torch.arange(T).mul(7919).remainder(501).to(torch.uint16).to(DEVICE)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.scale_cross_entropy(
            hidden, weight, targets, scales=(1, 16), bias=bias, backend=backend
        )[1]

    tensors = {"hidden": (T, 72), "weight": (501, 72), "bias": (501,)}
    return _gradients(loss, **{n: _normal(*shape, dtype=dtype) for n, shape in tensors.items()})


def _gather_windows(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    stream = torch.arange(3 * S).to(torch.uint16).to(DEVICE)
    offsets = torch.tensor([0, 7, 2 * S], device=DEVICE)
    return {"windows": ops.gather_windows(stream, offsets, S, backend=backend)}


RUNS: dict[str, Run] = {
    "adaptive_attention": _adaptive_attention,
    "cosine_attention": _cosine_attention,
    "cosine_decode": _cosine_decode,
    "exponential_smoothing": _exponential_smoothing,
    "gather_windows": _gather_windows,
    "hard_attention": _hard_attention,
    "patch_embed": _patch_embed,
    "prepare_keys": _prepare_keys,
    "scale_cross_entropy": _scale_cross_entropy,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
