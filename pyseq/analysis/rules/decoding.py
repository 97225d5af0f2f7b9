"""Greedy completions of prompts, and the loss on held-out words, of every seed of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyseq.analysis.rules.scores import Completion
from pyseq.data.grammars import EOS, PAD, SOS

if TYPE_CHECKING:
    from pyseq.data.grammars import Grammar, JointVocabulary
    from pyseq.models.rules import RuleModel


def greedy_completions(
    model: RuleModel,
    grammar: Grammar,
    prompts: Sequence[str],
    *,
    max_length: int,
    average: bool = False,
    vocabulary: JointVocabulary | None = None,
) -> list[list[Completion]]:
    """Complete prompts with the likeliest token, again and again, until each has its EOS.

    Decoding ends where the whole has max_length symbols and its EOS: the longest word can be
    completed. The paper's code had other bounds: first 300 tokens after the prompt, later
    max_length tokens with SOS, prompt and EOS, for which that word is too long.

    Args:
        model (RuleModel): S seeds.
        grammar (Grammar): of the prompts.
        prompts (sequence of P str): all of one length.
        max_length (int): symbols of prompt and completion at most.
        average (bool): whether the seeds decode as one: their probabilities, averaged at every
            step, choose the token that all of them are given.
        vocabulary (JointVocabulary or None): of a model that was trained on several grammars; the
            grammar's task token then follows SOS.

    Returns:
        list of list of Completion: for each seed, or for the one average, P completions in the
        prompts' order.

    Raises:
        ValueError: the prompts differ in length, or are longer than max_length.
    """
    if not prompts:
        return [[] for _ in range(1 if average else model.seeds)]
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) > 1:
        raise ValueError(
            f"greedy_completions: prompts of {min(lengths)} to {max(lengths)} symbols; all must "
            "have one length, decode the others in a call of their own"
        )
    start, encode, decode = [SOS], grammar.encode, grammar.decode
    if vocabulary is not None:
        start = vocabulary.prefix(grammar)
        encode = partial(vocabulary.encode, grammar)
        decode = partial(vocabulary.decode, grammar)
    further = max_length - lengths.pop() + 1
    if further < 1:
        raise ValueError(
            f"greedy_completions: prompts of {len(prompts[0])} symbols are longer than max_length"
            f" {max_length}"
        )
    tokens = torch.tensor([[*start, *encode(prompt)] for prompt in prompts])  # (P, T)
    decoded = _decode(model, tokens, further, average)  # (S or 1, P, further or less)
    return [
        [_completion(decode, prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
        for rows in decoded.tolist()
    ]


def _decode(model: RuleModel, tokens: Tensor, further: int, average: bool) -> Tensor:
    """The tokens that follow (P, T), of each seed (S, P, up to `further`), or of all as one."""
    with evaluated(model), torch.inference_mode():
        device = next(model.parameters()).device
        given = tokens.to(device).expand(model.seeds, -1, -1)  # (S, P, T)
        cache = model.new_cache()
        ended = torch.zeros((), dtype=torch.bool, device=device)
        chosen: list[Tensor] = []
        for step in range(further):
            logits = model.next_logits(given, cache=cache)  # (S, P, classes)
            if average:
                logits = logits.softmax(-1).mean(0, keepdim=True)
            newest = logits.argmax(-1)  # (S or 1, P)
            chosen.append(newest)
            ended = ended | (newest == EOS)
            # The last step has nothing to save, and asking a GPU makes it wait.
            if step + 1 < further and bool(ended.all()):
                break
            given = newest.expand(model.seeds, -1)[..., None]
        return torch.stack(chosen, -1).cpu()


def _completion(decode: Callable[[list[int]], str], prompt: str, tokens: list[int]) -> Completion:
    finished = EOS in tokens
    kept = tokens[: tokens.index(EOS)] if finished else tokens
    return Completion(prompt, decode(kept), finished)


def validation_loss(
    model: RuleModel,
    tokens: Tensor,
    *,
    ignore_pad: bool = False,
    given: int = 1,
    batch_size: int = 128,
) -> Tensor:
    """Plain cross-entropy of every seed, whatever it was trained with.

    Args:
        model (RuleModel): S seeds.
        tokens (Tensor (N, L) or (S, N, L), int64): SOS, word, EOS and PAD; (N, L) are given to
            every seed.
        ignore_pad (bool): whether PAD is left out of the targets, which makes the loss another
            quantity than the published one.
        given (int): tokens at the beginning that are no targets: SOS, and a task's.
        batch_size (int): words in one pass of all seeds.

    Returns:
        Tensor (S,), float64: nats per target, on the CPU.

    Raises:
        ValueError: the tokens' shape does not fit, or there is no word or no target.
    """
    if tokens.dim() == 2:
        tokens = tokens.expand(model.seeds, -1, -1)
    if tokens.dim() != 3 or tokens.shape[0] != model.seeds:
        raise ValueError(
            f"validation_loss: tokens {tuple(tokens.shape)} for {model.seeds} seeds; (N, L) or "
            f"({model.seeds}, N, L) fit"
        )
    if tokens.shape[1] == 0 or not 1 <= given < tokens.shape[2]:
        raise ValueError(
            f"validation_loss: tokens {tuple(tokens.shape)} have no target behind the {given} given"
            " ones; at least one of them and one word of more tokens are needed"
        )
    device = next(model.parameters()).device
    total = torch.zeros(model.seeds, dtype=torch.float64, device=device)
    targets = torch.zeros_like(total)
    with evaluated(model), torch.inference_mode():
        for batch in tokens.split(batch_size, dim=1):
            batch = batch.to(device)
            wanted = batch[..., given:]
            likelihood = model(batch[..., :-1])[..., given - 1 :, :].float().log_softmax(-1)
            nats = -likelihood.gather(-1, wanted[..., None])[..., 0].double()  # (S, B, L - given)
            counted = wanted != PAD if ignore_pad else torch.ones_like(wanted, dtype=torch.bool)
            total += torch.where(counted, nats, 0.0).sum((1, 2))
            targets += counted.sum((1, 2))
    return (total / targets).cpu()


@contextmanager
def evaluated(model: RuleModel) -> Iterator[None]:
    """Dropout is off inside, and is what it was after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
