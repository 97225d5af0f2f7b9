import math

import pytest

from pyseq.analysis.rules import Completion, score, select_best, select_minimum_loss
from pyseq.analysis.rules.scores import METRICS
from pyseq.data.grammars import find_grammar

AB = find_grammar("aNbN")


def test_shares_are_over_finished_completions():
    inside = [
        Completion("aa", "bb", True),  # a word
        Completion("aa", "b", True),  # only the second rule
        Completion("aa", "bba", True),  # neither
        Completion("aa", "bbbb", False),  # not counted
    ]
    outside = [
        Completion("ba", "", True),  # the first rule; an empty completion keeps the second
        Completion("ba", "ab", True),  # the first rule, and the second in the completion
        Completion("ba", "ba", True),  # the first rule, and no second anywhere
        Completion("bb", "b", True),  # the second rule in the whole
        Completion("bb", "a" * 9, False),
    ]
    found = score(AB, inside, outside)
    assert found.id_rule_1 == pytest.approx(1 / 3)
    assert found.id_rule_2 == pytest.approx(2 / 3)
    assert found.id_grammatical == pytest.approx(1 / 3)
    assert found.id_finished == 3 / 4
    assert found.ood_rule_1 == 3 / 4
    assert found.ood_rule_2 == 1 / 4
    assert found.ood_rule_2_completion == 3 / 4
    assert found.ood_finished == 4 / 5
    assert found.ood_grammatical == 0


def test_where_nothing_finished_the_scores_are_zero_as_in_the_papers_code():
    never = [Completion("ba", "ab", False)]
    found = score(AB, never, never)
    assert all(getattr(found, metric) == 0 for metric in METRICS)


def test_without_prompts_there_are_no_scores():
    found = score(AB, [Completion("ab", "", True)], [])
    inside = {metric for metric in METRICS if metric.startswith("id_")}
    assert all(getattr(found, metric) == 1 for metric in inside)
    assert all(math.isnan(getattr(found, metric)) for metric in set(METRICS) - inside)


ROWS = [
    {"step": 1, "validation_loss": 0.5, "ood_rule_1": 0.2, "id_rule_1": 1.0},
    {"step": 2, "validation_loss": 0.1, "ood_rule_1": 0.1, "id_rule_1": 0.5},
    {"step": 3, "validation_loss": 0.1, "ood_rule_1": 0.7, "id_rule_1": None},
    {"step": 4, "validation_loss": math.nan, "ood_rule_1": 0.3},
]


def test_the_best_of_each_metric_may_come_from_different_validations():
    best = select_best(ROWS)
    assert best == {"validation_loss": 0.1, "ood_rule_1": 0.7, "id_rule_1": 1.0}


def test_the_row_of_the_least_loss_is_the_earliest_of_equal_ones():
    assert select_minimum_loss(ROWS)["step"] == 2
    assert select_minimum_loss(ROWS[3:]) == {}
    assert select_best([]) == {}
