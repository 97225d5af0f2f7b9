"""`pyseq fusion`: classifiers over several views of an object, alone and as ensembles."""

import importlib

from pyseq.errors import UserError

SUBCOMMANDS = {
    "train": "train a model, k folds, an ensemble or all of these, and score the test part once",
    "evaluate": "score a trained model, also with noise or without a modality",
    "table": "print what each technique adds; run what is missing",
}


def main(arguments: list[str]) -> int:
    """Run one subcommand."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in SUBCOMMANDS:
        raise UserError(f"unknown subcommand {name!r}; known: {', '.join(SUBCOMMANDS)}")
    return importlib.import_module(f"pyseq.cli.fusion.{name}").main(rest)


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in SUBCOMMANDS.items()]
    return "\n".join(
        ["usage: pyseq fusion SUBCOMMAND [flags]", "", *lines, "",
         "pyseq fusion SUBCOMMAND --help shows its flags."]
    )  # fmt: skip
