"""What a grammar is here: words, two rules, prompts that keep or break the second, and a floor."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import ClassVar, Literal

import numpy as np

from pyseq.errors import UserError

SOS, EOS, PAD = 0, 1, 2
SPECIAL = "^$_"  # how SOS, EOS and PAD are written when they stand inside a decoded text
WORDS_AT_MOST = 200_000
PROMPTS_AT_MOST = 2**16

Part = Literal["train", "validation"]
# second half of the seed, so that training, validation and prompts never share a generator
PARTS = {"train": 0, "validation": 1, "prompts": 2}


@dataclass(frozen=True)
class Floor:
    """The least mean cross-entropy that any model can reach on the words of a grammar.

    Args:
        nats_per_target (float): entropy of a word in nats, over max_length + 1 targets: the
            symbols, EOS and the PAD after it, which costs nothing once EOS is there.
        standard_error (float): 0 when the entropy is computed, not sampled.
    """

    nats_per_target: float
    standard_error: float = 0.0

    @property
    def exact(self) -> bool:
        """True when the number is computed, not sampled."""
        return self.standard_error == 0.0


@dataclass(frozen=True)
class Prompts:
    """Beginnings to complete, all of one length.

    Args:
        in_distribution (list of str): they can be completed to a word of the grammar.
        out_of_distribution (list of str): they cannot, but rule 1 can still be kept.
    """

    in_distribution: list[str]
    out_of_distribution: list[str]


class Grammar(ABC):
    """A formal language with a law of drawing its words and, mostly, two rules that define it.

    A word is a str of the grammar's symbols, without special tokens. Symbol i has token 3 + i.
    In a decoded text SOS, EOS and PAD are written ^, $ and _; the rules look past them.

    A word obeys rule 1 and rule 2 exactly when it is in the language, but for the empty word,
    which no language here holds, and for nested brackets, where ([)] obeys both.

    Source: Meszaros et al. 2024, Rule Extrapolation in Language Models (arXiv 2409.13728), and
    the authors' published code for what the paper leaves open.
    """

    name: ClassVar[str]
    label: ClassVar[str] = ""  # the paper's, "" where it has none
    symbols: ClassVar[str]
    language: ClassVar[str]
    rules: ClassVar[tuple[str, str]]  # in words, "" where there is none
    enumerated: ClassVar[bool] = False  # every word once is training, validation and test set
    prompt_length: ClassVar[int] = 8
    shortest: ClassVar[int]  # symbols of the shortest word

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def classes(self) -> int:
        """Tokens: three special ones and the symbols."""
        return 3 + len(self.symbols)

    # words

    def words(self, max_length: int) -> list[str]:
        """All words of the language, shortest first.

        Args:
            max_length (int): most symbols in a word.

        Returns:
            list of str, those that `sample` never draws among them.

        Raises:
            UserError: max_length is below the shortest word, or there are more than 200000 words.
        """
        self._check_length(max_length)
        words = list(islice(self._words(max_length), WORDS_AT_MOST + 1))
        if len(words) > WORDS_AT_MOST:
            raise UserError(
                f"{self.name} has more than {WORDS_AT_MOST} words up to length {max_length};"
                " list them up to a smaller length, or sample"
            )
        return words

    def sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        """Words drawn independently by the grammar's law.

        Args:
            count (int): how many words, at least 0.
            max_length (int): most symbols in a word.
            generator (numpy Generator): advanced by the draws.

        Returns:
            list of str, length count; the same word may come twice.

        Raises:
            UserError: count is negative, or max_length is below the shortest word.
        """
        self._check_length(max_length)
        if count < 0:
            raise UserError(f"{self.name}: {count} words cannot be drawn; 0 and more fit")
        return self._sample(count, max_length, generator) if count else []

    def data(self, count: int, max_length: int, seed: int, part: Part = "train") -> list[str]:
        """The words of a data set.

        Args:
            count (int): words to draw; without effect in an enumerated grammar.
            max_length (int): most symbols in a word.
            seed (int): at least 0.
            part ("train" | "validation"): the two parts are drawn apart from each other.

        Returns:
            list of str: all words where the grammar is enumerated, otherwise a sample.

        Raises:
            UserError: as `words` and `sample`.
        """
        if self.enumerated:
            return self.words(max_length)
        return self.sample(count, max_length, np.random.default_rng([seed, PARTS[part]]))

    def log_probability(self, word: str, max_length: int) -> float:
        """ln P(word) of one draw of `sample`, exactly.

        Args:
            word (str): symbols of the grammar.
            max_length (int): as the words are drawn.

        Returns:
            float, nats; -inf for what is never drawn.

        Raises:
            UserError: max_length is below the shortest word.
        """
        self._check_length(max_length)
        if len(word) > max_length or not self.contains(word):
            return -math.inf
        return self._log_probability(word, max_length)

    @abstractmethod
    def entropy(self, max_length: int) -> float:
        """H of one draw of `sample` in nats, computed exactly.

        Args:
            max_length (int): as the words are drawn.

        Raises:
            UserError: max_length is below the shortest word.
        """

    def loss_floor(self, max_length: int) -> Floor:
        """The entropy of a word over its max_length + 1 targets, PAD counted.

        Args:
            max_length (int): as the words are drawn; also the length they are padded to.

        Raises:
            UserError: max_length is below the shortest word.
        """
        return Floor(self.entropy(max_length) / (max_length + 1))

    # rules

    def contains(self, word: str) -> bool:
        """Whether word is in the language, at any length; False with any special token inside."""
        known = bool(word) and set(word) <= set(self.symbols)
        return known and self.rule_1(word) and self.rule_2(word)

    @abstractmethod
    def rule_1(self, word: str) -> bool:
        """Whether the text obeys rule 1; True where the grammar has none."""

    @abstractmethod
    def rule_2(self, word: str) -> bool:
        """Whether the text obeys rule 2; True where the grammar has none."""

    def rule_2_completion(self, prompt: str, whole: str) -> bool:
        """Whether the completion alone obeys rule 2, which no prompt out of distribution does.

        Args:
            prompt (str): what was given.
            whole (str): prompt and completion.
        """
        return self.rule_2(whole[len(prompt) :])

    # prompts

    @abstractmethod
    def can_be_completed(self, prompt: str) -> bool:
        """Whether some word of the language, of any length, begins with the prompt, not empty."""

    def prompts(self, *, length: int | None = None, seed: int = 0) -> Prompts:
        """The beginnings that a model is asked to complete.

        Args:
            length (int): symbols of each prompt; None is `prompt_length`.
            seed (int): for grammars that draw their prompts.

        Returns:
            Prompts.

        Raises:
            UserError: no prompts of that length, or more than 65536.
        """
        length = self.prompt_length if length is None else length
        if length < 1 or len(self.symbols) ** length > PROMPTS_AT_MOST:
            raise UserError(
                f"{self.name} has no usable set of prompts of length {length}; all"
                f" {len(self.symbols)}^length strings are used, of which 1 to {PROMPTS_AT_MOST} fit"
            )
        prompts = ["".join(symbols) for symbols in product(self.symbols, repeat=length)]
        return Prompts(
            [prompt for prompt in prompts if self.can_be_completed(prompt)],
            [prompt for prompt in prompts if not self.can_be_completed(prompt)],
        )

    # tokens

    def encode(self, word: str) -> list[int]:
        """Tokens of a text; ^, $ and _ stand for SOS, EOS and PAD.

        Raises:
            UserError: a character that is none of the grammar's.
        """
        known = SPECIAL + self.symbols
        for character in word:
            if character not in known:
                raise UserError(
                    f"{self.name}: {character!r} in {word!r} is no symbol; {self.symbols!r} are"
                )
        return [known.index(character) for character in word]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens, the inverse of `encode`.

        Raises:
            UserError: a token outside 0..classes - 1.
        """
        known = SPECIAL + self.symbols
        numbers = [int(token) for token in tokens]
        if any(not 0 <= number < len(known) for number in numbers):
            raise UserError(f"{self.name}: tokens lie in 0..{len(known) - 1}; {numbers} came")
        return "".join(known[number] for number in numbers)

    # what a grammar fills in

    @abstractmethod
    def _words(self, max_length: int) -> Iterator[str]:
        """All words, shortest first."""

    @abstractmethod
    def _sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        """`sample` with checked arguments."""

    @abstractmethod
    def _log_probability(self, word: str, max_length: int) -> float:
        """`log_probability` of a word of the language with at most max_length symbols."""

    def _check_length(self, max_length: int) -> None:
        if max_length < self.shortest:
            raise UserError(
                f"{self.name} has no word of at most {max_length} symbols;"
                f" a maximum length of {self.shortest} and more fits"
            )


def texts(codes: np.ndarray, lengths: Sequence[int] | np.ndarray) -> list[str]:
    """Rows of ASCII codes (N, L) uint8, cut at lengths (N,), as str."""
    return [
        row[:length].tobytes().decode("ascii") for row, length in zip(codes, lengths, strict=True)
    ]


def ordered(text: str, symbols: str) -> bool:
    """Whether the symbols come in blocks of this order; other characters are looked past."""
    seen = [symbols.index(character) for character in text if character in symbols]
    return seen == sorted(seen)
