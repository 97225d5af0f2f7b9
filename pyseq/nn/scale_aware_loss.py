"""Cross-entropy at several resolutions of the alphabet, from hidden rows and a head."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyseq.nn.checks import kinds
from pyseq.ops.scale_cross_entropy.api import check_reduction, check_scales, scale_cross_entropy


class ScaleAwareLoss(nn.Module):
    """Weighted sum of the cross-entropies of bins of several widths; logits are never stored.

    It takes the head's parameters, not its logits, and has none of its own.

    Args:
        scales (tuple of int): widths of the bins in symbols, at least 1; 1 is ordinary
            cross-entropy.
        scale_weights (tuple of float | None): what each scale's loss counts, finite and at least 0;
            None: 1 each; no unit.
        ignore_index (int | None): rows with this target count nothing.
        reduction (str): "mean", "sum" or "none", as in `pyseq.ops.scale_cross_entropy`.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a number is out of its range, or `scale_weights` are not as many as `scales`.

    Source: Wijmans et al. 2024, arXiv 2411.09009 (logits that are never stored); Gneiting and
        Raftery 2007, JASA 102 (proper scores, whose sums are proper).

    Example:
        >>> import torch
        >>> from pyseq.nn import ScaleAwareHead, ScaleAwareLoss
        >>> head = ScaleAwareHead(64, 65536)
        >>> loss = ScaleAwareLoss.from_bins(65536, (256, 1024, 4096))
        >>> loss.scales
        (1, 256, 64, 16)
        >>> total, per_scale = loss(torch.randn(10, 64), head, torch.randint(0, 65536, (10,)))
        >>> total.shape, per_scale.shape
        (torch.Size([]), torch.Size([4]))
    """

    def __init__(
        self,
        scales: Sequence[int] = (1,),
        *,
        scale_weights: Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_scales("ScaleAwareLoss", scales, scale_weights)
        check_reduction("ScaleAwareLoss", ignore_index, reduction)
        self.scales = tuple(scales)
        self.scale_weights = None if scale_weights is None else tuple(scale_weights)
        self.ignore_index, self.reduction, self.backend = ignore_index, reduction, backend

    @classmethod
    def from_bins(cls, alphabet: int, bins: Sequence[int], **options: Any) -> "ScaleAwareLoss":
        """Make one from numbers of bins instead of their widths.

        Its scales are 1 (the symbols themselves), then ceil(alphabet / b) for each b of `bins`, in
        their order. A width that is 1 or has come before is left out, so there may be fewer scales
        than `scale_weights` were meant for, which is then an error.

        Args:
            alphabet (int): symbols that are told apart, V.
            bins (tuple of int): into how many bins the alphabet is divided, at most: the width is
                rounded up, so 10001 symbols in 4096 bins are 3334 bins of 3.
            options (Any): the constructor's other arguments.

        Returns:
            ScaleAwareLoss: with those scales.

        Raises:
            TypeError: `bins` holds something else than ints, or an option is of the wrong kind.
            ValueError: a number is out of its range.
        """
        if not isinstance(bins, tuple | list):
            raise TypeError(
                f"ScaleAwareLoss: bins is a {type(bins).__name__}; a tuple of ints fits"
            )
        kinds(
            "ScaleAwareLoss",
            int,
            alphabet=alphabet,
            **{f"bins[{i}]": b for i, b in enumerate(bins)},
        )
        if alphabet < 1 or any(b < 1 for b in bins):
            raise ValueError(
                f"ScaleAwareLoss: alphabet {alphabet} in {tuple(bins)} bins; positive numbers fit"
            )
        widths = [-(-alphabet // b) for b in bins]  # rounded up
        return cls(tuple(dict.fromkeys([1, *widths])), **options)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"scales={self.scales}, scale_weights={self.scale_weights}"

    def forward(self, hidden: Tensor, head: nn.Linear, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compare what the head makes of every row with its target.

        Args:
            hidden (Tensor (..., C), floating): the rows.
            head (ScaleAwareHead | nn.Linear): from C features to the alphabet of V symbols.
            targets (Tensor (...), any integer dtype, uint16 too): the true symbols, 0 to V - 1 or
                `ignore_index`.

        Returns:
            tuple of two Tensor, float32 (float64 for float64), in nats: the loss, (), or of the
                shape of targets without a reduction; and the loss at each scale before weighing,
                (n_scales,), or (n_scales, ...).

        Raises:
            TypeError: the head is no linear layer, or a tensor is of the wrong dtype.
            ValueError: shapes or devices do not fit together.
        """
        if not isinstance(head, nn.Linear):
            raise TypeError(f"ScaleAwareLoss: head is a {type(head).__name__}; a Linear fits")
        return scale_cross_entropy(
            hidden,
            head.weight,
            targets,
            scales=self.scales,
            scale_weights=self.scale_weights,
            bias=head.bias,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            backend=self.backend,
        )
