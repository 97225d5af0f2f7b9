"""`pyseq rules`: models that learn a grammar, and whether they extrapolate one of its rules."""

import importlib

from pyseq.errors import UserError

SUBCOMMANDS = {
    "train": "train a model on a grammar, several seeds at once, and report on it",
    "evaluate": "score a trained model, seed by seed and all seeds as one",
    "sweep": "train over sizes, rates and dropouts, and rank them",
    "table": "print runs beside the paper's results; run what is missing",
    "show": "show a grammar: rules, words, prompts, baselines, the lowest possible loss",
}


def main(arguments: list[str]) -> int:
    """Run one subcommand."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in SUBCOMMANDS:
        raise UserError(f"unknown subcommand {name!r}; known: {', '.join(SUBCOMMANDS)}")
    return importlib.import_module(f"pyseq.cli.rules.{name}").main(rest)


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in SUBCOMMANDS.items()]
    return "\n".join(
        ["usage: pyseq rules SUBCOMMAND [flags]", "", *lines, "",
         "pyseq rules SUBCOMMAND --help shows its flags."]
    )  # fmt: skip
