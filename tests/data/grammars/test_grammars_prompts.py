"""Prompts: counts, halves, and the scores that need no model."""

import pytest

from pyseq.data.grammars import GRAMMARS, Prompts, chance_level, emit_eos_at_once, find_grammar
from pyseq.errors import UserError
from tests.data.grammars.definitions import NAMES, strings

DRAWN = [
    "bbaN",
    "parentheses_and_brackets",
    "not_nested_parentheses_and_brackets",
    "parentheses",
    "brackets",
]
RULES_OF_PAPER = NAMES[:6]


@pytest.mark.parametrize(
    ("name", "length", "inside", "outside"),
    [
        ("aNbN", None, 5, 251),
        ("aNbN", 6, 4, 60),
        ("baN", None, 128, 128),
        ("aNbNcN", None, 4, 239),
        ("bbaN", None, 128, 128),
        ("parentheses_and_brackets", None, 32, 32),
        ("not_nested_parentheses_and_brackets", None, 32, 32),
        ("parentheses", None, 32, 32),
        ("brackets", None, 32, 32),
        ("abN", None, 256, 0),
        ("aNbM", None, 9, 247),
        ("aNbNaN", None, 6, 250),
    ],
)
def test_numbers_of_prompts(name, length, inside, outside):
    prompts = GRAMMARS[name].prompts(length=length)
    assert (len(prompts.in_distribution), len(prompts.out_of_distribution)) == (inside, outside)
    expected = length or (5 if name == "aNbNcN" else 8)
    assert {len(p) for p in prompts.in_distribution + prompts.out_of_distribution} == {expected}
    if name not in DRAWN:
        both = prompts.in_distribution + prompts.out_of_distribution
        assert sorted(both) == sorted(
            text for text in strings(GRAMMARS[name].symbols, expected) if len(text) == expected
        )


def test_distinct_prompts_of_bban():
    prompts = GRAMMARS["bbaN"].prompts(seed=4)
    assert set(prompts.in_distribution) == {"b" * i + "a" * (8 - i) for i in range(1, 8)}
    assert set(prompts.out_of_distribution) == {"a" + "b" * i + "a" * (7 - i) for i in range(1, 7)}


@pytest.mark.parametrize("name", ["Dyck", "CS-Dyck"])
def test_prompts_of_brackets_are_two_symbols_and_one_nested_word(name):
    prompts = find_grammar(name).prompts(seed=2)
    words = [prompt[2:] for prompt in prompts.in_distribution]
    assert words == [prompt[2:] for prompt in prompts.out_of_distribution]
    assert {prompt[:2] for prompt in prompts.in_distribution} == {"(["}
    assert {prompt[:2] for prompt in prompts.out_of_distribution} == {")["}
    # nested words of six symbols that are no concatenation: 2^3 kinds of 2 shapes
    dyck = find_grammar("Dyck")
    possible = {word for word in dyck.words(6) if dyck.log_probability(word, 6) > -100}
    assert set(words) <= {word for word in possible if len(word) == 6}
    assert len(set(words)) > 8


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_prompts_depend_on_the_seed(name):
    grammar = GRAMMARS[name]
    assert grammar.prompts(seed=3) == grammar.prompts(seed=3)
    assert grammar.prompts(seed=3) != grammar.prompts(seed=4)


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_completed_is_the_beginning_of_a_word(name):
    grammar = GRAMMARS[name]
    # every beginning of 3 symbols is completed within 9, or within 6 where brackets close
    words = grammar.words(9 if len(grammar.symbols) < 4 else 6)
    beginnings = {word[:length] for word in words for length in (1, 2, 3) if length <= len(word)}
    for text in strings(grammar.symbols, 3):
        if text:
            assert grammar.can_be_completed(text) == (text in beginnings), text


@pytest.mark.parametrize("name", NAMES)
def test_halves_are_told_apart_by_completion(name):
    prompts = GRAMMARS[name].prompts()
    assert all(map(GRAMMARS[name].can_be_completed, prompts.in_distribution))
    assert not any(map(GRAMMARS[name].can_be_completed, prompts.out_of_distribution))


