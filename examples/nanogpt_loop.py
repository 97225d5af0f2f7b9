"""A training loop in nanoGPT's style that gets its batches from pyseq.

    python examples/nanogpt_loop.py STREAM.u16 [STEPS]

STREAM.u16 holds 16-bit tokens; `pyseq data text` makes such a file from text. What nanoGPT has in
`get_batch`, one random slice per sample, becomes a loader with exact epochs that goes on where it
was when the loop is started again.
"""

import sys
from itertools import chain, islice, repeat
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pyseq.data import U16Stream, WindowLoader

BLOCK, BATCH, WIDTH, VOCABULARY = 128, 16, 64, 65_536


class GPT(nn.Module):
    """Somebody's model: tokens (B, T) int64 to logits (B, T, V)."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(BLOCK, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.register_buffer("hidden", nn.Transformer.generate_square_subsequent_mask(BLOCK))

    def forward(self, x):
        x = self.tokens(x) + self.places.weight[: x.shape[1]]
        return self.layers(x, mask=self.hidden, is_causal=True) @ self.tokens.weight.T


def train(path: str, steps: int, checkpoint: Path = Path("nanogpt_loop.pt")) -> list[float]:
    """Losses in nats of the steps that were made now."""
    torch.manual_seed(0)
    model, losses = GPT(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # Fifteen lines from here: the data, the loop, and a checkpoint in the middle of an epoch.
    loader = WindowLoader(U16Stream(path), BLOCK + 1, BATCH)
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
    for batch in islice(chain.from_iterable(repeat(loader)), steps):  # epoch after epoch
        x, y = batch["window"][:, :-1], batch["window"][:, 1:]
        loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "loader": loader.state_dict()}, checkpoint)
    return losses


if __name__ == "__main__":
    for step, loss in enumerate(train(sys.argv[1], int((sys.argv[2:] or ["100"])[0]))):
        if step % 10 == 0:
            print(f"step {step}: {loss:.3f} nats")
