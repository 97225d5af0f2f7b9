"""`pyseq fusion`: classifiers over several views of an object, alone and as ensembles."""

import importlib

from pyseq.cli.subcommands import chosen

SUBCOMMANDS = {
    "train": "train a model, k folds, an ensemble or all of these, and score the test part once",
    "evaluate": "score a trained model, also with noise or without a modality",
    "table": "print what each technique adds; run what is missing",
}


def main(arguments: list[str]) -> int:
    """Run one subcommand."""
    name, rest = chosen("fusion", SUBCOMMANDS, arguments)
    return importlib.import_module(f"pyseq.cli.fusion.{name}").main(rest)
