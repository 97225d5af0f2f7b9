"""Causal mixing over time by damped sinusoids."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyseq.nn.checks import continues, kinds, sequence, state
from pyseq.ops.precision import accumulation_dtype, without_autocast

LAYER = "FourierAttention"

BLOCK = 64  # positions mixed by one matrix product

SLOWEST_DECAY = 2**-20  # per step; keeps a decay positive where softplus underflows


@dataclass
class FourierState:
    """What a FourierAttention remembers of the positions it has seen.

    One serves one batch of sequences. The layer's first call fills it, every call replaces it.

    Args:
        modes (Tensor (B, width, modes, 2), float32 | float64 | None): for every channel and mode,
            the real and imaginary part of the sum of exp((i omega - decay) age) times the value.
    """

    modes: Tensor | None = None


class FourierAttention(nn.Module):
    """Convolve each channel with a trained sum of damped sinusoids, gate, project back.

    The weight of the value j steps back is, for every channel,

        k[j] = sum over m of exp(-decay_m j) (a_m cos(omega_m j) + b_m sin(omega_m j))

    and the output is W_o (silu(x W_g) * (k convolved with x W_v)), without biases. Nothing comes
    from the future: a product over a whole window, as by an FFT, would round the past by it.
    Instead, blocks of 64 positions are mixed by triangular matrices, and what lies before a block
    reaches it through the state of the sinusoids, which is exact. Time and memory are linear in T.
    The mixing is done in float32 (float64 for float64), under autocast too. A NaN or an infinity
    makes NaN of the outputs from its own time on, and leaves those before as they were.

    Before training, periods are spread geometrically from 2 to `longest` steps, a mode loses a
    factor e in a period, and white noise keeps its variance.

    Args:
        width (int): features of input and output.
        modes (int): sinusoids of each channel.
        longest (float): the longest period before training, in steps; at least 2.
        dropout (float): share of the output's features that training sets to 0.

    Raises:
        ValueError: `width` or `modes` is not positive, or `longest` below 2.

    Source: mixing by Fourier: Lee-Thorp et al. 2021, FNet, arXiv 2105.03824, there not causal;
        the kernel as damped exponentials: Gu et al. 2022, S4D, arXiv 2206.11893.

    Example:
        >>> import torch
        >>> from pyseq.nn import FourierAttention
        >>> layer, x = FourierAttention(64), torch.randn(2, 100, 64)
        >>> cache = layer.new_cache()
        >>> pieces = [layer(piece, cache=cache) for piece in x.split(30, dim=1)]
        >>> torch.allclose(torch.cat(pieces, 1), layer(x), atol=1e-5)
        True
    """

    def __init__(
        self, width: int, *, modes: int = 16, longest: float = 1024, dropout: float = 0.0
    ) -> None:
        super().__init__()
        kinds(LAYER, int, width=width, modes=modes)
        if width < 1 or modes < 1:
            raise ValueError(f"{LAYER}: width {width} and {modes} modes; positive numbers fit")
        if not 2 <= longest < math.inf:
            raise ValueError(f"{LAYER}: longest is {longest}; at least 2 steps fit")
        self.value_and_gate = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        period = 2 * (longest / 2) ** torch.linspace(0, 1, modes)
        decay = (1 / period).expand(width, modes)
        spread = torch.sqrt((1 - torch.exp(-2 * decay)) / modes)
        self.omega = nn.Parameter((2 * math.pi / period).repeat(width, 1))
        self.decay_root = nn.Parameter(torch.log(torch.expm1(decay)))  # softplus gives it back
        self.amplitude = nn.Parameter(torch.randn(2, width, modes) * spread)  # a, b

    def decay(self) -> Tensor:
        """The rate by which every mode dies.

        Returns:
            Tensor (width, modes), float32 (float64 for a float64 layer): positive; per step.
        """
        root = self.decay_root.to(accumulation_dtype(self.decay_root))
        return nn.functional.softplus(root) + SLOWEST_DECAY

    def new_cache(self) -> FourierState:
        """The state before the first position, to decode piece by piece.

        Returns:
            FourierState: empty; for the `cache` of `forward`.
        """
        return FourierState()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"modes={self.omega.shape[1]}"

    def forward(self, x: Tensor, *, cache: FourierState | None = None) -> Tensor:
        """Mix a sequence, or its next piece.

        Args:
            x (Tensor (B, T, width), floating): the sequences, or what follows the positions that
                `cache` has seen.
            cache (FourierState | None): where the sequences stand, replaced by where they stand
                after x; no gradient passes through it.

        Returns:
            Tensor (B, T, width), dtype of x.

        Raises:
            TypeError: x is no tensor, or the cache is of another kind.
            ValueError: x has another shape, or `cache` is of another number or dtype of sequences.
        """
        sequence(LAYER, x, self.out.in_features)
        state(LAYER, cache, FourierState)
        values, gate = self.value_and_gate(x).chunk(2, dim=-1)
        with without_autocast(x.device):
            exact = values.to(accumulation_dtype(values))
            held = None if cache is None else cache.modes
            continues(LAYER, exact, held)
            omega, amplitude = self.omega.to(exact.dtype), self.amplitude.to(exact.dtype)
            mixed, modes = mix(exact, self.decay(), omega, amplitude, held)
        if cache is not None:
            with torch.inference_mode(False):  # so that the cache is good outside of it too
                cache.modes = modes.detach().clone()
        return self.dropout(self.out(nn.functional.silu(gate) * mixed.to(gate.dtype)))


def mix(
    values: Tensor, decay: Tensor, omega: Tensor, amplitude: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Convolve values (B, T, C) over time, and give the state (B, C, M, 2) after them.

    decay and omega are (C, M), amplitude (2, C, M); the state before the values is zero if None.
    """
    B, T, C = values.shape
    if state is None:
        state = values.new_zeros(B, C, omega.shape[1], 2)
    # 0 times a NaN is NaN: products run on finite values, and what a bad one reaches is marked.
    bad = (values.detach() * 0 != 0).cumsum(1, dtype=torch.int32) > 0
    values = values.masked_fill(bad, 0)
    whole = T // BLOCK * BLOCK
    parts = []
    for part, length in ((values[:, :whole], BLOCK), (values[:, whole:], T - whole)):
        if part.shape[1] > 0:
            mixed, state = _mix_blocks(part, length, decay, omega, amplitude, state)
            parts.append(mixed)
    if not parts:
        return values, state
    ruined = bad[:, -1, :, None, None]
    return torch.cat(parts, 1).masked_fill(bad, math.nan), state.masked_fill(ruined, math.nan)


