"""A projection to the logits of an alphabet, read at one of several resolutions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.scale_cross_entropy.api import check_scales


class ScaleAwareHead(nn.Linear):
    """Logits of every symbol, and the probability of every bin of symbols: symbol i in bin i // s.

    A linear layer in every other respect: `weight` (alphabet, width) and `bias` are what
    `pyseq.ops.scale_cross_entropy` takes. The weight starts normal with a standard deviation of
    0.02, the bias at 0.

    Args:
        width (int): features of a row, C.
        alphabet (int): symbols that are told apart, V.
        scales (tuple of int): widths of the bins in symbols that `log_probabilities` may be asked
            for, at least 1.
        bias (bool): add a trained constant to every symbol's logit.

    Raises:
        TypeError: `scales` holds something else than ints.
        ValueError: a size or a scale is not positive.

    Source: sums of symbols' probabilities as in `pyseq.ops.scale_cross_entropy`.

    Example:
        >>> import torch
        >>> from pyseq.nn import ScaleAwareHead
        >>> head = ScaleAwareHead(64, 1000, scales=(1, 16))
        >>> hidden = torch.randn(2, 10, 64)
        >>> head(hidden).shape, head.log_probabilities(hidden, 16).shape
        (torch.Size([2, 10, 1000]), torch.Size([2, 10, 63]))
    """

    def __init__(
        self, width: int, alphabet: int, *, scales: Sequence[int] = (1,), bias: bool = False
    ) -> None:
        kinds("ScaleAwareHead", int, width=width, alphabet=alphabet)
        kinds("ScaleAwareHead", bool, bias=bias)
        if width < 1 or alphabet < 1:
            raise ValueError(
                f"ScaleAwareHead: width {width} and alphabet {alphabet}; positive sizes fit"
            )
        check_scales("ScaleAwareHead", scales, None)
        super().__init__(width, alphabet, bias=bias)
        self.scales = tuple(scales)

    def reset_parameters(self) -> None:
        """Draw the weight anew, and set the bias to 0."""
        nn.init.normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Project to logits.

        Args:
            hidden (Tensor (..., C), floating): the rows.

        Returns:
            Tensor (..., V), dtype of hidden, or autocast's: unnormalised log-probabilities in nats.
        """
        return super().forward(hidden)

    def log_probabilities(self, hidden: Tensor, scale: int = 1) -> Tensor:
        """Say how probable every bin is.

        Args:
            hidden (Tensor (..., C), floating): the rows.
            scale (int): width of a bin in symbols: one of `scales`, or 1, which every head has.

        Returns:
            Tensor (..., ceil(V / scale)), float32 (float64 for float64): log-probabilities in nats;
                the last bin may be narrower than the others.

        Raises:
            ValueError: the head was not made for this scale.
        """
        kinds("ScaleAwareHead", int, scale=scale)
        if scale != 1 and scale not in self.scales:
            raise ValueError(f"ScaleAwareHead: scale is {scale}; 1 or one of {self.scales} fits")
        logits = self(hidden)
        log_p = torch.log_softmax(logits.to(accumulation_dtype(logits)), -1)  # (..., V)
        missing = -self.out_features % scale
        log_p = nn.functional.pad(log_p, (0, missing), value=-math.inf)
        return log_p.unflatten(-1, (-1, scale)).logsumexp(-1)
