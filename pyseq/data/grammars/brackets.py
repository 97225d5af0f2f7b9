"""Languages of brackets: one kind, two kinds nested in each other, two kinds on their own."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from pyseq.data.grammars.grammar import PARTS, PROMPTS_AT_MOST, Grammar, Prompts, texts
from pyseq.errors import UserError

OF_TWO_KINDS = "()[]"


def matched(text: str, pair: str) -> bool:
    """Whether the brackets of one kind match; other characters are looked past."""
    depth = 0
    for character in text:
        if character == pair[0]:
            depth += 1
        elif character == pair[1]:
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


class Brackets(Grammar):
    """Words of brackets whose prompts are two brackets and a nested word."""

    shortest: ClassVar[int] = 2
    prompt_starts: ClassVar[tuple[str, str]]  # in and out of distribution

    def rule_2_completion(self, prompt: str, whole: str) -> bool:
        """Whether all after the first two brackets, which break rule 2, obeys it.

        The nested word behind them is balanced, so it never decides.
        """
        return self.rule_2(whole[2:])

    def prompts(self, *, length: int | None = None, seed: int = 0) -> Prompts:
        """Two brackets and a nested word: 2^(length - 3) draws, the same for both sets.

        Args:
            length (int): symbols of each prompt, even, 4..18; None is 8.
            seed (int): of the words, at least 0.

        Returns:
            Prompts; of length 8, 32 of each.

        Raises:
            UserError: no prompts of that length.
        """
        length = self.prompt_length if length is None else length
        count = 2 ** max(length - 3, 0)
        if length < 4 or length % 2 or count > PROMPTS_AT_MOST:
            raise UserError(f"{self.name} has prompts of 4, 6, ... 18 symbols; {length} came")
        generator = np.random.default_rng([seed, PARTS["prompts"]])
        words: list[str] = []
        while len(words) < count:
            drawn = nested_words(np.full(count, length - 2), self.symbols, generator)
            words += [word for word in drawn if len(word) == length - 2]
        inside, outside = self.prompt_starts
        return Prompts(
            [inside + word for word in words[:count]], [outside + word for word in words[:count]]
        )

    @abstractmethod
    def _moves(self, open_now: Any) -> list[tuple[str, Any]]:
        """Symbols that may come next, each with what is open after it."""

    def _words(self, max_length: int) -> Iterator[str]:
        for length in range(2, max_length + 1, 2):
            yield from self._completions("", self._nothing_open, length)

    _nothing_open: ClassVar[Any]

    def _completions(self, prefix: str, open_now: Any, left: int) -> Iterator[str]:
        """Words with this prefix and `left` more symbols."""
        if left == 0:
            yield prefix
            return
        for symbol, after in self._moves(open_now):
            if self._depth(after) < left:
                yield from self._completions(prefix + symbol, after, left - 1)

    def _depth(self, open_now: Any) -> int:
        return len(open_now)

    def can_be_completed(self, prompt: str) -> bool:
        open_now = self._nothing_open
        for symbol in prompt:
            moves = dict(self._moves(open_now))
            if symbol not in moves:
                return False
            open_now = moves[symbol]
        return True


class Nested(Brackets):
    """k kinds of brackets nested in each other.

    A word is drawn for n, uniform on 2, 4, ... max: open one of the k kinds evenly when nothing
    is open; otherwise open any kind or close the last one opened, 1 / (k + 1) each; once length +
    depth >= n only close; stop as soon as nothing is open. So concatenations such as ()[] are in
    the language but are never drawn, and a word may be shorter than n.

    Length + depth is twice the number of opened brackets. Hence a word of 2h symbols that ends in
    a run of r closers makes 2h - 1 choices after the first: all free when n > 2h, all but the last
    r free when n = 2h; n < 2h cannot be:

        P = ((max/2 - h) (k + 1)^-(2h - 1) + (k + 1)^-(2h - 1 - r)) / (k max/2)
    """

    _nothing_open: ClassVar[str] = ""

    def _moves(self, open_now: str) -> list[tuple[str, str]]:
        moves = [(opener, open_now + opener) for opener in self.symbols[::2]]
        if open_now:
            moves.append((self.symbols[self.symbols.index(open_now[-1]) + 1], open_now[:-1]))
        return moves

    def contains(self, word: str) -> bool:
        """Whether word is not empty and nested, at any length, also of several parts."""
        openers, closers = self.symbols[::2], self.symbols[1::2]
        still_open: list[str] = []
        for character in word:
            if character in openers:
                still_open.append(character)
            elif character not in closers or not still_open:
                return False
            else:
                opener = still_open.pop()
                if openers.index(opener) != closers.index(character):
                    return False
        return bool(word) and not still_open

    def _sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        n = 2 * generator.integers(1, max_length // 2 + 1, count)
        return nested_words(n, self.symbols, generator)

    def _log_law(self, pairs: int, closing_run: int, max_length: int) -> float:
        """ln P of one word by half its length and the closers at its end."""
        kinds, half = len(self.symbols) // 2, max_length // 2
        free = 2 * pairs - 1
        weight = (half - pairs) + (kinds + 1.0) ** closing_run
        return math.log(weight) - free * math.log(kinds + 1) - math.log(kinds * half)

    def _log_probability(self, word: str, max_length: int) -> float:
        openers = self.symbols[::2]
        depth = 0
        for place, character in enumerate(word):
            depth += 1 if character in openers else -1
            if depth == 0 and place < len(word) - 1:
                return -math.inf
        run = len(word) - len(word.rstrip(self.symbols[1::2]))
        return self._log_law(len(word) // 2, run, max_length)

    def entropy(self, max_length: int) -> float:
        """H of one draw in nats, exactly: words are counted by half length and closers at the end.

        Args:
            max_length (int): as the words are drawn.

        Raises:
            UserError: max_length is below the shortest word.
        """
        self._check_length(max_length)
        kinds, total = len(self.symbols) // 2, 0.0
        for pairs in range(1, max_length // 2 + 1):
            for run in range(1, pairs + 1):
                paths = closing_paths(pairs - 1, run - 1)
                if paths:
                    law = self._log_law(pairs, run, max_length)
                    total -= law * math.exp(law + pairs * math.log(kinds) + math.log(paths))
        return total


def closing_paths(pairs: int, run: int) -> int:
    """Balanced strings of one kind of bracket with this many pairs and closers at the end.

    Source: the ballot numbers, run / (2 pairs - run) * C(2 pairs - run, pairs).
    """
    if pairs == 0 or run == 0:
        return int(pairs == run)
    return run * math.comb(2 * pairs - run, pairs) // (2 * pairs - run)


def nested_words(n: np.ndarray, pairs: str, generator: np.random.Generator) -> list[str]:
    """One word of `Nested` for each even n (N,), with kinds of brackets `pairs`."""
    openers = np.frombuffer(pairs[::2].encode(), np.uint8)
    closers = np.frombuffer(pairs[1::2].encode(), np.uint8)
    kinds = len(openers)
    depth = np.zeros(len(n), np.int64)
    lengths = np.zeros(len(n), np.int64)
    stack = np.zeros((len(n), n.max(initial=0) // 2 + 1), np.int64)
    codes = np.zeros((len(n), n.max(initial=0)), np.uint8)
    rows, step = np.arange(len(n)), 0  # rows of unfinished words
    while rows.size:
        deep = depth[rows]
        draw = generator.integers(0, np.where(deep == 0, kinds, kinds + 1))
        close = (deep > 0) & ((draw == kinds) | (step + deep >= n[rows]))
        kind = np.where(close, stack[rows, deep - 1], draw)
        codes[rows, step] = np.where(close, closers[kind], openers[kind])
        # the place above the top is free, so a closing row may write there too
        stack[rows, deep] = kind
        depth[rows] += np.where(close, -1, 1)
        step += 1
        lengths[rows] = step
        rows = rows[depth[rows] > 0]
    return texts(codes, lengths)


class Dyck(Nested):
    """Parentheses and brackets, nested; rule 1 and rule 2 look at one kind each.

    Source: Meszaros et al. 2024, language L4.
    """

    name, label = "parentheses_and_brackets", "L4"
    symbols = OF_TWO_KINDS
    language = "matched ( ) and [ ], nested"
    rules = ("[ ] matched", "( ) matched")
    prompt_starts = ("([", ")[")

    def rule_1(self, word: str) -> bool:
        return matched(word, "[]")

    def rule_2(self, word: str) -> bool:
        return matched(word, "()")


class OneKind(Nested):
    """One kind of bracket.

    The paper has no rules for it. Ours: as many openers as closers; and no closer before its
    opener. Ours are also the prompts' beginnings, two openers or two closers: after the authors'
    )( rule 1 holds when a model does nothing.
    """

    def rule_1(self, word: str) -> bool:
        return word.count(self.symbols[0]) == word.count(self.symbols[1])

    def rule_2(self, word: str) -> bool:
        # balanced by as many closers as are missing, if none came too early
        missing = word.count(self.symbols[0]) - word.count(self.symbols[1])
        return matched(word + self.symbols[1] * missing, self.symbols)


class MatchedParentheses(OneKind):
    name = "parentheses"
    symbols = "()"
    language = "matched ( )"
    rules = ("as many ( as )", "no ) before its (")
    prompt_starts = ("((", "))")


class MatchedBrackets(OneKind):
    """The authors' generator yields [] only; ours is that of parentheses with the other symbols."""

    name = "brackets"
    symbols = "[]"
    language = "matched [ ]"
    rules = ("as many [ as ]", "no ] before its [")
    prompt_starts = ("[[", "]]")


class CSDyck(Brackets):
    """Parentheses and brackets, each matched on its own, so ([)] is a word.

    A word has exactly n symbols, n uniform on 2, 4, ... max: evenly among both openers and the
    closers of what is open; once length + both depths >= n, among those closers only.

    Source: Meszaros et al. 2024, language L6.
    """

    name, label = "not_nested_parentheses_and_brackets", "L6"
    symbols = OF_TWO_KINDS
    language = "( ) and [ ] matched independently of each other"
    rules = ("[ ] matched", "( ) matched")
    prompt_starts = ("([", ")[")
    _nothing_open: ClassVar[tuple[int, int]] = (0, 0)

    def rule_1(self, word: str) -> bool:
        return matched(word, "[]")

    def rule_2(self, word: str) -> bool:
        return matched(word, "()")

    def _moves(self, open_now: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
        round_ones, square_ones = open_now
        moves = [("(", (round_ones + 1, square_ones)), ("[", (round_ones, square_ones + 1))]
        if round_ones:
            moves.append((")", (round_ones - 1, square_ones)))
        if square_ones:
            moves.append(("]", (round_ones, square_ones - 1)))
        return moves

    def _depth(self, open_now: tuple[int, int]) -> int:
        return sum(open_now)

    def _sample(self, count: int, max_length: int, generator: np.random.Generator) -> list[str]:
        n = 2 * generator.integers(1, max_length // 2 + 1, count)
        open_now = np.zeros((count, 2), np.int64)  # ( and [
        codes = np.zeros((count, n.max(initial=0)), np.uint8)
        openers, closers = np.frombuffer(b"([", np.uint8), np.frombuffer(b")]", np.uint8)
        rows, step = np.flatnonzero(n > 0), 0
        while rows.size:
            closable = open_now[rows] > 0
            free = step + open_now[rows].sum(axis=1) < n[rows]
            draw = generator.integers(0, 2 * free + closable.sum(axis=1))
            close = ~free | (draw >= 2)
            which = np.where(free, draw - 2, draw)  # of the closable kinds
            kind = np.where(close, np.where(closable[:, 0], which, 1), draw)
            codes[rows, step] = np.where(close, closers[kind], openers[kind])
            open_now[rows, kind] += np.where(close, -1, 1)
            step += 1
            rows = rows[n[rows] > step]
        return texts(codes, n)

    def _log_probability(self, word: str, max_length: int) -> float:
        n, total, open_now = len(word), -math.log(max_length // 2), self._nothing_open
        for step, symbol in enumerate(word):
            moves = dict(self._moves(open_now))
            free = step + sum(open_now) < n
            total -= math.log(len(moves) if free else len(moves) - 2)
            open_now = moves[symbol]
        return total

    def entropy(self, max_length: int) -> float:
        """H of one draw in nats, exactly.

        n is the word's length, so H = ln(max/2) + E H(choices | n). Length + depths never falls;
        until it reaches n the choices do not depend on n, so one pass over the free process serves
        all n: each n takes the choices made below it, and what closes once it is reached.

        Args:
            max_length (int): as the words are drawn.

        Raises:
            UserError: max_length is below the shortest word.
        """
        self._check_length(max_length)
        half = max_length // 2
        places = np.arange(half + 1)
        depths = places[:, None] + places  # (half + 1, half + 1) both depths together
        options = 2.0 + (places[:, None] > 0) + (places > 0)
        closing = closing_entropy(half)
        # by opened brackets, (length + depths) / 2: nats of choices there, nats to close from there
        chosen, to_close = np.zeros(half + 1), np.zeros(half + 1)
        law = np.zeros((half + 1, half + 1))  # P(length, depths), of free choices
        law[0, 0] = 1.0
        for length in range(2 * half):
            opened = (length + depths) // 2
            inside = (law > 0) & (opened < half)
            np.add.at(chosen, opened[inside], (law * np.log(options))[inside])
            share = np.where(opened < half, law / options, 0.0)
            opening = np.zeros_like(law)
            opening[1:] += share[:-1]
            opening[:, 1:] += share[:, :-1]
            arrived, arrived_at = opening > 0, (length + 1 + depths) // 2
            np.add.at(to_close, arrived_at[arrived], (opening * closing)[arrived])
            law = opening
            law[:-1] += share[1:]
            law[:, :-1] += share[:, 1:]
        below = np.concatenate([[0.0], chosen.cumsum()[:-1]])
        return math.log(half) + float((below + to_close)[1:].mean())


def closing_entropy(half: int) -> np.ndarray:
    """(half + 1, half + 1): nats of closing p and q brackets, evenly while both kinds are open."""
    nats = np.zeros((half + 1, half + 1))
    for p in range(1, half + 1):
        for q in range(1, half + 1):
            nats[p, q] = math.log(2) + (nats[p - 1, q] + nats[p, q - 1]) / 2
    return nats
