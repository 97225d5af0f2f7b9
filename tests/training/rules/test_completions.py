"""Completions that are trained on keep R1, or break it, and never are those that are tested."""

import pytest
import torch

from pyseq.data.grammars import GRAMMARS, find_grammar
from pyseq.errors import UserError
from pyseq.training.rules.completions import (
    COMPLETED,
    plan_prompts,
    right_completion,
    wrong_completion,
)
from pyseq.training.rules.language import Language


@pytest.mark.parametrize("name", COMPLETED)
def test_right_completions_keep_both_rules_and_wrong_ones_break_the_first(name):
    grammar = find_grammar(name)
    prompts = grammar.prompts().out_of_distribution
    for prompt in prompts:
        right = prompt + right_completion(grammar, prompt)
        assert grammar.rule_1(right)
        assert grammar.rule_2_completion(prompt, right) or name == "baN"
        wrong = prompt + wrong_completion(grammar, prompt)
        assert not grammar.rule_1(wrong)
        assert len(wrong) == len(right) + 1
    # A rule-1 check that says yes to everything would have failed above, one that says no here.
    assert {grammar.rule_1(prompt + right_completion(grammar, prompt)) for prompt in prompts} == {
        True
    }


@pytest.mark.parametrize(
    ("grammar", "prompt", "right", "wrong"),
    [
        ("aNbN", "abbabbbb", "aaaa", "aaaaa"),
        ("aNbN", "bbaaaaab", "bb", "bbb"),
        ("aNbN", "bbbbaaaa", "", "b"),
        ("aNbNcN", "cabba", "c", "cc"),
        ("aNbNcN", "ccccc", "aaaaabbbbb", None),
        ("baN", "aabbabbb", "ba", "baa"),
        ("bbaN", "abbbaaa", "b", "ba"),
        ("Dyck", ")[(())[]", "]", "]]"),
        ("CS-Dyck", ")[[]()()", "]", "]]"),
    ],
)
def test_completions_by_hand(grammar, prompt, right, wrong):
    found = find_grammar(grammar)
    assert right_completion(found, prompt) == right
    if wrong is not None:
        assert wrong_completion(found, prompt) == wrong


def test_other_grammars_are_refused_by_name():
    with pytest.raises(UserError, match="completions of abN are not defined; known: baN, bbaN"):
        right_completion(GRAMMARS["abN"], "ab")


@pytest.mark.parametrize("name", COMPLETED)
def test_progressive_training_tests_other_prompts_than_it_trains_on(name):
    grammar = find_grammar(name)
    prompts = grammar.prompts()
    plan = plan_prompts(grammar, prompts, "progressive")
    trained, tested = {p for p, _ in plan.trained}, set(plan.tested.out_of_distribution)
    assert trained
    assert tested
    assert not trained & tested
    assert trained | tested == set(prompts.out_of_distribution)
    assert abs(len(trained) - len(tested)) <= 1
    assert plan.tested.in_distribution == prompts.in_distribution
    # All prompts have one length, so no completed prompt begins with a tested one either.
    assert not any((p + c).startswith(tuple(tested)) for p, c in plan.trained)
    assert plan == plan_prompts(grammar, prompts, "progressive")


@pytest.mark.parametrize("strategy", ["oracle", "adversarial"])
def test_oracle_and_adversary_train_on_the_tested_prompts(strategy):
    grammar = find_grammar("aNbN")
    plan = plan_prompts(grammar, grammar.prompts(), strategy)
    assert {p for p, _ in plan.trained} == set(plan.tested.out_of_distribution)
    kept = {grammar.rule_1(p + c) for p, c in plan.trained}
    assert kept == {strategy == "oracle"}


def test_plain_training_trains_on_no_prompt():
    grammar = find_grammar("aNbN")
    language = Language([grammar], 12, grammar.prompts(length=4))
    assert language.trained == ()
    assert language.completion_batch()[0].shape[0] == 0


def test_the_completion_batch_counts_completion_and_eos_alone():
    grammar = find_grammar("aNbN")
    for others in ([], [find_grammar("Dyck")]):
        language = Language([grammar, *others], 12, grammar.prompts(length=4), "oracle")
        tokens, counted = language.completion_batch()
        start = len(language.start)
        for row, mask, (prompt, completion) in zip(tokens, counted, language.trained, strict=True):
            assert language.decode(row[start : start + 4].tolist()) == prompt
            targets = row[1:][mask]
            assert targets[-1] == 1
            assert language.decode(targets[:-1].tolist()) == completion
            assert torch.equal(row[start + 4 : start + 4 + len(targets)], targets)


def test_a_completion_that_does_not_fit_is_refused():
    grammar = find_grammar("aNbN")
    with pytest.raises(UserError, match="longer than --max_length 7"):
        Language([grammar], 7, grammar.prompts(length=4), "oracle")
