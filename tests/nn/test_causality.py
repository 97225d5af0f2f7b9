"""Every module that claims causality: change x[t + 1], and outputs up to t stay bit for bit."""

import contextlib
from functools import partial

import pytest
import torch

from pyseq.nn import (
    AdaptiveAttention,
    CosineAttention,
    ExponentialSmoothingAttention,
    FourierAttention,
    HardAttention,
    MemoryTokens,
    PatchEmbedding,
    RotaryEmbedding,
    ScaleAwareHead,
    SwiGLU,
)

WIDTH = 32
ROPE = RotaryEmbedding(8)


class AfterMemory(torch.nn.Module):
    """Causal attention over memory tokens and then the sequence."""

    def __init__(self):
        super().__init__()
        self.memory = MemoryTokens(5, WIDTH)
        self.attention = CosineAttention(WIDTH, 4, 2, rope=ROPE, window=9, prefix=5)

    def forward(self, x):
        return self.memory.remove(self.attention(self.memory(x)))


CAUSAL = {
    "cosine": partial(CosineAttention, WIDTH, 4, 2),
    "cosine_rope_window": partial(CosineAttention, WIDTH, 4, 2, rope=ROPE, window=5),
    "cosine_rms": partial(CosineAttention, WIDTH, 4, 2, norm="rms", scale_init=0.2),
    "hard_soft": partial(HardAttention, WIDTH, 4, 2, rope=ROPE, serve="soft"),
    "hard": partial(HardAttention, WIDTH, 4, train="straight_through", rope=ROPE),
    "hard_adaptive": partial(HardAttention, WIDTH, 4, 2, serve="adaptive"),
    "adaptive": partial(AdaptiveAttention, WIDTH, 4, 2, train="adaptive", rope=ROPE),
    "smoothing": partial(ExponentialSmoothingAttention, WIDTH, 4),
    "smoothing_trend": partial(ExponentialSmoothingAttention, WIDTH, 4, trend=True),
    "fourier": partial(FourierAttention, WIDTH),
    "memory_prefix": AfterMemory,
    "memory_gate": partial(MemoryTokens, 5, WIDTH, read="gate"),
    "swiglu": partial(SwiGLU, WIDTH, 40),
    "head": partial(ScaleAwareHead, WIDTH, 100, scales=(1, 10)),
}
T = 140  # past every block border: 64 of Fourier mixing, 128 query rows of the attentions


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("make", CAUSAL.values(), ids=CAUSAL)
def test_the_future_does_not_matter(make, training, autocast):
    torch.manual_seed(0)
    layer = make().train(training)
    x = torch.randn(2, T, WIDTH)
    mode = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.no_grad(), mode:
        before = layer(x)
        for t in (0, 15, 62, 63, 64, 127, 138):
            changed = x.clone()
            changed[:, t + 1 :] = torch.randn(2, T - t - 1, WIDTH)
            after = layer(changed)
            assert torch.equal(before[:, : t + 1], after[:, : t + 1])
            assert not torch.equal(before[:, t + 1], after[:, t + 1])


def refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        PatchEmbedding(8, WIDTH, causal=True, **options)


def test_what_cannot_be_causal_is_refused_with_the_reason():
    refused({"normalise": True}, "mean")
    refused({"stride": 4}, "predict")
    PatchEmbedding(8, WIDTH, causal=True)


@pytest.mark.parametrize(
    "make",
    [
        partial(CosineAttention, WIDTH, 4, 2, causal=False),
        partial(HardAttention, WIDTH, 4, causal=False),
        partial(AdaptiveAttention, WIDTH, 4, causal=False),
    ],
)
def test_the_perturbation_shows_where_nothing_is_claimed(make):
    """The test above would fail for a layer that looks ahead."""
    layer = make().eval()
    x = torch.randn(2, 40, WIDTH)
    changed = x.clone()
    changed[:, 20] += 1
    assert not torch.equal(layer(x)[:, :20], layer(changed)[:, :20])
