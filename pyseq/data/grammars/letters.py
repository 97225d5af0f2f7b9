"""Languages of a's, b's and c's."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import combinations
from typing import ClassVar

import numpy as np

from pyseq.data.grammars.grammar import PARTS, PROMPTS_AT_MOST, Grammar, Prompts, ordered, texts
from pyseq.errors import UserError

A, B = b"ab"


def log_binomial(n: int, k: int) -> float:
    """ln of n over k."""
    return math.log(math.comb(n, k))


class Repeated(Grammar):
    """One word of blocks of n symbols for every n = 1, 2, ...; drawn uniformly."""

    enumerated: ClassVar[bool] = True
    blocks: ClassVar[str]  # the word of n = 1

    def _word(self, n: int) -> str:
        return "".join(symbol * n for symbol in self.blocks)

    def _count(self, max_length: int) -> int:
        return max_length // len(self.blocks)

    def _words(self, max_length: int) -> Iterator[str]:
        return (self._word(n) for n in range(1, self._count(max_length) + 1))

    def _sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        drawn = generator.integers(1, self._count(max_length) + 1, count)
        return [self._word(n) for n in drawn.tolist()]

    def _log_probability(self, word: str, max_length: int) -> float:
        return -math.log(self._count(max_length))

    def entropy(self, max_length: int) -> float:
        self._check_length(max_length)
        return math.log(self._count(max_length))

    def can_be_completed(self, prompt: str) -> bool:
        # if any word begins so, one of n <= len(prompt) does
        return any(self._word(n).startswith(prompt) for n in range(1, len(prompt) + 1))


class ANBN(Repeated):
    """As many b's after the a's as there are a's."""

    name, label = "aNbN", "L3"
    symbols, blocks, shortest = "ab", "ab", 2
    language = "a^n b^n, n >= 1"
    rules = ("as many a's as b's", "a's before b's")

    def rule_1(self, word: str) -> bool:
        return word.count("a") == word.count("b")

    def rule_2(self, word: str) -> bool:
        return ordered(word, "ab")


class ANBNCN(Repeated):
    """Three blocks of one length."""

    name, label = "aNbNcN", "L5"
    symbols, blocks, shortest, prompt_length = "abc", "abc", 3, 5
    language = "a^n b^n c^n, n >= 1"
    rules = ("as many a's as b's as c's", "a's before b's before c's")

    def rule_1(self, word: str) -> bool:
        return word.count("a") == word.count("b") == word.count("c")

    def rule_2(self, word: str) -> bool:
        return ordered(word, "abc")


class ANBNAN(Repeated):
    """A block of b's between two blocks of a's of its length.

    The paper has no rules for it. Ours: twice as many a's as b's; and the b's stand together,
    with as many a's before as after. The second holds where there is no b.
    """

    name = "aNbNaN"
    symbols, blocks, shortest = "ab", "aba", 3
    language = "a^n b^n a^n, n >= 1"
    rules = ("twice as many a's as b's", "b's together, with as many a's before as after")

    def rule_1(self, word: str) -> bool:
        return word.count("a") == 2 * word.count("b")

    def rule_2(self, word: str) -> bool:
        letters = "".join(character for character in word if character in "ab")
        before, after = letters.split("b", 1)[0], letters.rsplit("b", 1)[-1]
        middle = letters[len(before) : len(letters) - len(after)]
        return "b" not in letters or (before == after and "a" not in middle)


class Scattered(Grammar):
    """Languages drawn by length, then by counts, then by order."""

    @abstractmethod
    def _draw(self, count: int, max_length: int, generator: np.random.Generator) -> tuple:
        """Codes (N, max_length) uint8 and lengths (N,)."""

    def _sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        return texts(*self._draw(count, max_length, generator))


