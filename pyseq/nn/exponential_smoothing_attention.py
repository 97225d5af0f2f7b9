"""Attention whose weights are those of exponential smoothing, with or without a trend."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyseq.nn.checks import continues, kinds, sequence, state
from pyseq.ops.exponential_smoothing import exponential_smoothing
from pyseq.ops.precision import accumulation_dtype

LAYER = "ExponentialSmoothingAttention"

# alpha, beta and phi keep this distance from 0 and 1, where a logit in float32 would arrive.
MARGIN = 2**-20

LONGEST_HALF_LIFE = 512.0  # steps, before training


@dataclass
class SmoothingState:
    """What an ExponentialSmoothingAttention remembers of the positions it has seen.

    One serves one batch of sequences. The layer's first call fills it, every call replaces it.

    Args:
        newest (Tensor (B, 1 or 3, heads, width / heads), float32 | float64 | None): the last E_t,
            and with a trend the last v_t and b_t.
    """

    newest: Tensor | None = None


class ExponentialSmoothingAttention(nn.Module):
    """Project to heads, smooth each over time, project back; no biases.

    Head h gives the value j steps back the weight alpha (1 - alpha)^j, and its learned start the
    rest. alpha, beta and phi are sigmoids of one parameter for each head, in [2^-20, 1 - 2^-20].
    Before training, the half-life of head h is 512^((h + 1/2) / heads) steps, for level and growth
    alike, and phi is 0.9.

    With `trend`, the output is Holt's forecast of the next value, with a damped trend:

        level     E_t = alpha v_t + (1 - alpha) (E_(t-1) + phi b_(t-1))
        growth    b_t = beta (v_t - v_(t-1)) + (1 - beta) b_(t-1)
        forecast  E_t + phi b_t

    where E_(-1), v_(-1) and b_(-1) are learned. All of it is computed in float32 (float64 for
    float64); without a trend only the op's sums are.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): heads, each with its own alpha.
        trend (bool): forecast by level and damped growth, not by the level alone.
        dropout (float): share of the output's features that training sets to 0.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        ValueError: `width` is no positive multiple of `heads`.

    Source: Woo et al. 2022, ETSformer, arXiv 2202.01381; Holt 1957, Forecasting seasonals and
        trends by exponentially weighted moving averages; damping: Gardner and McKenzie 1985,
        Forecasting trends in time series, who also let the growth itself decay by phi.

    Example:
        >>> import torch
        >>> from pyseq.nn import ExponentialSmoothingAttention
        >>> layer, x = ExponentialSmoothingAttention(64, 8, trend=True), torch.randn(2, 10, 64)
        >>> cache = layer.new_cache()
        >>> pieces = [layer(piece, cache=cache) for piece in x.split(4, dim=1)]
        >>> torch.allclose(torch.cat(pieces, 1), layer(x), atol=1e-5)
        True
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        trend: bool = False,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        kinds(LAYER, int, width=width, heads=heads)
        kinds(LAYER, bool, trend=trend)
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(
                f"{LAYER}: {heads} heads cannot share a width of {width};"
                " width must be a multiple of heads"
            )
        self.heads, self.trend, self.backend = heads, trend, backend
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        half_life = LONGEST_HALF_LIFE ** ((torch.arange(heads) + 0.5) / heads)
        start = torch.logit(1 - 2 ** (-1 / half_life))
        self.level = nn.Parameter(torch.zeros(heads, width // heads))
        self.level_logit = nn.Parameter(start)
        if trend:
            self.value_before = nn.Parameter(torch.zeros(heads, width // heads))
            self.growth = nn.Parameter(torch.zeros(heads, width // heads))
            self.growth_logit = nn.Parameter(start.clone())
            self.damping_logit = nn.Parameter(torch.full((heads,), 0.9).logit())

    def alpha(self) -> Tensor:
        """The weight of the newest value in the level of every head.

        Returns:
            Tensor (heads,), float32 (float64 for a float64 layer): in (0, 1); no unit.
        """
        return _share(self.level_logit)

    def beta(self) -> Tensor:
        """The weight of the newest difference in the growth of every head; only with a trend.

        Returns:
            Tensor (heads,), float32 (float64 for a float64 layer): in (0, 1); no unit.
        """
        return _share(self.growth_logit)

    def phi(self) -> Tensor:
        """The share of the growth that the next step is expected to bring; only with a trend.

        Returns:
            Tensor (heads,), float32 (float64 for a float64 layer): in (0, 1); no unit.
        """
        return _share(self.damping_logit)

    def new_cache(self) -> SmoothingState:
        """The state before the first position, to decode piece by piece.

        Returns:
            SmoothingState: empty; for the `cache` of `forward`.
        """
        return SmoothingState()

    def forward(self, x: Tensor, *, cache: SmoothingState | None = None) -> Tensor:
        """Smooth a sequence, or its next piece.

        Args:
            x (Tensor (B, T, width), floating): the sequences, or what follows the positions that
                `cache` has seen.
            cache (SmoothingState | None): where the sequences stand, replaced by where they stand
                after x; no gradient passes through it.

        Returns:
            Tensor (B, T, width), dtype of x.

        Raises:
            TypeError: x is no tensor, or the cache is of another kind.
            ValueError: x has another shape, or `cache` is of another number or dtype of sequences.
        """
        sequence(LAYER, x, self.value.in_features)
        state(LAYER, cache, SmoothingState)
        values = self.value(x).unflatten(-1, (self.heads, -1))
        dtype = values.dtype
        if cache is not None:  # in bfloat16 a state would stand still where alpha is below 2^-9
            values = values.to(accumulation_dtype(values))
            continues(LAYER, values, cache.newest)
        smoothed = self._forecast(values, cache) if self.trend else self._levels(values, cache)
        return self.dropout(self.out(smoothed.to(dtype).flatten(2)))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"heads={self.heads}, trend={self.trend}"

    def _levels(self, values: Tensor, cache: SmoothingState | None) -> Tensor:
        """E_t of values (B, T, H, D)."""
        if cache is None:
            return self._smooth(values, self.alpha(), self.level)
        start = self.level if cache.newest is None else cache.newest[:, 0]
        levels = self._smooth(values, self.alpha(), start)
        if values.shape[1] > 0:
            cache.newest = _kept(levels[:, -1:])
        return levels

    def _forecast(self, values: Tensor, cache: SmoothingState | None) -> Tensor:
        """E_t + phi b_t of values (B, T, H, D), by two smoothings, growth first.

        The growth enters the level as part of what is smoothed. For a small alpha that part is
        large, but so is what it adds to the level. Measured in float32 against float64 over 60
        steps: at alpha = 1e-3 the output loses nothing by it, and the gradient of alpha is off by
        1e-5 of itself; at alpha = 1e-5 by 2e-4.
        """
        values = values.to(accumulation_dtype(values))
        alpha, beta, phi = self.alpha(), self.beta(), self.phi()[:, None]
        before: tuple[Tensor, ...] = (self.level, self.value_before, self.growth)
        if cache is not None and cache.newest is not None:
            before = cache.newest.unbind(1)
        level, value, growth = before
        differences = values - _shifted(values, value)
        growths = self._smooth(differences, beta, growth)
        carried = (1 - alpha[:, None]) / alpha[:, None] * phi
        levels = self._smooth(values + carried * _shifted(growths, growth), alpha, level)
        if cache is not None and values.shape[1] > 0:
            cache.newest = _kept(torch.stack([x[:, -1] for x in (levels, values, growths)], 1))
        return levels + phi * growths

    def _smooth(self, values: Tensor, alpha: Tensor, start: Tensor) -> Tensor:
        """The op, from one start for all sequences (H, D) or one for each (B, H, D)."""
        if start.dim() == 2:
            return exponential_smoothing(values, alpha, start, backend=self.backend)
        # The op has a start for each head: the heads of all sequences become heads of one.
        B, T, H, D = values.shape
        heads = values.transpose(0, 1).reshape(1, T, B * H, D)
        smoothed = exponential_smoothing(
            heads, alpha.repeat(B), start.flatten(0, 1), backend=self.backend
        )
        return smoothed.view(T, B, H, D).transpose(0, 1)


def _shifted(x: Tensor, before: Tensor) -> Tensor:
    """x (B, T, H, D) one step later, after one row (H, D), or one for each sequence (B, H, D)."""
    first = before.to(x.dtype).unsqueeze(-3).expand(len(x), 1, *x.shape[2:])
    return torch.cat((first, x), 1)[:, :-1]


def _kept(x: Tensor) -> Tensor:
    """A copy for a cache: without a graph, and also good outside of inference mode."""
    with torch.inference_mode(False):
        return x.detach().clone()


def _share(logit: Tensor) -> Tensor:
    return MARGIN + (1 - 2 * MARGIN) * torch.sigmoid(logit.to(accumulation_dtype(logit)))
