"""A trained stack looked at closely: every completion, and where attention looks in some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pyseq.analysis.plots.outcomes import Outcome
from pyseq.analysis.rules.decoding import evaluated, greedy_completions
from pyseq.analysis.rules.scores import Completion
from pyseq.data.grammars import SOS

if TYPE_CHECKING:
    from pyseq.data.grammars import Grammar, JointVocabulary, Prompts
    from pyseq.models.rules import RuleModel

_LONGEST_MAP = 16  # tokens; more could not be read beside one another
# Two symbols that the first rule asks for equally often; what else it asks for is not told by them.
_BALANCED = {
    "aNbN": "ab",
    "abN": "ab",
    "aNbNcN": "ab",
    "parentheses_and_brackets": "[]",
    "not_nested_parentheses_and_brackets": "[]",
    "parentheses": "()",
    "brackets": "[]",
}


@dataclass(frozen=True)
class AttentionMap:
    """Where the first seed of a stack looks while it completes one prompt.

    Attributes:
        completion (Completion): of the first seed.
        outcome ("kept" | "broken" | "unfinished"): of its first rule.
        tokens (str): what was read, ^ for SOS and # for a task's token; cut at 16 tokens.
        given (int): how many of them come before the completion.
        weights (array (L, H, T, T), float32): of layer, head, query and key.
    """

    completion: Completion
    outcome: Outcome
    tokens: str
    given: int
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Examination:
    """What a stack of S seeds makes of the prompts.

    Attributes:
        in_distribution (sequence of S sequences of Completion): for each seed.
        out_of_distribution (sequence of S sequences of Completion): for each seed.
        ensemble (tuple of two sequences of Completion or None): in and out of distribution, of the
            probabilities averaged over the seeds at every step.
        attention (sequence of AttentionMap): of some prompts; none for models without attention.
    """

    in_distribution: Sequence[Sequence[Completion]]
    out_of_distribution: Sequence[Sequence[Completion]]
    ensemble: tuple[Sequence[Completion], Sequence[Completion]] | None = None
    attention: Sequence[AttentionMap] = ()


def examine(
    model: RuleModel,
    grammar: Grammar,
    prompts: Prompts,
    *,
    max_length: int,
    ensemble: bool = True,
    vocabulary: JointVocabulary | None = None,
) -> Examination:
    """Complete all prompts with every seed, and look where the first one attends.

    Args:
        model (RuleModel): S seeds.
        grammar (Grammar): of the prompts.
        prompts (Prompts): all of one length.
        max_length (int): as of `greedy_completions`.
        ensemble (bool): whether the seeds complete the prompts as one, too; not for a single one.
        vocabulary (JointVocabulary or None): as of `greedy_completions`.

    Returns:
        Examination: with attention for a prompt in distribution and, of those out of it, the first
        that each outcome came of.
    """
    inside, outside = prompts.in_distribution, prompts.out_of_distribution

    def complete(average: bool) -> tuple[list[list[Completion]], list[list[Completion]]]:
        # In one batch, as every step costs the same for many prompts and for few.
        found = greedy_completions(
            model,
            grammar,
            [*inside, *outside],
            max_length=max_length,
            average=average,
            vocabulary=vocabulary,
        )
        return [row[: len(inside)] for row in found], [row[len(inside) :] for row in found]

    first, second = complete(average=False)
    together = None
    if ensemble and model.seeds > 1:
        averaged = complete(average=True)
        together = averaged[0][0], averaged[1][0]
    chosen = list(first[0][:1])
    by_outcome = {outcome(grammar, each): each for each in reversed(second[0])}
    chosen += [by_outcome[kind] for kind in ("kept", "broken", "unfinished") if kind in by_outcome]
    maps = [_attention(model, grammar, each, vocabulary) for each in chosen]
    return Examination(first, second, together, [found for found in maps if found])


def _attention(
    model: RuleModel, grammar: Grammar, completion: Completion, vocabulary: JointVocabulary | None
) -> AttentionMap | None:
    """None for models without attention."""
    if vocabulary is None:
        tokens = [SOS, *grammar.encode(completion.whole)][:_LONGEST_MAP]
        read, given = grammar.decode(tokens), 1 + len(completion.prompt)
    else:
        # Decoded text may hold another task's token, which has no way back; prompts do not.
        start = vocabulary.prefix(grammar)
        tokens = [*start, *vocabulary.encode(grammar, completion.prompt)][:_LONGEST_MAP]
        read, given = vocabulary.decode(grammar, tokens), len(start) + len(completion.prompt)
    with evaluated(model), torch.inference_mode():
        device = next(model.parameters()).device
        stacked = torch.tensor(tokens, device=device).expand(model.seeds, 1, -1)  # (S, 1, T)
        layers = model.attention(stacked)
        if not layers:
            return None
        weights = torch.stack([layer[0, 0] for layer in layers]).float().cpu().numpy()
    return AttentionMap(completion, outcome(grammar, completion), read, given, weights)


def outcome(grammar: Grammar, completion: Completion) -> Outcome:
    """What became of the first rule."""
    if not completion.finished:
        return "unfinished"
    return "kept" if grammar.rule_1(completion.whole) else "broken"


def balance(grammar: Grammar, text: str) -> tuple[str, int] | None:
    """By how much a text misses the balance that the first rule asks for.

    Args:
        grammar (Grammar): whose first rule it is.
        text (str): prompt and completion.

    Returns:
        tuple of str and int, or None: what is counted, such as "#a - #b", and the difference; None
        for grammars whose first rule asks for no balance.
    """
    if grammar.name not in _BALANCED:
        return None
    pair = _BALANCED[grammar.name]
    first, second = pair[0], pair[1]
    return f"#{first} - #{second}", text.count(first) - text.count(second)
