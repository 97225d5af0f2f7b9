"""The settings of the published runs, and in what another run's differ from them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pyseq.data.grammars import find_grammar
from pyseq.models.rules import MODELS
from pyseq.training.rules.config import RulesConfig

# What does not change a result, or stands in a table's columns of its own.
_NEUTRAL = {"grammar", "model", "out", "max_length", "seeds", "first_seed", "max_time", "lr_find",
            "resume", "device", "threads"}  # fmt: skip


def published_settings(grammar: str, model: str) -> RulesConfig:
    """The published training of a model on a grammar, at length 256.

    The schedule counts steps where the official code counts epochs, and --max_steps bounds what
    its bound on epochs does: with the warm-up in epochs, grammars with 15,000 words would reach
    the peak of the rate only after 118,000 steps.

    Args:
        grammar (str): its full name.
        model (str): a key of `MODELS`.

    Returns:
        RulesConfig: resolved.
    """
    return RulesConfig(grammar=grammar, model=model).resolved()


def variant(config: RulesConfig, stops: Sequence[str] = ()) -> str:
    """In a few words, how resolved settings differ from the published ones; "" where they do not.

    Args:
        config (RulesConfig): resolved.
        stops (sequence of str): why each seed's training ended, where that is known: a bound on
            steps that ended none is no difference.

    Returns:
        str: names and values, such as "heads 10, lr 0.001".
    """
    published = published_settings(config.grammar, config.model)
    neutral = _NEUTRAL | set(MODELS)
    if all(find_grammar(name).enumerated for name in (config.grammar, *config.multi_task)):
        neutral |= {"num_train", "num_validation"}  # every word once, whatever they say
    if stops and "max_steps" not in stops:
        neutral |= {"max_steps"}
    differences = [
        f"{name} {_said(value)}"
        for name, value in vars(config).items()
        if name not in neutral and value != getattr(published, name)
    ]
    ours, theirs = config.model_config, published.model_config
    differences += [
        f"{field.name} {_said(getattr(ours, field.name))}"
        for field in dataclasses.fields(ours)
        if getattr(ours, field.name) != getattr(theirs, field.name)
    ]
    return ", ".join(differences)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
