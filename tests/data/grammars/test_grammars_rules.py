"""Rules, languages and tokens against second definitions, over all strings up to a length."""

import pytest

from pyseq.data.grammars import GRAMMARS, find_grammar
from pyseq.errors import UserError
from tests.data.grammars.definitions import LANGUAGES, NAMES, RULES, strings


def test_every_grammar_has_a_second_definition():
    assert set(NAMES) == set(RULES) == set(LANGUAGES)


@pytest.mark.parametrize("name", NAMES)
def test_rules_and_language_over_all_strings(name):
    grammar, (rule_1, rule_2) = GRAMMARS[name], RULES[name]
    for text in strings(grammar.symbols, 8):
        assert grammar.rule_1(text) == rule_1(text), text
        assert grammar.rule_2(text) == rule_2(text), text
        assert grammar.contains(text) == LANGUAGES[name](text), text


@pytest.mark.parametrize("name", [n for n in NAMES if n != "parentheses_and_brackets"])
def test_both_rules_make_the_language(name):
    grammar = GRAMMARS[name]
    for text in strings(grammar.symbols, 6):
        both = text != "" and grammar.rule_1(text) and grammar.rule_2(text)
        assert grammar.contains(text) == both, text


def test_only_nesting_separates_dyck_from_its_rules():
    dyck, independent = find_grammar("Dyck"), find_grammar("CS-Dyck")
    assert dyck.rule_1("([)]")
    assert dyck.rule_2("([)]")
    assert not dyck.contains("([)]")
    assert independent.contains("([)]")


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_language_once_and_shortest_first(name):
    grammar = GRAMMARS[name]
    words = grammar.words(8)
    assert len(set(words)) == len(words)
    assert set(words) == {text for text in strings(grammar.symbols, 8) if LANGUAGES[name](text)}
    assert [len(word) for word in words] == sorted(len(word) for word in words)


@pytest.mark.parametrize(
    ("name", "length", "count"),
    [("aNbN", 256, 128), ("aNbNcN", 256, 85), ("aNbN", 32, 16), ("aNbNaN", 256, 85)],
)
def test_enumerated_data_is_every_word_once(name, length, count):
    grammar = GRAMMARS[name]
    assert grammar.enumerated
    assert len(set(grammar.words(length))) == count
    for part in ("train", "validation"):
        assert grammar.data(15_000, length, seed=3, part=part) == grammar.words(length)


@pytest.mark.parametrize("name", NAMES)
def test_rules_look_past_special_tokens_and_the_language_does_not(name):
    grammar = GRAMMARS[name]
    for text in strings(grammar.symbols, 5):
        marked = "^" + "_$".join([text[:2], text[2:]]) + "$__" if len(text) > 2 else f"^{text}$_"
        assert grammar.rule_1(marked) == grammar.rule_1(text), marked
        assert grammar.rule_2(marked) == grammar.rule_2(text), marked
        assert not grammar.contains(marked)


def test_rule_1_of_bban_counts_after_the_last_b():
    grammar = find_grammar("L2")
    assert grammar.rule_1("abaa")
    assert not grammar.rule_1("aaba")
    assert grammar.rule_1("aa")


@pytest.mark.parametrize(
    ("name", "prompt", "completion", "expected"),
    [
        ("aNbN", "bbbbbbbb", "", True),
        ("aNbN", "bbbbbbbb", "aaab", True),
        ("aNbN", "bbbbbbbb", "aba", False),
        ("aNbNcN", "cbabc", "", True),
        ("aNbNcN", "cbabc", "acb", False),
        ("baN", "abababab", "", False),
        ("baN", "abababab", "ba", True),
        ("baN", "abababab", "ab", False),
        ("bbaN", "abbbbbaa", "", False),
        ("bbaN", "abbbbbaa", "aa", False),
        ("bbaN", "abbbbbaa", "baa", True),
        ("parentheses_and_brackets", ")[(())[]", "", True),
        ("parentheses_and_brackets", ")[(())[]", "]()", True),
        ("parentheses_and_brackets", ")[(())[]", ")", False),
        ("parentheses_and_brackets", ")[((()))", "(", False),
        ("not_nested_parentheses_and_brackets", ")[(())[]", "(])", True),
    ],
)
def test_rule_2_is_asked_of_the_completion(name, prompt, completion, expected):
    grammar = GRAMMARS[name]
    assert not grammar.can_be_completed(prompt)
    assert grammar.rule_2_completion(prompt, prompt + completion) is expected


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_numbered_from_three(name):
    grammar = GRAMMARS[name]
    assert grammar.encode(grammar.symbols) == list(range(3, grammar.classes))
    assert grammar.encode("^$_") == [0, 1, 2]
    text = "^" + grammar.symbols[::-1] + "$__"
    assert grammar.decode(grammar.encode(text)) == text


def test_tokens_of_the_paper():
    assert find_grammar("L5").encode("abc") == [3, 4, 5]
    assert find_grammar("L4").encode("()[]") == [3, 4, 5, 6]
    assert [GRAMMARS[name].classes for name in NAMES[:6]] == [5, 5, 5, 7, 6, 7]


def test_foreign_characters_and_tokens_are_refused():
    with pytest.raises(UserError, match="'c' in 'abc' is no symbol; 'ab' are"):
        GRAMMARS["aNbN"].encode("abc")
    for tokens in ([5], [-1]):
        with pytest.raises(UserError, match=r"0\.\.4"):
            GRAMMARS["aNbN"].decode(tokens)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("L1", "baN"),
        ("l2", "bbaN"),
        ("L3", "aNbN"),
        ("L4", "parentheses_and_brackets"),
        ("L5", "aNbNcN"),
        ("L6", "not_nested_parentheses_and_brackets"),
        ("Dyck", "parentheses_and_brackets"),
        ("dyck-2", "parentheses_and_brackets"),
        ("CS-Dyck", "not_nested_parentheses_and_brackets"),
        ("ABN", "abN"),
        ("anbm", "aNbM"),
        ("a^n b^n", "aNbN"),
        *((name, name) for name in NAMES),
    ],
)
def test_names_that_find_a_grammar(asked, found):
    assert find_grammar(asked) is GRAMMARS[found]


@pytest.mark.parametrize("asked", ["", "L7", "aNbNcNdN"])
def test_an_unknown_grammar_lists_the_known_ones(asked):
    with pytest.raises(UserError) as caught:
        find_grammar(asked)
    assert all(name in str(caught.value) for name in [*NAMES, "L4", "CS-Dyck"])


@pytest.mark.parametrize("name", NAMES)
def test_lengths_without_words_are_refused(name):
    grammar = GRAMMARS[name]
    shortest = len(grammar.words(8)[0])
    assert grammar.shortest == shortest
    for call in (
        lambda: grammar.words(shortest - 1),
        lambda: grammar.data(3, shortest - 1, seed=0),
        lambda: grammar.loss_floor(shortest - 1),
        lambda: grammar.log_probability("", shortest - 1),
    ):
        with pytest.raises(UserError, match=f"no word of at most {shortest - 1} symbols"):
            call()


def test_too_many_words_are_refused():
    with pytest.raises(UserError, match="more than 200000 words up to length 256"):
        GRAMMARS["baN"].words(256)
