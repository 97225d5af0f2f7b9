"""Right and wrong completions of out-of-distribution prompts, to train on."""

from dataclasses import dataclass

import numpy as np

from pyseq.data.grammars import Grammar, Prompts
from pyseq.errors import UserError

# Each is the shortest completion of its kind that keeps both rules where the grammar allows that;
# these are the grammars of the paper, whose prompts break R2.
COMPLETED = (
    "baN", "bbaN", "aNbN", "parentheses_and_brackets", "aNbNcN",
    "not_nested_parentheses_and_brackets",
)  # fmt: skip
CLOSERS = {"(": ")", "[": "]"}


def right_completion(grammar: Grammar, prompt: str) -> str:
    """A completion with which the whole keeps R1 although the prompt has broken R2.

    Equal counts: every symbol is filled up to the most frequent one, in the order of R2. Even
    counts: b, and an a where one is missing (bbaN counts behind its last b: b alone). Brackets:
    those that are open are closed.

    Args:
        grammar (Grammar): one of `COMPLETED`.
        prompt (str): of the grammar's symbols.

    Returns:
        str: it may be empty.

    Raises:
        UserError: another grammar.
    """
    _check_completed(grammar)
    match grammar.name:
        case "aNbN" | "aNbNcN":
            most = max(prompt.count(symbol) for symbol in grammar.symbols)
            return "".join(symbol * (most - prompt.count(symbol)) for symbol in grammar.symbols)
        case "baN":
            return "b" + "a" * (prompt.count("a") % 2)
        case "bbaN":
            return "b"
    return _closing(prompt)


def wrong_completion(grammar: Grammar, prompt: str) -> str:
    """`right_completion` with one symbol too many, by which the whole breaks R1.

    Args:
        grammar (Grammar): one of `COMPLETED`.
        prompt (str): of the grammar's symbols.

    Returns:
        str: the completion.

    Raises:
        UserError: another grammar.
    """
    right = right_completion(grammar, prompt)
    if grammar.name in ("aNbN", "aNbNcN"):  # the last symbol that was missing, once more
        return right + (right or grammar.symbols)[-1]
    return right + ("a" if grammar.name in ("baN", "bbaN") else "]")


def _check_completed(grammar: Grammar) -> None:
    if grammar.name not in COMPLETED:
        raise UserError(
            f"completions of {grammar.name} are not defined; known: {', '.join(COMPLETED)}"
        )


def _closing(prompt: str) -> str:
    """Closers of what is open in a prompt, the innermost first."""
    still_open: list[str] = []
    for symbol in prompt:
        if symbol in CLOSERS:
            still_open.append(CLOSERS[symbol])
        elif symbol in still_open:  # without a partner it stays unmatched
            last = len(still_open) - 1 - still_open[::-1].index(symbol)
            del still_open[last]
    return "".join(reversed(still_open))


@dataclass(frozen=True)
class PromptPlan:
    """Which prompts a training is tested on and which it is trained on.

    Attributes:
        tested (Prompts): that validations complete.
        trained (tuple of (str, str)): prompts and their completions to train on.
    """

    tested: Prompts
    trained: tuple[tuple[str, str], ...] = ()


def plan_prompts(grammar: Grammar, prompts: Prompts, strategy: str) -> PromptPlan:
    """Settle which prompts are trained on and which are tested.

    "progressive" trains on half of the distinct out-of-distribution prompts, the same half for
    every seed, and tests the other; "oracle" and "adversarial" train on the tested ones.

    Args:
        grammar (Grammar): of the training.
        prompts (Prompts): all.
        strategy (str): "plain", "progressive", "oracle" or "adversarial".

    Returns:
        PromptPlan: for the training.

    Raises:
        UserError: completions are not defined for the grammar, or there are too few prompts.
    """
    outside = prompts.out_of_distribution
    if strategy == "plain":
        return PromptPlan(prompts)
    _check_completed(grammar)  # also where there is no prompt to complete
    complete = wrong_completion if strategy == "adversarial" else right_completion
    distinct = sorted(set(outside))
    if strategy != "progressive":
        return PromptPlan(prompts, tuple((p, complete(grammar, p)) for p in distinct))
    if len(distinct) < 2:
        raise UserError(f"--progressive needs two prompts at least; there is {len(distinct)}")
    order = np.random.default_rng(0).permutation(len(distinct))
    held_in = {distinct[i] for i in order[: len(distinct) // 2]}
    tested = Prompts(prompts.in_distribution, [p for p in outside if p not in held_in])
    return PromptPlan(tested, tuple((p, complete(grammar, p)) for p in sorted(held_in)))
