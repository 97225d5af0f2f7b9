"""Training losses of a stack, one number for each seed."""

import torch
from torch import Tensor
from torch.nn import functional

from pyseq.data.grammars import PAD


def word_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_pad: bool = False,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean loss of each seed over its targets.

    Args:
        logits (Tensor (S, B, T, V)): of the next token.
        targets (Tensor (S, B, T), int64): the next token.
        ignore_pad (bool): leave PAD out of the mean.
        label_smoothing (float): share of each target that is spread over all V.
        focal_gamma (float): each target's loss is weighed by (1 - p) to this power.

    Returns:
        Tensor (S,): nats per target; PAD counts as the published losses count it.

    Source: focal loss: Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 4.
    """
    each = functional.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), reduction="none", label_smoothing=label_smoothing
    ).view(targets.shape)  # (S, B, T)
    if focal_gamma:
        probability = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0].exp()
        each = each * (1 - probability).clamp_min(0) ** focal_gamma
    if ignore_pad:
        return masked_mean(each, targets != PAD)
    return each.mean((1, 2))


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of each seed over what is counted.

    Args:
        values (Tensor (S, B, T)): of every target.
        counted (Tensor (S, B, T) or (B, T), bool): at least one of each seed.

    Returns:
        Tensor (S,): dtype of values.
    """
    counted = counted.expand_as(values)
    return torch.where(counted, values, 0).sum((1, 2)) / counted.sum((1, 2))


def counting_targets(tokens: Tensor, first_symbol: int, classes: int) -> Tensor:
    """What the counting loss asks after every token: which counts are even, which are equal.

    Args:
        tokens (Tensor (S, B, T), int64): what the model has read.
        first_symbol (int): token of the first symbol.
        classes (int): one more than the last symbol's token.

    Returns:
        Tensor (S, B, T, K), float32: K = n + n (n - 1) / 2 for n symbols: 1 where a symbol has
        occurred an even number of times up to here, then 1 where a pair has equally often.
    """
    symbols = torch.arange(first_symbol, classes, device=tokens.device)
    counts = (tokens[..., None] == symbols).cumsum(2)  # (S, B, T, n)
    first, second = torch.triu_indices(len(symbols), len(symbols), 1, device=tokens.device)
    even = counts % 2 == 0
    equal = counts[..., first] == counts[..., second]
    return torch.cat([even, equal], -1).float()


def counting_loss(answers: Tensor, targets: Tensor, tokens: Tensor) -> Tensor:
    """Binary cross-entropy of the answers to `counting_targets`, where no PAD was read.

    Args:
        answers (Tensor (S, B, T, K)): logits.
        targets (Tensor (S, B, T, K), float32): 0 or 1.
        tokens (Tensor (S, B, T), int64): what the model has read.

    Returns:
        Tensor (S,): nats per answer.
    """
    each = functional.binary_cross_entropy_with_logits(answers, targets, reduction="none").mean(-1)
    return masked_mean(each, tokens != PAD)
