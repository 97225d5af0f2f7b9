"""Loss of fusion training, with targets that may be spread over classes."""

import torch
from torch import Tensor


def soft_targets(label: Tensor, classes: int, smoothing: float) -> Tensor:
    """One-hot targets with a share spread evenly over all classes.

    Args:
        label (Tensor (B,), int64): classes.
        classes (int): how many there are, C.
        smoothing (float): the share, 0 to below 1.

    Returns:
        Tensor (B, C), float32: rows sum to 1.

    Source: Szegedy et al. 2016, section 7 (arXiv 1512.00567).
    """
    one_hot = torch.nn.functional.one_hot(label, classes).float()
    return one_hot * (1 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor, focal_gamma: float = 0.0) -> Tensor:
    """Mean cross-entropy with distributions as targets.

    Args:
        logits (Tensor (B, C), floating): of the model.
        targets (Tensor (B, C), floating): distributions over classes.
        focal_gamma (float): each class's term is weighed by (1 - p)^gamma of its probability p, so
            that what is known well counts less; 0 is the plain cross-entropy.

    Returns:
        Tensor (), floating: in nats.

    Source: the focal weight: Lin et al. 2017, eq. 4 (arXiv 1708.02002), here for every class by
        its target, as smoothed and mixed targets have several.
    """
    log_p = logits.log_softmax(-1)
    each = -targets * log_p
    if focal_gamma:
        # exp may round to just above 1, of which a fractional power would be NaN.
        each = each * (1 - log_p.exp()).clamp(min=1e-8) ** focal_gamma
    return each.sum(-1).mean()