def scatter(lengths: np.ndarray, ones: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, L) bool: `ones` True among the first `lengths` places of a row, all choices as likely."""
    place = np.arange(lengths.max(initial=0))
    keys = generator.random((len(lengths), len(place)))
    keys[place >= lengths[:, None]] = 2.0  # past the end, so never among the smallest
    chosen = np.zeros(keys.shape, bool)
    np.put_along_axis(chosen, keys.argsort(axis=1), place < ones[:, None], axis=1)
    return chosen


class ABN(Scattered):
    """As many a's as b's in any order: n uniform on 1..max/2, then shuffled.

    It has no second rule, so every prompt is in distribution.
    """

    name = "abN"
    symbols, shortest = "ab", 2
    language = "as many a's as b's, at least one"
    rules = ("as many a's as b's", "")

    def rule_1(self, word: str) -> bool:
        return word.count("a") == word.count("b")

    def rule_2(self, word: str) -> bool:
        return True

    def _words(self, max_length: int) -> Iterator[str]:
        for n in range(1, max_length // 2 + 1):
            yield from choices(2 * n, n)

    def _draw(self, count: int, max_length: int, generator: np.random.Generator) -> tuple:
        n = generator.integers(1, max_length // 2 + 1, count)
        return np.where(scatter(2 * n, n, generator), A, B).astype(np.uint8), 2 * n

    def _log_probability(self, word: str, max_length: int) -> float:
        return -math.log(max_length // 2) - log_binomial(len(word), len(word) // 2)

    def entropy(self, max_length: int) -> float:
        self._check_length(max_length)
        half = max_length // 2
        return math.log(half) + sum(log_binomial(2 * n, n) for n in range(1, half + 1)) / half

    def can_be_completed(self, prompt: str) -> bool:
        return True


class ANBM(Scattered):
    """a's before b's, of any numbers: length l uniform on 1..max, number of a's uniform on 0..l.

    The authors' generator draws words of one length only; ours draws every length. The paper has
    one rule for it, which is the second of aNbN's.
    """

    name = "aNbM"
    symbols, shortest = "ab", 1
    language = "a^n b^m, n + m >= 1"
    rules = ("", "a's before b's")

    def rule_1(self, word: str) -> bool:
        return True

    def rule_2(self, word: str) -> bool:
        return ordered(word, "ab")

    def _words(self, max_length: int) -> Iterator[str]:
        for length in range(1, max_length + 1):
            yield from ("a" * n + "b" * (length - n) for n in range(length, -1, -1))

    def _draw(self, count: int, max_length: int, generator: np.random.Generator) -> tuple:
        lengths = generator.integers(1, max_length + 1, count)
        first = generator.integers(0, lengths + 1)
        return np.where(np.arange(max_length) < first[:, None], A, B).astype(np.uint8), lengths

    def _log_probability(self, word: str, max_length: int) -> float:
        return -math.log(max_length) - math.log(len(word) + 1)

    def entropy(self, max_length: int) -> float:
        self._check_length(max_length)
        choices = sum(math.log(length + 1) for length in range(1, max_length + 1))
        return math.log(max_length) + choices / max_length

    def can_be_completed(self, prompt: str) -> bool:
        return self.rule_2(prompt)


class BAN(Scattered):
    """b, then anything with an even number of a's.

    Length l uniform on 1..max, pairs of a's uniform on 0..(l - 1) // 2, then shuffled.
    """

    name, label = "baN", "L1"
    symbols, shortest = "ab", 1
    language = "b then any a's and b's, an even number of a's"
    rules = ("an even number of a's", "begins with b")

    def rule_1(self, word: str) -> bool:
        return word.count("a") % 2 == 0

    def rule_2(self, word: str) -> bool:
        return word.removeprefix("^").startswith("b")

    def _words(self, max_length: int) -> Iterator[str]:
        for length in range(1, max_length + 1):
            for ones in range(0, length, 2):
                yield from ("b" + rest for rest in choices(length - 1, ones))

    def _draw(self, count: int, max_length: int, generator: np.random.Generator) -> tuple:
        lengths = generator.integers(1, max_length + 1, count)
        pairs = generator.integers(0, (lengths - 1) // 2 + 1)
        rest = np.where(scatter(lengths - 1, 2 * pairs, generator), A, B).astype(np.uint8)
        return np.pad(rest, ((0, 0), (1, 0)), constant_values=B), lengths

    def _log_probability(self, word: str, max_length: int) -> float:
        rest = len(word) - 1
        order = log_binomial(rest, word.count("a"))
        return -math.log(max_length) - math.log(rest // 2 + 1) - order

    def entropy(self, max_length: int) -> float:
        self._check_length(max_length)
        total = 0.0
        for rest in range(max_length):
            pairs = rest // 2 + 1
            orders = sum(log_binomial(rest, 2 * m) for m in range(pairs))
            total += math.log(pairs) + orders / pairs
        return math.log(max_length) + total / max_length

    def can_be_completed(self, prompt: str) -> bool:
        return prompt.startswith("b")


class BBAN(Scattered):
    """b's, then an even number of a's.

    Length l uniform on 1..max, m uniform on 0..(l - 1) // 2, then b^(l - 2m) a^(2m). Rule 1 counts
    the a's after the last b only, as the paper's evaluation does.
    """

    name, label = "bbaN", "L2"
    symbols, shortest = "ab", 1
    language = "b^n a^(2m), n >= 1, m >= 0"
    rules = ("an even number of a's after the last b", "b's before a's, at least one b")

    def rule_1(self, word: str) -> bool:
        return word.rsplit("b", 1)[-1].count("a") % 2 == 0

    def rule_2(self, word: str) -> bool:
        return "b" in word and ordered(word, "ba")

    def prompts(self, *, length: int | None = None, seed: int = 0) -> Prompts:
        """b^i a^j, and a b^i a^j, with i, j >= 1 and i uniform: 2^(length - 1) draws of each.

        Args:
            length (int): symbols of each prompt, 3..17; None is 8.
            seed (int): of the draws, at least 0.

        Returns:
            Prompts; of length 8, 128 of each, with 7 and 6 distinct ones.

        Raises:
            UserError: no prompts of that length.
        """
        length = self.prompt_length if length is None else length
        count = 2 ** max(length - 1, 0)
        if length < 3 or count > PROMPTS_AT_MOST:
            raise UserError(f"bbaN has prompts of 3 to 17 symbols; {length} came")
        generator = np.random.default_rng([seed, PARTS["prompts"]])
        inside = generator.integers(1, length, count).tolist()
        outside = generator.integers(1, length - 1, count).tolist()
        return Prompts(
            ["b" * i + "a" * (length - i) for i in inside],
            ["a" + "b" * i + "a" * (length - 1 - i) for i in outside],
        )

    def _words(self, max_length: int) -> Iterator[str]:
        for length in range(1, max_length + 1):
            yield from ("b" * (length - a) + "a" * a for a in range(0, length, 2))

    def _draw(self, count: int, max_length: int, generator: np.random.Generator) -> tuple:
        lengths = generator.integers(1, max_length + 1, count)
        pairs = generator.integers(0, (lengths - 1) // 2 + 1)
        first = lengths - 2 * pairs
        return np.where(np.arange(max_length) < first[:, None], B, A).astype(np.uint8), lengths

    def _log_probability(self, word: str, max_length: int) -> float:
        return -math.log(max_length) - math.log((len(word) - 1) // 2 + 1)

    def entropy(self, max_length: int) -> float:
        self._check_length(max_length)
        choices = sum(math.log((length - 1) // 2 + 1) for length in range(1, max_length + 1))
        return math.log(max_length) + choices / max_length

    def can_be_completed(self, prompt: str) -> bool:
        return self.rule_2(prompt)


def choices(length: int, ones: int) -> Iterator[str]:
    """All strings of `ones` a's and otherwise b's."""
    for places in combinations(range(length), ones):
        letters = ["b"] * length
        for place in places:
            letters[place] = "a"
        yield "".join(letters)
