"""Batches of words for a stack of seeds: what each seed reads depends on its number and the step
alone, so that a seed reads the same in every stack, and after every interruption."""

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyseq.errors import UserError

# Apart from the numbers with which grammars draw their words.
ORDER, REPLACEMENT = 0x0DE5, 0xA06


class WordPool:
    """The training words of one grammar.

    Args:
        tokens (Tensor (S, N, L), int64): of every seed: SOS, word, EOS, PAD; it may be expanded.
        lengths (array (S, N), int64): symbols of every word.
    """

    def __init__(self, tokens: Tensor, lengths: np.ndarray):
        self.tokens, self.lengths = tokens, lengths

    def __len__(self) -> int:
        return self.tokens.shape[1]


class Curriculum:
    """Up to which length words are read, epoch by epoch.

    Args:
        lengths (sequence of int): longest word of each early phase.
        epochs (sequence of int): when each of them ends; rising.
    """

    def __init__(self, lengths: Sequence[int] = (), epochs: Sequence[int] = ()):
        self.lengths, self.epochs = list(lengths), list(epochs)

    def longest(self, epoch: int) -> int | None:
        """Symbols of the longest word that `epoch` may read; None: all words."""
        phase = bisect.bisect_right(self.epochs, epoch)
        return self.lengths[phase] if phase < len(self.lengths) else None

    @property
    def last_begins(self) -> int:
        """The first epoch that reads all words."""
        return self.epochs[-1] if self.epochs else 0


class WordBatches:
    """The batches of a whole training, the same number of words for every seed.

    An epoch is as many batches as the first grammar's words need; where a curriculum allows fewer
    words, they come in it more than once.

    Args:
        pools (sequence of WordPool): one for each grammar; each batch has equally many of each.
        seeds (sequence of int): of the stack.
        batch (int): words of a batch and seed.
        steps (int): batches of the whole training.
        curriculum (Curriculum): which words are read when.
        device (torch.device): where batches lie.

    Attributes:
        active (list of int): places in `seeds` of those that are still trained.
        steps_per_epoch (int): batches of an epoch.

    Raises:
        UserError: a batch is smaller than the number of grammars, or a phase of the curriculum
            has no word for some seed.
    """

    def __init__(self, pools: Sequence[WordPool], seeds: Sequence[int], batch: int, steps: int,
                 curriculum: Curriculum, device: torch.device):  # fmt: skip
        if batch < len(pools):
            raise UserError(f"--batch {batch} is less than one word of each of {len(pools)}"
                            " grammars")  # fmt: skip
        self.pools, self.seeds, self.steps = pools, list(seeds), steps
        self.curriculum, self.device = curriculum, device
        self.active = list(range(len(seeds)))
        self.served = 0
        self._rows = batch // len(pools)
        self.steps_per_epoch = -(-len(pools[0]) // self._rows)
        # Symbols and special tokens are few, and 15,000 words of int64 would take 30 MiB a seed.
        self._tokens = [pool.tokens.to(torch.uint8).to(device) for pool in pools]
        self._orders: tuple[int, list[list[np.ndarray]]] = (-1, [])
        for longest in curriculum.lengths:
            for pool in pools:
                if (pool.lengths > longest).all(1).any():
                    raise UserError(f"--curriculum_lengths {longest}: a seed has no word so short")

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return step // self.steps_per_epoch

    def tokens(self, step: int) -> Tensor:
        """What the active seeds read at a step.

        Args:
            step (int): from 0.

        Returns:
            Tensor (S, B, L), int64: an epoch's last batch has fewer words.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        rows = slice(batch * self._rows, min((batch + 1) * self._rows, len(self.pools[0])))
        seeds = torch.tensor(self.active, device=self.device)[:, None]
        parts = []
        for pool, orders in zip(self._tokens, self._epoch_orders(epoch), strict=True):
            chosen = np.stack([orders[place][rows] for place in self.active])
            parts.append(pool[seeds, torch.from_numpy(chosen).to(self.device)])
        return torch.cat(parts, 1).long()

    def _epoch_orders(self, epoch: int) -> list[list[np.ndarray]]:
        """For each pool and seed the indices of the words of an epoch, in their order."""
        if self._orders[0] != epoch:
            longest = self.curriculum.longest(epoch)
            orders = [
                [
                    _order(
                        [ORDER, seed, number, epoch],
                        pool.lengths[place],
                        longest,
                        len(self.pools[0]),
                    )
                    for place, seed in enumerate(self.seeds)
                ]
                for number, pool in enumerate(self.pools)
            ]
            self._orders = (epoch, orders)
        return self._orders[1]

    def keep(self, which: Sequence[int]) -> None:
        """Go on with these of the active seeds only, by their place in the stack."""
        self.active = [self.active[place] for place in which]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.served < self.steps:
            step, self.served = self.served, self.served + 1
            yield {"tokens": self.tokens(step), "step": step}

    def state_dict(self) -> dict[str, Any]:
        """How far the training is."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.served = state["served"]


def _order(key: list[int], lengths: np.ndarray, longest: int | None, count: int) -> np.ndarray:
    """`count` indices of words that are short enough: shuffled, and again once all have come."""
    generator = np.random.default_rng(key)
    allowed = np.arange(len(lengths)) if longest is None else np.flatnonzero(lengths <= longest)
    rounds = [generator.permutation(allowed) for _ in range(-(-count // len(allowed)))]
    return np.concatenate(rounds)[:count]


def replace_symbols(
    tokens: Tensor, share: float, *, seeds: Sequence[int], step: int, special: int, classes: int
) -> Tensor:
    """Replace a share of the symbols by ones drawn evenly; other tokens, tasks' too, stay.

    Args:
        tokens (Tensor (S, B, T), int64): of the seeds.
        share (float): probability of each symbol to be drawn anew, from 0 to 1.
        seeds (sequence of S int): each has random numbers of its own.
        step (int): of the training; each has random numbers of its own.
        special (int): tokens below this are no symbols.
        classes (int): one more than the highest symbol's token.

    Returns:
        Tensor (S, B, T), int64: a copy.
    """
    shape = tokens.shape[1:]
    drawn, chance = [], []
    for seed in seeds:
        generator = np.random.default_rng([REPLACEMENT, seed, step])
        drawn.append(generator.integers(special, classes, shape))
        chance.append(generator.random(shape))
    symbols = (tokens >= special) & (tokens < classes)
    replaced = torch.from_numpy(np.stack(chance) < share).to(tokens.device) & symbols
    return torch.where(replaced, torch.from_numpy(np.stack(drawn)).to(tokens.device), tokens)
