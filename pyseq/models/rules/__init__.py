"""Models that learn grammars, several seeds of one kind at a time."""

from pyseq.models.rules.build import MODELS, build_rule_model
from pyseq.models.rules.linear import Linear, LinearConfig
from pyseq.models.rules.lstm import LSTM, LSTMConfig
from pyseq.models.rules.rule_model import Description, RuleModel
from pyseq.models.rules.stack_file import load_stack, save_stack
from pyseq.models.rules.transformer import Transformer, TransformerConfig

__all__ = [
    "LSTM",
    "MODELS",
    "Description",
    "LSTMConfig",
    "Linear",
    "LinearConfig",
    "RuleModel",
    "Transformer",
    "TransformerConfig",
    "build_rule_model",
    "load_stack",
    "save_stack",
]
