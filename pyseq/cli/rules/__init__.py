"""`pyseq rules`: models that learn a grammar, and whether they extrapolate one of its rules."""

import importlib

from pyseq.cli.subcommands import chosen

SUBCOMMANDS = {
    "train": "train a model on a grammar, several seeds at once, and report on it",
    "evaluate": "score a trained model, seed by seed and all seeds as one",
    "sweep": "train over sizes, rates and dropouts, and rank them",
    "table": "print runs beside the paper's results; run what is missing",
    "show": "show a grammar: rules, words, prompts, baselines, the lowest possible loss",
}


def main(arguments: list[str]) -> int:
    """Run one subcommand."""
    name, rest = chosen("rules", SUBCOMMANDS, arguments)
    return importlib.import_module(f"pyseq.cli.rules.{name}").main(rest)
