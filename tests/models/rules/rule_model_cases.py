"""The models that the tests of this folder go through."""

import torch

from pyseq.models.rules import LinearConfig, LSTMConfig, TransformerConfig, build_rule_model

SMALL = {"layers": 2, "feed_forward": 16, "dropout": 0.0}
CAUSAL = {
    "transformer": TransformerConfig(**SMALL),
    "pre-norm": TransformerConfig(**SMALL, norm="pre", activation="gelu"),
    "rope": TransformerConfig(**SMALL, positions="rope"),
    "relative": TransformerConfig(**SMALL, positions="relative", reach=3),
    "sinusoidal": TransformerConfig(**SMALL, positions="sinusoidal", init="normal"),
    "cosine": TransformerConfig(**SMALL, attention="cosine", positions="rope"),
    "hard": TransformerConfig(**SMALL, attention="hard", positions="sinusoidal"),
    "lstm": LSTMConfig(hidden=8, layers=2, dropout=0.0),
    "gru": LSTMConfig(hidden=8, layers=2, dropout=0.0, cell="gru"),
    "residual lstm": LSTMConfig(hidden=8, layers=3, dropout=0.0, residual=True),
    "layer-norm lstm": LSTMConfig(hidden=8, layers=2, dropout=0.0, layer_norm=True),
    "peephole lstm": LSTMConfig(hidden=8, layers=2, dropout=0.0, peephole=True, residual=True),
    "lstm with softmax": LSTMConfig(hidden=8, layers=2, dropout=0.0, attention="softmax"),
    "lstm with cosine": LSTMConfig(hidden=8, layers=2, dropout=0.0, attention="cosine"),
    "fixed linear": LinearConfig(embedding=4, variant="fixed"),
    "fixed linear, no bias": LinearConfig(embedding=4, variant="fixed", bias=False, init="normal"),
    "position-wise network": LinearConfig(
        embedding=4,
        variant="fixed",
        init="normal",
        layers=3,
        layer_norm=True,
        residual=True,
        activation="relu",
    ),
}
OFFICIAL_LINEAR = LinearConfig(embedding=4)
ALL = {**CAUSAL, "official linear": OFFICIAL_LINEAR}
DROPPING = {name: config for name, config in ALL.items() if hasattr(config, "dropout")}
CLASSES, MAX_LENGTH = 5, 11


def build(config, seeds=(3, 5), max_length=MAX_LENGTH):
    """A stack in evaluation mode, whose parameters all are away from 0 and 1."""
    model = build_rule_model(config, classes=CLASSES, max_length=max_length, seeds=seeds).eval()
    # what begins at 0 (biases, tables of distances) would hide a part that is left out
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for piece, number in zip(parameter, model.seed_numbers, strict=True):
                generator = torch.Generator().manual_seed(number + len(name))
                piece += 0.1 * torch.randn(piece.shape, generator=generator)
    return model


def words(S, B=4, T=MAX_LENGTH + 1, *, pads=True, seed=0):
    """Tokens (S, B, T) of no special kind, with tails of PAD of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, CLASSES, (S, B, T), generator=generator)
    tokens[:, :, 0] = 0
    if pads:
        for b in range(B):
            end = T - 2 * b
            tokens[:, b, end:] = 2
            tokens[:, b, end - 1] = 1
    return tokens
