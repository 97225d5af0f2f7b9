"""`pyseq rules show`: a grammar, and what there is to know before any training."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from pyseq.cli import flags

EXAMPLES = 8


@dataclass(frozen=True)
class ShowConfig:
    """Show a grammar: language, rules, words, prompts, baselines and the lowest possible loss."""

    grammar: Annotated[str, tyro.conf.Positional]
    """A name, or a label of the paper (L1 to L6)."""
    max_length: int = 256
    """Symbols of the longest word."""
    prompt_length: int | None = None
    """Symbols of a prompt; default: the paper's."""


def main(arguments: list[str]) -> int:
    """Print what is known of the grammar."""
    config = flags.parse(ShowConfig, "rules show", arguments)
    from pyseq.analysis.rules.published import PUBLISHED
    from pyseq.analysis.rules.table import TITLES, spread_text
    from pyseq.data.grammars import chance_level, emit_eos_at_once, find_grammar

    grammar = find_grammar(config.grammar)
    print(f"{grammar.name}{f' ({grammar.label})' if grammar.label else ''}: {grammar.language}")
    for number, rule in enumerate(grammar.rules, 1):
        print(f"R{number}: {rule or 'none'}")
    floor = grammar.loss_floor(config.max_length)
    print(f"words of up to {config.max_length} symbols: {_count(grammar, config.max_length)}")
    drawn = sorted(
        set(grammar.data(1000, min(config.max_length, 16), 0)), key=lambda w: (len(w), w)
    )
    print(f"examples: {' '.join(drawn[:EXAMPLES])}")
    prompts = grammar.prompts(length=config.prompt_length)
    for name, of in (("in distribution", prompts.in_distribution),
                     ("out of distribution", prompts.out_of_distribution)):  # fmt: skip
        distinct = sorted(set(of))
        some = f", {len(distinct)} distinct: {' '.join(distinct[:5])} ..." if of else ""
        print(f"prompts {name}: {len(of)}{some}")
    error = "" if floor.exact else f" +- {floor.standard_error:.5f}"
    print(f"lowest possible loss: {floor.nats_per_target:.5f}{error} nats per target over"
          f" {config.max_length + 1} targets, PAD counted")  # fmt: skip
    for name, scores in (
        ("EOS at once", emit_eos_at_once(grammar, prompts)),
        ("random completions", chance_level(grammar, prompts, max_length=config.max_length)),
    ):
        said = ", ".join(f"{TITLES[metric]} {share:.3f}" for metric, share in scores.items())
        print(f"{name}: {said}")
    for (name, model), row in PUBLISHED.items():
        if name == grammar.name:
            print(f"published {model}: OOD R1 {spread_text(row['ood_rule_1'])}")
    return 0


def _count(grammar, max_length: int) -> str:
    """How many words there are, or that they are drawn."""
    from pyseq.errors import UserError

    if grammar.enumerated:
        return f"{len(grammar.words(max_length)):,}, each once: training, validation and test set"
    try:
        return f"{len(grammar.words(max_length)):,}, of which training draws"
    except UserError:  # too many to list
        return "more than can be listed, of which training draws"
