"""Models that learn grammars, several seeds of one kind at a time."""

from pyseq.models.rules.build import MODELS, build_rule_model
from pyseq.models.rules.lstm import LSTM, LSTMConfig
from pyseq.models.rules.rule_model import Description, RuleModel
from pyseq.models.rules.transformer import Transformer, TransformerConfig

__all__ = [
    "LSTM",
    "MODELS",
    "Description",
    "LSTMConfig",
    "RuleModel",
    "Transformer",
    "TransformerConfig",
    "build_rule_model",
]
