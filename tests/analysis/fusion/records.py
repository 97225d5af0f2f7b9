"""Records of runs that were never trained, for the tests of what is made of records."""

import numpy as np

from pyseq.analysis.fusion import FusionRecord

NAMES = ("ape", "bear", "cat")


def guesses(label, sharpness, seed, classes=3):
    """Probabilities that know something about the labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(label), classes)) + sharpness * np.eye(classes)[label]
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)


def record(**changes):
    label = np.random.default_rng(0).integers(3, size=200)
    single = guesses(label, 3.0, 1)
    made = {
        "data": "animals",
        "protocol": "locked split",
        "class_names": NAMES,
        "label": label,
        "predictions": {"a single model": single, "snapshots": guesses(label, 3.2, 2)},
        "selection": "validation loss",
        "without": {"voice": guesses(label, 0.5, 3), "shadow": single},
        "corrupted": {"noise": guesses(label, 1.5, 4)},
        "peers": {"SVC": guesses(label, 3.0, 5), "SVC, noise": guesses(label, 0.2, 6)},
        "histories": {
            f"seed {k}": [
                {"epoch": e, "train_loss": 1 / e, "validation_loss": 1.1 / e, "lr": 1e-3,
                 "validation_accuracy": 1 - 0.5 / e}
                for e in (1, 2, 3)
            ]
            for k in (1, 2)
        },
        "snapshots": (2, 3),
        "techniques": ("mixup", "snapshots"),
        "config": {"epochs": 3},
        "seed": 7,
        "bayes_accuracy": 0.97,
        "seconds": 90.0,
        "device": "cpu",
    }  # fmt: skip
    return FusionRecord(**(made | changes))
