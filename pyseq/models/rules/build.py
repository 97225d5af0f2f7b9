"""A stack of models from its config."""

from collections.abc import Sequence
from typing import Any

from pyseq.models.rules.linear import Linear, LinearConfig
from pyseq.models.rules.lstm import LSTM, LSTMConfig
from pyseq.models.rules.rule_model import RuleModel
from pyseq.models.rules.transformer import Transformer, TransformerConfig

KINDS: tuple[tuple[type, type[RuleModel]], ...] = (
    (TransformerConfig, Transformer),
    (LSTMConfig, LSTM),
    (LinearConfig, Linear),
)
MODELS: dict[str, type] = {model.kind: config for config, model in KINDS}


def build_rule_model(
    config: Any, *, classes: int, max_length: int, seeds: Sequence[int]
) -> RuleModel:
    """Make a stack with fresh parameters; those of a seed do not depend on the others.

    Args:
        config (one of the values of `MODELS`): what kind of model, its sizes and options.
        classes (int): tokens that are told apart, SOS, EOS and PAD included.
        max_length (int): symbols of the longest word.
        seeds (sequence of int): one for every model of the stack.

    Returns:
        RuleModel: in training mode, on the CPU.

    Raises:
        TypeError: the config is none of those known.
        ValueError: there is no seed, class or symbol.
    """
    model_type = dict(KINDS).get(type(config))
    if model_type is None:
        known = ", ".join(config_type.__name__ for config_type, _ in KINDS)
        raise TypeError(f"build_rule_model: config is a {type(config).__name__}; {known} fit")
    model = model_type(config, classes=classes, max_length=max_length, seeds=seeds)
    model.draw_parameters()
    return model
