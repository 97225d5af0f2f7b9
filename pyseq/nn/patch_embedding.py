"""Embeddings of the patches of a series, with the scale of every series set aside."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds
from pyseq.ops import checks
from pyseq.ops.patch_embed import patch_embed
from pyseq.ops.patch_embed.api import check_samples, check_stride
from pyseq.ops.patch_embed.reference import count, working_dtype

LAYER = "PatchEmbedding"


class Patches(NamedTuple):
    """What `PatchEmbedding` makes of a batch of series.

    Args:
        embeddings (Tensor (B, N, C), dtype of the layer's weight): one row per patch.
        center (Tensor (B,), float32, or float64 for float64): subtracted from every sample of a
            row; in the unit of the samples.
        spread (Tensor (B,), dtype of center): what the difference was divided by; positive; in the
            unit of the samples.
    """

    embeddings: Tensor
    center: Tensor
    spread: Tensor


class PatchEmbedding(nn.Module):
    """Embed the patches of a series: Linear(patch, width) of (samples - center) / spread.

    Patch n holds the samples n * stride to n * stride + patch - 1. Samples left over at the end,
    fewer than `stride`, are dropped unless `pad_end` is given. Series of several channels are
    embedded one by one, as (B * channels, T).

    With `normalise`, center and spread are each series' own mean and sqrt(variance + eps) over all
    its samples, so that a series of constant samples gives the bias, and a NaN reaches all of its
    series. They count as constants in the gradient. `undo` takes predictions back.

    Args:
        patch (int): samples per patch; at least 1.
        width (int): features C of an embedding; at least 1.
        stride (int | None): samples from the start of a patch to the start of the next, 1 to
            `patch`; None is `patch`.
        normalise (bool): measure center and spread of every series.
        eps (float): added to the variance by `normalise`; positive; in the squared unit of the
            samples.
        center (float): without `normalise`, what is subtracted from every sample; in their unit.
        spread (float): without `normalise`, what is divided by then; positive; in their unit.
        pad_end (bool): extend every series by `stride` copies of its last sample first.
        causal (bool): claim that embedding n knows the samples up to n * stride + patch - 1, none
            after, and none of patch n + 1, so that it may predict that patch; a layer of which
            this is not true is refused.
        bias (bool): add a trained bias.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        TypeError: `stride`, `center`, `spread` or `eps` is no number.
        ValueError: a number is out of its range, `center` or `spread` is given to a layer that
            measures them, or `causal` is claimed of a layer that is not.

    Source: Nie et al. 2022, PatchTST, arXiv 2211.14730; normalisation: Kim et al. 2022, Reversible
        Instance Normalization (RevIN), ICLR 2022, without its trained gain and offset.

    Example:
        >>> import torch
        >>> from pyseq.nn import PatchEmbedding
        >>> samples = torch.randint(0, 65536, (2, 336)).to(torch.uint16)
        >>> layer = PatchEmbedding(16, 64, stride=8, normalise=True, pad_end=True)
        >>> patches = layer(samples)
        >>> patches.embeddings.shape
        torch.Size([2, 42, 64])
        >>> layer.undo(torch.zeros(2, 5), patches).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        patch: int,
        width: int,
        *,
        stride: int | None = None,
        normalise: bool = False,
        eps: float = 1e-5,
        center: float = 0.0,
        spread: float = 1.0,
        pad_end: bool = False,
        causal: bool = False,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        kinds(LAYER, int, patch=patch, width=width)
        kinds(LAYER, bool, normalise=normalise, pad_end=pad_end, causal=causal, bias=bias)
        if patch < 1 or width < 1:
            raise ValueError(f"{LAYER}: patch {patch} and width {width}; positive sizes fit")
        stride = patch if stride is None else stride
        check_stride(LAYER, stride, patch)
        checks.positive(LAYER, "eps", eps)
        checks.finite(LAYER, "center", center)
        checks.positive(LAYER, "spread", spread)
        if normalise and (center, spread) != (0.0, 1.0):
            raise ValueError(
                f"{LAYER}: center {center} and spread {spread} with normalise=True, which measures"
                " both; one or the other fits"
            )
        if causal and normalise:
            raise ValueError(
                f"{LAYER}: causal=True with normalise=True; the mean over a window knows its"
                " end; a constant center and spread fit"
            )
        if causal and stride != patch:
            raise ValueError(
                f"{LAYER}: causal=True with stride {stride} and patch {patch}; patch n would hold"
                " the first samples of patch n + 1, which it is to predict; stride == patch fits"
            )
        self.patch, self.width, self.stride = patch, width, stride
        self.normalise, self.eps, self.center, self.spread = normalise, eps, center, spread
        self.pad_end, self.causal, self.backend = pad_end, causal, backend
        self.projection = nn.Linear(patch, width, bias=bias)

    def forward(self, samples: Tensor) -> Patches:
        """Embed the patches of every series.

        Args:
            samples (Tensor (B, T), uint16 | int16 | floating): the series, in any unit; T must be
                at least `patch`.

        Returns:
            Patches: embeddings (B, N, width) of N = count(T) patches, in the dtype of the weight,
            and center and spread (B,) of the series.

        Raises:
            TypeError: `samples` are of the wrong kind or dtype.
            ValueError: `samples` are not (B, T), or T is below `patch`.
        """
        check_samples(LAYER, samples, self.patch)
        center, spread = self._center_and_spread(samples)
        embeddings = patch_embed(
            samples,
            self.projection.weight,
            self.projection.bias,
            stride=self.stride,
            center=center,
            spread=spread,
            pad_end=self.pad_end,
            backend=self.backend,
        )
        return Patches(embeddings, center, spread)

    def count(self, T: int) -> int:
        """How many patches there are.

        Args:
            T (int): samples of a series.

        Returns:
            int: the number N of its patches.

        Raises:
            ValueError: T is below `patch`.
        """
        if self.patch > T:
            raise ValueError(
                f"{LAYER}: {T} samples make no patch of {self.patch}; at least"
                f" {self.patch} samples fit"
            )
        return count(T, self.patch, self.stride, self.pad_end)

    @staticmethod
    def undo(x: Tensor, patches: Patches) -> Tensor:
        """Take normalised values back to the unit of the samples: x * spread + center.

        Args:
            x (Tensor (B, ...), floating): values of the series that `patches` were made of, as
                the embeddings know them: centered, without a unit.
            patches (Patches): what `forward` returned for those series.

        Returns:
            Tensor, shape of x, float32 or float64: half precision could not hold 65535 or 40001.

        Raises:
            ValueError: x and `patches` are of different batches.
        """
        B = patches.center.shape[0]
        if x.dim() == 0 or x.shape[0] != B:
            raise ValueError(f"{LAYER}: x has shape {tuple(x.shape)}; ({B}, ...), as patches, fits")
        center, spread = (y.view(B, *[1] * (x.dim() - 1)) for y in (patches.center, patches.spread))
        return x * spread + center

    def extra_repr(self) -> str:
        """What `print` shows."""
        scaling = (
            f"normalise=True, eps={self.eps}"
            if self.normalise
            else f"center={self.center}, spread={self.spread}"
        )
        return (
            f"{self.patch}, {self.width}, stride={self.stride}, {scaling},"
            f" pad_end={self.pad_end}, causal={self.causal}"
        )

    def _center_and_spread(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        dtype = working_dtype(samples, self.projection.weight)
        if not self.normalise:
            B, device = samples.shape[0], samples.device
            center = torch.full((B,), self.center, dtype=dtype, device=device)
            return center, torch.full((B,), self.spread, dtype=dtype, device=device)
        x = samples.detach().to(dtype)
        # Measured from the first sample, the mean of a constant series is exact; a plain sum over T
        # may be off by a rounding, and so by more than sqrt(eps) where the series is far from 0.
        first = x[:, :1]
        offset = x - first
        mean = offset.mean(1, keepdim=True)
        variance = (offset - mean).square().mean(1)
        return (first + mean).squeeze(1), (variance + self.eps).sqrt()