def _mix_blocks(
    values: Tensor, length: int, decay: Tensor, omega: Tensor, amplitude: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """`mix`, where T is a multiple of `length`; two products for each channel and a scan."""
    (B, T, C), M = values.shape, omega.shape[1]
    count = T // length
    steps = torch.arange(length + 1, device=values.device, dtype=values.dtype)
    size = torch.exp(-decay[..., None] * steps)  # (C, M, L + 1)
    cos = size * torch.cos(omega[..., None] * steps)
    sin = size * torch.sin(omega[..., None] * steps)
    a, b = amplitude[..., None]
    weights = a * cos + b * sin  # k[j], mode by mode
    kernel = nn.functional.pad(weights.sum(1)[:, :length], (length - 1, 0))
    within = kernel.unfold(-1, length, 1).flip(-2)  # (C, from, to), zero where from > to
    write = torch.stack((cos, sin), -1)[:, :, :length].flip(2)  # the newest value has age 0
    read = torch.stack((weights, b * cos - a * sin), 2)[..., 1:]  # (C, M, 2, L), ages from 1

    blocks = values.view(B, count, length, C).permute(3, 0, 1, 2).flatten(1, 2)
    written = blocks @ write.transpose(1, 2).flatten(2)  # (C, B * blocks, M * 2)
    written = written.view(C, B, count, M, 2).permute(1, 2, 0, 3, 4)
    states = _scan(torch.cat((state[:, None], written), 1), length * decay, length * omega)
    before = states[:, :-1].permute(2, 0, 1, 3, 4).reshape(C, B * count, M * 2)
    mixed = blocks @ within + before @ read.flatten(1, 2)  # (C, B * blocks, L)
    return mixed.view(C, B, T).permute(1, 2, 0), states[:, -1]


def _scan(x: Tensor, decay: Tensor, omega: Tensor) -> Tensor:
    """s_n = exp(i omega - decay) s_(n-1) + x_n along axis 1 of x (B, n, C, M, 2), by doubling.

    After the round of step d, s_n holds the last 2 d terms. As many rounds as n has binary digits,
    so that a compiled graph serves many lengths.
    """
    step = 1
    while step < x.shape[1]:
        size = torch.exp(-step * decay)
        cos, sin = size * torch.cos(step * omega), size * torch.sin(step * omega)
        real, imaginary = x[:, :-step].unbind(-1)
        turned = torch.stack((cos * real - sin * imaginary, sin * real + cos * imaginary), -1)
        x = torch.cat((x[:, :step], x[:, step:] + turned), 1)
        step *= 2
    return x
