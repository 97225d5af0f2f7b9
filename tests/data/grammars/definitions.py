"""The grammars a second time, by regular expressions, deletion and trees of choices."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations, product

from pyseq.data.grammars import GRAMMARS, Grammar

NAMES = list(GRAMMARS)


def strings(symbols: str, longest: int) -> Iterator[str]:
    for length in range(longest + 1):
        yield from map("".join, product(symbols, repeat=length))


def fits(pattern: str):
    return lambda text: re.fullmatch(pattern, text) is not None


def reduced(text: str, *pairs: str) -> str:
    """What repeated deletion of adjacent pairs leaves."""
    while any(pair in text for pair in pairs):
        for pair in pairs:
            text = text.replace(pair, "")
    return text


def vanishes(pair: str, others: str):
    """Deletes the other symbols, then pairs; nothing may be left."""
    return lambda text: reduced(re.sub(f"[{re.escape(others)}]", "", text), pair) == ""


def equally_often(symbols: str):
    return lambda text: len({Counter(text)[symbol] for symbol in symbols}) == 1


def always(text: str) -> bool:
    return True


def starts_with_openers_only(pair: str):
    return lambda text: pair[1] not in reduced(text, pair)


SQUARES, ROUNDS = vanishes("[]", "()"), vanishes("()", "[]")
RULES = {
    "baN": (fits("(b*ab*a)*b*"), fits("b.*")),
    "bbaN": (fits("(.*b)?(aa)*"), fits("b+a*")),
    "aNbN": (equally_often("ab"), fits("a*b*")),
    "parentheses_and_brackets": (SQUARES, ROUNDS),
    "aNbNcN": (equally_often("abc"), fits("a*b*c*")),
    "not_nested_parentheses_and_brackets": (SQUARES, ROUNDS),
    "abN": (equally_often("ab"), always),
    "aNbM": (always, fits("a*b*")),
    "aNbNaN": (lambda text: text.count("a") == 2 * text.count("b"), fits(r"(a*)b+\1|a*")),
    "parentheses": (equally_often("()"), starts_with_openers_only("()")),
    "brackets": (equally_often("[]"), starts_with_openers_only("[]")),
}

UP_TO_8 = range(1, 9)
LANGUAGES = {
    "baN": lambda text: fits("b(b*ab*a)*b*")(text),
    "bbaN": {"b" * n + "aa" * m for n in UP_TO_8 for m in range(5)}.__contains__,
    "aNbN": {"a" * n + "b" * n for n in UP_TO_8}.__contains__,
    "parentheses_and_brackets": lambda text: text != "" == reduced(text, "()", "[]"),
    "aNbNcN": {"a" * n + "b" * n + "c" * n for n in UP_TO_8}.__contains__,
    "not_nested_parentheses_and_brackets": lambda t: t != "" and SQUARES(t) and ROUNDS(t),
    "abN": {
        "".join(letters) for n in range(1, 5) for letters in permutations("ab" * n)
    }.__contains__,
    "aNbM": fits("a+b*|b+"),
    "aNbNaN": {"a" * n + "b" * n + "a" * n for n in UP_TO_8}.__contains__,
    "parentheses": lambda text: text != "" == reduced(text, "()"),
    "brackets": lambda text: text != "" == reduced(text, "[]"),
}


def law(grammar: Grammar, max_length: int) -> dict[str, Fraction]:
    """Exact probability of every word, by following each choice of the spec's generators."""
    probabilities: dict[str, Fraction] = defaultdict(Fraction)
    for word, probability in CHOICES[grammar.name](grammar.symbols, max_length):
        probabilities[word] += probability
    assert sum(probabilities.values()) == 1
    return dict(probabilities)


def evenly(options) -> Iterator[tuple]:
    options = list(options)
    return ((option, Fraction(1, len(options))) for option in options)


def repeated(blocks: str):
    def choices(symbols: str, max_length: int):
        for n, p in evenly(range(1, max_length // len(blocks) + 1)):
            yield "".join(symbol * n for symbol in blocks), p

    return choices


def ban(symbols: str, max_length: int):
    for length, p in evenly(range(1, max_length + 1)):
        for pairs, q in evenly(range((length - 1) // 2 + 1)):
            for order, r in evenly(permutations("aa" * pairs + "b" * (length - 1 - 2 * pairs))):
                yield "b" + "".join(order), p * q * r


def bban(symbols: str, max_length: int):
    for length, p in evenly(range(1, max_length + 1)):
        for pairs, q in evenly(range((length - 1) // 2 + 1)):
            yield "b" * (length - 2 * pairs) + "aa" * pairs, p * q


def abn(symbols: str, max_length: int):
    for n, p in evenly(range(1, max_length // 2 + 1)):
        for order, q in evenly(permutations("ab" * n)):
            yield "".join(order), p * q


def anbm(symbols: str, max_length: int):
    for length, p in evenly(range(1, max_length + 1)):
        for n, q in evenly(range(length + 1)):
            yield "a" * n + "b" * (length - n), p * q


def nested(symbols: str, max_length: int):
    closer = dict(zip(symbols[::2], symbols[1::2], strict=True))

    def grow(word: str, stack: str, n: int, p: Fraction):
        if word and not stack:
            yield word, p
            return
        options = [(symbol, stack + symbol) for symbol in symbols[::2]]
        if stack:
            options.append((closer[stack[-1]], stack[:-1]))
            if len(word) + len(stack) >= n:
                options = options[-1:]
        for (symbol, after), q in evenly(options):
            yield from grow(word + symbol, after, n, p * q)

    for half, p in evenly(range(1, max_length // 2 + 1)):
        yield from grow("", "", 2 * half, p)


def not_nested(symbols: str, max_length: int):
    def grow(word: str, rounds: int, squares: int, n: int, p: Fraction):
        if len(word) == n:
            yield word, p
            return
        options = []
        if len(word) + rounds + squares < n:
            options += [("(", 1, 0), ("[", 0, 1)]
        options += [(")", -1, 0)] * (rounds > 0) + [("]", 0, -1)] * (squares > 0)
        for (symbol, first, second), q in evenly(options):
            yield from grow(word + symbol, rounds + first, squares + second, n, p * q)

    for half, p in evenly(range(1, max_length // 2 + 1)):
        yield from grow("", 0, 0, 2 * half, p)


CHOICES = {
    "baN": ban,
    "bbaN": bban,
    "aNbN": repeated("ab"),
    "parentheses_and_brackets": nested,
    "aNbNcN": repeated("abc"),
    "not_nested_parentheses_and_brackets": not_nested,
    "abN": abn,
    "aNbM": anbm,
    "aNbNaN": repeated("aba"),
    "parentheses": nested,
    "brackets": nested,
}
