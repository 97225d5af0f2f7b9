"""Scores that need no model: stopping at once, and completing at random."""

from collections.abc import Sequence

import numpy as np

from pyseq.data.grammars.grammar import Grammar, Prompts


def emit_eos_at_once(grammar: Grammar, prompts: Prompts) -> dict[str, float]:
    """Scores of completing nothing: how many prompts obey the rules as they stand.

    Args:
        grammar (Grammar): whose rules are asked.
        prompts (Prompts): as `grammar.prompts` gives them.

    Returns:
        dict of id_rule_1, id_rule_2, ood_rule_1, ood_rule_2_completion; without those that no
        prompt is for.
    """
    inside = [(prompt, prompt) for prompt in prompts.in_distribution]
    outside = [(prompt, prompt) for prompt in prompts.out_of_distribution]
    return _scores(grammar, inside, outside)


def chance_level(
    grammar: Grammar,
    prompts: Prompts,
    *,
    max_length: int = 256,
    completions: int = 100_000,
    seed: int = 0,
) -> dict[str, float]:
    """Scores of completions drawn at random: each next token is a symbol or EOS, all as likely.

    That is how the authors define chance. They sum series, and two of theirs go wrong: rule 2 of
    aNbN's completions is divided among four outcomes (.444), where there are three as in rule 1 of
    the same page (.75); and ways to close an open bracket are counted by Catalan numbers (.127),
    which miss those that open a second one first (.146). Ours are drawn.

    A completion that reaches max_length without EOS is cut there; at the default one in 10^40 is.

    Args:
        grammar (Grammar): whose rules are asked.
        prompts (Prompts): as `grammar.prompts` gives them.
        max_length (int): symbols of prompt and completion.
        completions (int): draws for each of the two sets of prompts, spread evenly over it.
        seed (int): of the draws, at least 0.

    Returns:
        dict of id_rule_1, id_rule_2, ood_rule_1, ood_rule_2_completion; standard error at most
        0.5 / sqrt(completions), that is .0016; without those that no prompt is for.
    """
    generator = np.random.default_rng(seed)
    inside = _completed(grammar, prompts.in_distribution, completions, max_length, generator)
    outside = _completed(grammar, prompts.out_of_distribution, completions, max_length, generator)
    return _scores(grammar, inside, outside)


def _completed(
    grammar: Grammar,
    prompts: Sequence[str],
    completions: int,
    max_length: int,
    generator: np.random.Generator,
) -> list[tuple[str, str]]:
    """Prompts with their random wholes, each prompt as often as the others."""
    repeated = list(prompts) * -(-completions // len(prompts)) if prompts else []
    lengths = generator.geometric(1 / (len(grammar.symbols) + 1), len(repeated)) - 1
    letters = np.frombuffer(grammar.symbols.encode(), np.uint8)
    text = generator.choice(letters, lengths.sum()).tobytes().decode()
    ends = lengths.cumsum()
    starts = ends - lengths
    return [
        (prompt, (prompt + text[start:end])[:max_length])
        for prompt, start, end in zip(repeated, starts.tolist(), ends.tolist(), strict=True)
    ]


def _scores(
    grammar: Grammar, inside: list[tuple[str, str]], outside: list[tuple[str, str]]
) -> dict[str, float]:
    """Shares of pairs of prompt and whole that obey each rule."""
    outcomes = {
        "id_rule_1": [grammar.rule_1(whole) for _, whole in inside],
        "id_rule_2": [grammar.rule_2(whole) for _, whole in inside],
        "ood_rule_1": [grammar.rule_1(whole) for _, whole in outside],
        "ood_rule_2_completion": [grammar.rule_2_completion(*pair) for pair in outside],
    }
    return {name: sum(found) / len(found) for name, found in outcomes.items() if found}
