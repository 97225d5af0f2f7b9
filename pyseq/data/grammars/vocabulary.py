"""Words as tensors, and one vocabulary for several grammars."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pyseq.data.grammars.grammar import EOS, PAD, SOS, SPECIAL, Grammar
from pyseq.errors import UserError


def padded(grammar: Grammar, words: Sequence[str], max_length: int) -> Tensor:
    """SOS, word, EOS, PAD ... for every word.

    Args:
        grammar (Grammar): gives the tokens.
        words (list of str): each of at most max_length symbols.
        max_length (int): most symbols in a word.

    Returns:
        Tensor (N, max_length + 2), int64.

    Raises:
        UserError: a word is longer than max_length, or has a foreign symbol.
    """
    return _rows(words, grammar.encode, [SOS], max_length)


class JointVocabulary:
    """One numbering for several grammars, which on their own give the same tokens to a and to (.

    SOS, EOS and PAD keep 0, 1 and 2; then come the symbols of all grammars, each once, in the
    order of the grammars; then one task token for each grammar, which stands after SOS and says
    whose word follows. In a decoded text task tokens are written #.

    Args:
        grammars (list of Grammar): at least one, none twice.

    Raises:
        UserError: no grammar, or one that comes twice.
    """

    def __init__(self, grammars: Sequence[Grammar]) -> None:
        names = [grammar.name for grammar in grammars]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"a joint vocabulary takes different grammars, at least one; {names} came"
            )
        self.grammars = tuple(grammars)
        symbols = dict.fromkeys(symbol for grammar in grammars for symbol in grammar.symbols)
        self.symbols = "".join(symbols)
        self._characters = SPECIAL + self.symbols
        self._tasks = {name: len(self._characters) + i for i, name in enumerate(names)}

    @property
    def classes(self) -> int:
        """Tokens: three special ones, the symbols, a task token for each grammar."""
        return len(self._characters) + len(self._tasks)

    def task(self, grammar: Grammar) -> int:
        """The token that announces a word of this grammar.

        Raises:
            UserError: the grammar is not of this vocabulary.
        """
        if grammar.name not in self._tasks:
            raise UserError(f"{grammar.name} is not in this vocabulary of {', '.join(self._tasks)}")
        return self._tasks[grammar.name]

    def prefix(self, grammar: Grammar) -> list[int]:
        """SOS and the task token, which come before a word or a prompt."""
        return [SOS, self.task(grammar)]

    def encode(self, grammar: Grammar, word: str) -> list[int]:
        """Tokens of a word, without SOS, task and EOS.

        Raises:
            UserError: a character that is none of the grammar's, or a foreign grammar.
        """
        self.task(grammar)
        grammar.encode(word)
        return [self._characters.index(character) for character in word]

    def decode(self, grammar: Grammar, tokens: Iterable[int]) -> str:
        """Text of tokens; symbols of other grammars stay what they are, so `contains` refuses them.

        Raises:
            UserError: a token outside 0..classes - 1, or a foreign grammar.
        """
        self.task(grammar)
        numbers = [int(token) for token in tokens]
        if any(not 0 <= number < self.classes for number in numbers):
            raise UserError(f"joint tokens lie in 0..{self.classes - 1}; {numbers} came")
        return "".join((self._characters + "#" * len(self._tasks))[number] for number in numbers)

    def padded(self, grammar: Grammar, words: Sequence[str], max_length: int) -> Tensor:
        """SOS, task, word, EOS, PAD ... for every word of one grammar.

        Returns:
            Tensor (N, max_length + 3), int64.

        Raises:
            UserError: a word is longer than max_length, or has a foreign symbol.
        """
        encode = partial(self.encode, grammar)
        return _rows(words, encode, self.prefix(grammar), max_length)


def _rows(
    words: Sequence[str], encode: Callable[[str], list[int]], prefix: list[int], max_length: int
) -> Tensor:
    """Prefix, word, EOS, PAD ... (N, len(prefix) + max_length + 1)."""
    longest = max(map(len, words), default=0)
    if longest > max_length:
        raise UserError(f"a word of {longest} symbols came; at most {max_length} fit")
    text = "".join(words)
    distinct = "".join(dict.fromkeys(text))
    table = np.zeros(128, np.int64)  # token of each ASCII code
    for character, token in zip(distinct, encode(distinct), strict=True):
        table[ord(character)] = token
    lengths = np.array([len(word) for word in words], np.int64)
    rows = np.full((len(words), len(prefix) + max_length + 1), PAD)
    rows[:, : len(prefix)] = prefix
    inside = rows[:, len(prefix) : -1]
    inside[np.arange(max_length) < lengths[:, None]] = table[np.frombuffer(text.encode(), np.uint8)]
    rows[np.arange(len(words)), len(prefix) + lengths] = EOS
    return torch.from_numpy(rows)