@pytest.mark.parametrize("name", RULES_OF_PAPER)
def test_rule_1_can_be_kept_after_every_prompt(name):
    grammar = GRAMMARS[name]
    # up to 8 symbols of one kind, or of two kinds in blocks, repair every count
    repairs = [
        x * i + y * j
        for x in grammar.symbols
        for y in grammar.symbols
        for i in range(9)
        for j in range(9)
    ]
    for prompt in set(grammar.prompts().out_of_distribution):
        assert any(grammar.rule_1(prompt + repair) for repair in repairs), prompt


@pytest.mark.parametrize("name", ["baN", "bbaN", "Dyck", "CS-Dyck"])
def test_prompts_out_of_distribution_break_rule_2(name):
    grammar = find_grammar(name)
    assert not any(map(grammar.rule_2, grammar.prompts().out_of_distribution))


def test_rule_2_of_whole_sequences_is_out_of_reach():
    grammar = GRAMMARS["aNbN"]
    outside = grammar.prompts(length=6).out_of_distribution
    assert sum(map(grammar.rule_2, outside)) == 3


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("aNbN", 0),
        ("aNbN", 17),
        ("aNbNcN", 12),
        ("bbaN", 2),
        ("bbaN", 18),
        ("Dyck", 7),
        ("Dyck", 2),
    ],
)
def test_lengths_without_prompts_are_refused(name, length):
    with pytest.raises(UserError, match="prompts of"):
        find_grammar(name).prompts(length=length)


# the published Linear models emit EOS at once, so their rows are this baseline
@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("baN", (0.5, 1.0, 0.5, 0.0)),
        ("aNbN", (1 / 5, 1.0, 69 / 251, 1.0)),
        ("parentheses_and_brackets", (0.0, 0.0, 0.0, 1.0)),
        ("not_nested_parentheses_and_brackets", (0.0, 0.0, 0.0, 1.0)),
        ("aNbNcN", (0.0, 1.0, 0.0, 1.0)),
    ],
)
def test_scores_of_stopping_at_once(name, scores):
    grammar = GRAMMARS[name]
    found = emit_eos_at_once(grammar, grammar.prompts())
    assert list(found) == ["id_rule_1", "id_rule_2", "ood_rule_1", "ood_rule_2_completion"]
    assert tuple(found.values()) == pytest.approx(scores)


def test_stopping_at_once_after_short_prompts():
    grammar = GRAMMARS["aNbN"]
    found = emit_eos_at_once(grammar, grammar.prompts(length=6))
    assert found["ood_rule_1"] == pytest.approx(19 / 60)
    assert found["id_rule_1"] == pytest.approx(1 / 4)


CLOSED = 1.5 * (
    1 - 5**0.5 / 3
)  # balanced before EOS, of ( ) EOS evenly: sum of Catalan(m) 3^-(2m+1)


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        # the published series
        ("aNbN", {"id_rule_1": 0.1047, "ood_rule_1": 0.1540}),
        (
            "aNbNcN",
            {"id_rule_1": 0.0217, "id_rule_2": 0.4537, "ood_rule_1": 0.0334},
        ),
        ("aNbNcN", {"ood_rule_2_completion": 0.5926}),
        ("baN", {"id_rule_1": 0.5, "ood_rule_1": 0.5, "ood_rule_2_completion": 1 / 3}),
        ("parentheses_and_brackets", {"ood_rule_2_completion": CLOSED}),
        # where ours differ: (l + 1) of 2^l completions of length l are ordered, at 3^-(l + 1)
        ("aNbN", {"ood_rule_2_completion": 0.75}),
        # the open bracket is closed after a balanced part, before another one
        ("parentheses_and_brackets", {"id_rule_1": CLOSED**2, "ood_rule_1": CLOSED**2}),
    ],
)
def test_chance(name, scores):
    grammar, completions = GRAMMARS[name], 60_000
    found = chance_level(grammar, grammar.prompts(), completions=completions)
    for score, expected in scores.items():
        error = (expected * (1 - expected) / completions) ** 0.5
        assert abs(found[score] - expected) < 4 * error, score


def test_chance_cuts_at_the_maximum():
    grammar = GRAMMARS["aNbN"]
    prompts = Prompts(["aaab"], [])
    cut = chance_level(grammar, prompts, max_length=4, completions=10)
    assert cut == {**emit_eos_at_once(grammar, prompts)}
    assert set(cut) == {"id_rule_1", "id_rule_2"}  # of the prompts that there are
