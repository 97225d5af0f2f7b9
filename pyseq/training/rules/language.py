"""What a model is trained and tested on: words as tokens, and prompts to complete."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyseq.analysis.rules import Completion, RuleScores, greedy_completions, score
from pyseq.data.grammars import (
    EOS,
    PAD,
    SOS,
    Grammar,
    JointVocabulary,
    Prompts,
    find_grammar,
    padded,
)
from pyseq.errors import UserError
from pyseq.models.rules import RuleModel
from pyseq.training.rules.completions import plan_prompts
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.words import WordPool


class Language:
    """A grammar as a model meets it, alone or beside others in a joint vocabulary.

    Args:
        grammars (sequence of Grammar): that the model learns.
        max_length (int): symbols of the longest word.
        prompts (Prompts): all of one length.
        strategy (str): as for `plan_prompts`.
        tested (Grammar | None): whose prompts these are; None: the first one's.

    Attributes:
        grammar (Grammar): that is tested.
        prompts (Prompts): that are tested.
        trained (tuple of (str, str)): prompts and completions that are trained on.
        classes (int): tokens of the model.
        symbols_end (int): one more than the highest symbol's token.
        model_length (int): `max_length` of the model: one more where a task token is read.
        vocabulary (JointVocabulary | None): where there are others.
    """

    def __init__(self, grammars: Sequence[Grammar], max_length: int, prompts: Prompts,
                 strategy: str = "plain", tested: Grammar | None = None):  # fmt: skip
        grammar = grammars[0] if tested is None else tested
        plan = plan_prompts(grammar, prompts, strategy)
        self.grammar, self.max_length = grammar, max_length
        self.prompts, self.trained = plan.tested, plan.trained
        self._grammars = tuple(grammars)
        self.vocabulary = JointVocabulary(grammars) if len(grammars) > 1 else None
        joint = self.vocabulary
        self.classes = grammar.classes if joint is None else joint.classes
        self.symbols_end = 3 + len(grammar.symbols if joint is None else joint.symbols)
        self.model_length = max_length + (joint is not None)
        for prompt, completion in self.trained:
            if len(prompt + completion) > max_length:
                raise UserError(
                    f"the completion {completion} of {prompt} is longer than --max_length"
                    f" {max_length}"
                )

    @staticmethod
    def of(config: RulesConfig) -> "Language":
        """What a resolved config trains on; raises UserError where the prompts do not fit."""
        grammar = find_grammar(config.grammar)
        chosen = (name for name in ("progressive", "oracle", "adversarial")
                  if getattr(config, name))  # fmt: skip
        return Language(
            [grammar, *(find_grammar(name) for name in config.multi_task)],
            config.max_length,
            grammar.prompts(length=config.prompt_length),
            next(chosen, "plain"),
        )

    @property
    def start(self) -> list[int]:
        """Tokens before every word, which are given and no targets: SOS, and the task's."""
        return [SOS] if self.vocabulary is None else self.vocabulary.prefix(self.grammar)

    def encode(self, word: str) -> list[int]:
        """Tokens of a text of the grammar, without those of `start`."""
        if self.vocabulary is None:
            return self.grammar.encode(word)
        return self.vocabulary.encode(self.grammar, word)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens; symbols of other grammars stay what they are."""
        if self.vocabulary is None:
            return self.grammar.decode(tokens)
        return self.vocabulary.decode(self.grammar, tokens)

    def training_pools(self, count: int, seeds: Sequence[int]) -> list[WordPool]:
        """Training words of every grammar and seed.

        Args:
            count (int): of each seed, where words are drawn.
            seeds (sequence of int): that words are drawn with.

        Returns:
            list of WordPool: one for each grammar.
        """
        return [self._pool(grammar, count, seeds, "train") for grammar in self._grammars]

    def validation_tokens(self, count: int, seeds: Sequence[int]) -> Tensor:
        """Validation words of the grammar that is tested, (S, N, L), uint8."""
        return self._pool(self.grammar, count, seeds, "validation").tokens

    def _pool(self, grammar: Grammar, count: int, seeds: Sequence[int], part: Any) -> WordPool:
        # An enumerated grammar has the same words for every seed.
        drawn = seeds[:1] if grammar.enumerated else seeds
        words = [grammar.data(count, self.max_length, seed, part) for seed in drawn]
        tokens = torch.stack([self._padded(grammar, each).to(torch.uint8) for each in words])
        lengths = np.array([[len(word) for word in each] for each in words])
        return WordPool(
            tokens.expand(len(seeds), -1, -1),
            np.broadcast_to(lengths, (len(seeds), lengths.shape[1])),
        )

    def _padded(self, grammar: Grammar, words: list[str]) -> Tensor:
        if self.vocabulary is None:
            return padded(grammar, words, self.max_length)
        return self.vocabulary.padded(grammar, words, self.max_length)

    def completion_batch(self) -> tuple[Tensor, Tensor]:
        """Trained prompts with their completions, and which targets are the completions'.

        Returns:
            tuple (Tensor (P, L), int64; Tensor (P, L - 1), bool): start, prompt, completion, EOS,
            PAD; true at the targets that are a completion's tokens or its EOS. P may be 0.
        """
        rows = [[*self.start, *self.encode(p + c), EOS] for p, c in self.trained]
        longest = max(map(len, rows), default=1)
        tokens = torch.full((len(rows), longest), PAD)
        counted = torch.zeros(len(rows), longest - 1, dtype=torch.bool)
        for i, (row, (prompt, _)) in enumerate(zip(rows, self.trained, strict=True)):
            tokens[i, : len(row)] = torch.tensor(row)
            counted[i, len(self.start) + len(prompt) - 1 : len(row) - 1] = True
        return tokens, counted

    def completions(
        self, model: RuleModel, *, average: bool = False
    ) -> list[tuple[list[Completion], list[Completion]]]:
        """Greedy completions of every seed: of prompts in and out of distribution.

        Args:
            model (RuleModel): S seeds.
            average (bool): decode as one, with the seeds' probabilities averaged at every step.

        Returns:
            list of pairs of lists of Completion: of each seed, or of the one average.
        """
        inside, outside = self.prompts.in_distribution, self.prompts.out_of_distribution
        # In one batch: a step costs much the same for many prompts as for few.
        found = greedy_completions(
            model, self.grammar, [*inside, *outside], max_length=self.max_length, average=average,
            vocabulary=self.vocabulary,
        )  # fmt: skip
        return [(row[: len(inside)], row[len(inside) :]) for row in found]

    def scores(self, model: RuleModel, *, average: bool = False) -> list[RuleScores]:
        """`RuleScores` of `completions`."""
        return [score(self.grammar, *both) for both in self.completions(model, average=average)]
