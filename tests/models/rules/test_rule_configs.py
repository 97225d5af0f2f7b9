"""Options that do not fit are refused in one sentence."""

import pytest

from pyseq.errors import UserError
from pyseq.models.rules import LinearConfig, LSTMConfig, TransformerConfig


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TransformerConfig(heads=3), "3 heads do not divide width 10"),
        (lambda: TransformerConfig(heads=0), "heads is 0; at least 1 fits"),
        (lambda: TransformerConfig(heads=10, positions="rope"), "an even number fits"),
        (lambda: TransformerConfig(dropout=1.0), "dropout is 1.0; 0 to below 1 fits"),
        (lambda: TransformerConfig(norm_eps=0.0), "norm_eps is 0.0; a positive number fits"),
        (
            lambda: TransformerConfig(positions="learned"),
            "positions is learned; one of none, sinusoidal, rope, relative fits",
        ),
        (
            lambda: TransformerConfig(positions="relative", attention="cosine"),
            "attention cosine has none",
        ),
        (lambda: LSTMConfig(bidirectional=True), "reads the next token"),
        (lambda: LSTMConfig(cell="gru", peephole=True), "gru"),
        (lambda: LSTMConfig(cell="rnn"), "one of lstm, gru fits"),
        (
            lambda: LSTMConfig(attention="cosine", attention_heads=5),
            "5 heads do not divide hidden 64",
        ),
        (lambda: LinearConfig(residual=True), "layers is 1; at least 2 fits"),
        (lambda: LinearConfig(variant="causal"), "one of official, fixed fits"),
    ],
)
def test_options_that_do_not_fit(make, words):
    with pytest.raises(UserError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)
