"""A stack of models that answer from tables, for tests of what reads models' answers."""

import torch
from torch import nn


class LookupModel(nn.Module):
    """Seed s gives the token after what it has read so far by `answers[s]`, EOS (1) where none is.

    Args:
        answers (list of dict): for each seed, from tokens read to the next token, or to
            probabilities of all classes.
        classes (int): tokens.
    """

    def __init__(self, answers, classes=5):
        super().__init__()
        self.answers, self.seeds, self.classes = answers, len(answers), classes
        self.weight = nn.Parameter(torch.zeros(self.seeds))
        self.calls = 0

    def new_cache(self):
        return []

    def forward(self, tokens, *, cache=None):
        """tokens (S, B, T) to log-probabilities (S, B, T, classes)."""
        assert not self.training, "decoding and validation are without dropout"
        self.calls += 1
        before = cache[0] if cache else tokens[..., :0]
        read = torch.cat([before, tokens], -1)
        if cache is not None:
            cache[:] = [read]
        log_p = torch.empty(*tokens.shape, self.classes)
        for s, rows in enumerate(read.tolist()):
            for b, row in enumerate(rows):
                for t in range(tokens.shape[-1]):
                    so_far = tuple(row[: before.shape[-1] + t + 1])
                    log_p[s, b, t] = self._answer(s, so_far)
        return log_p

    def next_logits(self, tokens, *, cache=None):
        return self(tokens, cache=cache)[:, :, -1]

    def attention(self, tokens):
        return []

    def _answer(self, seed, read):
        answer = self.answers[seed].get(read, 1)
        if isinstance(answer, int):
            answer = [float(k == answer) for k in range(self.classes)]
        return torch.tensor(answer).clamp(min=1e-9).log()
