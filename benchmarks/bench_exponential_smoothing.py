"""exponential_smoothing against the other ways to run the recursion over all times at once.

"FFT" convolves with alpha (1 - alpha)^k over the right axis; "chunks" multiplies every 64 steps by
a triangular matrix of powers, all chunks at once, and carries the state from chunk to chunk by the
same over the chunks' last states; a plain loop of T small steps is the reference.

Floor at B=16 T=4096 H=16 D=64, bfloat16: 134 MB are read and as many written, 0.27 GB at 4.3 TB/s
make 62 us; with gradients values and the output's gradient are read again and a gradient is
written, 0.67 GB, 0.16 ms. The FFT moves float32 of twice the length several times.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import attention, ceilings, correct
from benchmarks.harness import Call, Case, Contestant
from pyseq.ops import exponential_smoothing

OP = "exponential_smoothing"
SIZES = {"cuda": [(16, 4096, 16, 64)], "cpu": [(4, 4096, 8, 64)]}
QUICK = [(1, 40, 2, 4)]
DTYPES = {"cuda": [torch.bfloat16], "cpu": [torch.float32, torch.bfloat16]}
PASSES = {False: 2, True: 5}  # over the values' bytes, without and with gradients
CHUNK = 64
DRAWS, LONG_DRAWS = 8, 2  # gradients of the output that the tolerance is made from

Size = tuple[int, int, int, int]  # B, T, H, D
Smooth = Callable[[Tensor, Tensor, Tensor], Tensor]
NAMES = ("values", "alpha", "initial")


@dataclass(frozen=True)
class Inputs:
    """Values, weights, first state, the output's gradient, and what is right."""

    values: Tensor
    alpha: Tensor
    initial: Tensor
    grad: Tensor
    expected: dict[str, correct.Truth]


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every size and dtype, without and with gradients."""
    return [
        _case(size, dtype, device, quick, backward)
        for size in (QUICK if quick else SIZES[device])
        for dtype in DTYPES[device]
        for backward in (False, True)
    ]


def _case(size: Size, dtype: torch.dtype, device: str, quick: bool, backward: bool) -> Case:
    B, T, H, D = size
    one = B * T * H * D * dtype.itemsize
    ours = attention.backends_on(OP, device, quick)
    contestants = [
        Contestant(name, partial(_call, partial(_ours, name), backward)) for name in ours
    ]
    peers = {"FFT": by_fft, "chunks": by_chunks}
    contestants += [
        Contestant(name, partial(_call, smooth, backward), peer=True, optional=True)
        for name, smooth in peers.items()
    ]
    if attention.can_compile(device, quick):
        make = partial(_compiled, by_chunks, backward)
        contestants.append(Contestant("chunks compiled", make, peer=True, optional=True))
    return Case(
        op=OP,
        direction="forward+backward" if backward else "forward",
        shape=f"B={B} T={T} H={H} D={D}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, size, dtype, device, backward),
        contestants=contestants,
        check=check,
        unit="GB/s",
        work=PASSES[backward] * one / 1e9,
        ceilings=ceilings.memory(device, quick),
        ceiling_work=PASSES[backward] * one / 1e9,
        result_bytes=one,
        device=device,
    )


def check(inputs: Inputs, result: Mapping[str, Tensor]) -> None:
    """Apply the rule to the output and every gradient, whole."""
    correct.check(inputs.expected, result)


def by_fft(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """The convolution with alpha (1 - alpha)^k, padded so that its end does not reach its start."""
    T = values.shape[1]
    decay = _powers(alpha, T + 1)  # (T + 1, H, 1)
    kernel = alpha[:, None] * decay[:T]
    spectrum = torch.fft.rfft(values.float(), 2 * T, dim=1) * torch.fft.rfft(kernel, 2 * T, dim=0)
    smoothed = torch.fft.irfft(spectrum, 2 * T, dim=1)[:, :T]
    return (smoothed + decay[1:] * initial).to(values.dtype)


def by_chunks(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """Matrix products within chunks of `CHUNK` steps and over the chunks' last states."""
    (B, T, H, D), chunk = values.shape, min(CHUNK, values.shape[1])
    count = -(-T // chunk)
    x = torch.nn.functional.pad(values.float(), (0, 0, 0, 0, 0, count * chunk - T))
    x = x.view(B, count, chunk, H, D)
    within = torch.einsum("hij,bnjhd->bnihd", alpha[:, None, None] * _decays(alpha, chunk), x)
    fade = _powers(alpha, chunk + 1)[..., 0]  # (chunk + 1, H)
    last = within[:, :, -1]  # (B, count, H, D)
    ends = torch.einsum("hij,bjhd->bihd", _decays(alpha, count, chunk), last)
    first = _powers(alpha, count + 1, chunk)  # (count + 1, H, 1)
    before = torch.cat((initial.float().expand(B, 1, H, D), ends + first[1:] * initial), 1)
    out = within + fade[1:, :, None] * before[:, :count, None]
    return out.reshape(B, count * chunk, H, D)[:, :T].to(values.dtype)


def _powers(alpha: Tensor, count: int, step: int = 1) -> Tensor:
    """(1 - alpha)^(step k), k below count, as (count, H, 1)."""
    k = torch.arange(count, device=alpha.device) * step
    return torch.exp(k[:, None] * torch.log1p(-alpha))[..., None]


def _decays(alpha: Tensor, count: int, step: int = 1) -> Tensor:
    """(1 - alpha)^(step (i - j)) below the diagonal and on it, as (H, count, count)."""
    k = torch.arange(count, device=alpha.device)
    ahead = (k[:, None] - k).clamp_min(0) * step
    return torch.exp(ahead * torch.log1p(-alpha)[:, None, None]).tril()


@contextmanager
def _inputs(size: Size, dtype: torch.dtype, device: str, backward: bool) -> Iterator[Inputs]:
    torch.compiler.reset()
    (B, T, H, D), generator = size, torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    values, grad = normal(B, T, H, D).to(dtype), normal(B, T, H, D).to(dtype)
    alpha = torch.linspace(0.02, 0.9, H, device=device)
    tensors = values, alpha, normal(H, D)
    draws = (DRAWS if T <= CHUNK else LONG_DRAWS) if backward else 1
    grads = [grad, *(normal(B, T, H, D).to(dtype) for _ in range(draws - 1))]
    expected = correct.over_draws(_truths(backward, *tensors, each) for each in grads)
    yield Inputs(*tensors, grad, expected)


def _truths(backward: bool, *tensors: Tensor) -> dict[str, correct.Truth]:
    exact, reference = (
        _results(partial(_ours, "reference"), backward, *(x.to(wide) for x in tensors))
        for wide in (torch.float64, torch.float32)
    )
    dtype = tensors[0].dtype
    rounded = {n: x.to(dtype) if x.dim() == 4 else x for n, x in reference.items()}
    return correct.truths(exact, rounded, dtype)


def _ours(backend: str, values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    return exponential_smoothing(values, alpha, initial, backend=backend)


def _call(smooth: Smooth, backward: bool, inputs: Inputs) -> Call:
    tensors = inputs.values, inputs.alpha, inputs.initial, inputs.grad
    return partial(_results, smooth, backward, *tensors)


def _compiled(smooth: Smooth, backward: bool, inputs: Inputs) -> Call:
    return _call(torch.compile(smooth, dynamic=False), backward, inputs)


def _results(
    smooth: Smooth, backward: bool, values: Tensor, alpha: Tensor, initial: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    if not backward:
        return {"output": smooth(values, alpha, initial)}
    leaves = [x.detach().requires_grad_() for x in (values, alpha, initial)]
    out = smooth(*leaves)
    gradients = torch.autograd.grad(out, leaves, grad)
    return {"output": out.detach(), **dict(zip(NAMES, gradients, strict=True))}
