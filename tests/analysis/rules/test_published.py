import math

import pytest

from pyseq.analysis.rules.published import (
    CHANCE,
    GRAMMARS_OF_THE_PAPER,
    JUDGED,
    MODELS,
    PUBLISHED,
    Spread,
    best_published,
    short_name,
    tolerance,
    verdict,
)
from pyseq.data.grammars import GRAMMARS


def test_the_table_is_whole_and_names_what_there_is():
    assert set(PUBLISHED) == {(g, m) for g in GRAMMARS_OF_THE_PAPER for m in MODELS}
    assert set(GRAMMARS_OF_THE_PAPER) <= set(GRAMMARS)
    assert [GRAMMARS[name].label for name in GRAMMARS_OF_THE_PAPER] == [
        f"L{k}" for k in range(1, 7)
    ]
    assert set(CHANCE) <= set(GRAMMARS_OF_THE_PAPER)
    for row in PUBLISHED.values():
        assert set(row) == {*JUDGED, "id_finished", "ood_finished"}
        shares = [spread for metric, spread in row.items() if metric != "validation_loss"]
        assert all(0 <= spread.mean <= 1 for spread in shares)


def test_rows_hold_their_numbers_in_the_order_of_the_metrics():
    row = PUBLISHED["bbaN", "mamba"]
    assert row["validation_loss"] == Spread(0.038, 0, 13)
    assert row["id_rule_1"] == Spread(0.910, 0.085, 13)
    assert row["id_rule_2"] == Spread(1, 0, 13)
    assert row["ood_rule_1"] == Spread(0.973, 0.067, 13)
    assert row["ood_rule_2_completion"] == Spread(0.068, 0.117, 13)
    row = PUBLISHED["parentheses_and_brackets", "transformer"]
    assert row["ood_rule_1"] == Spread(0.980, 0.090, 46)
    lstm = PUBLISHED["baN", "lstm"]
    assert (lstm["id_finished"].mean, lstm["ood_finished"].mean) == (0.42, 0.57)


def test_trained_models_of_the_paper_lie_on_the_floor_or_above():
    # The floors of Dyck and CS-Dyck are exact too.
    for (grammar, model), row in PUBLISHED.items():
        floor = GRAMMARS[grammar].loss_floor(256).nats_per_target
        if model == "linear":
            assert row["validation_loss"].mean > 5 * floor
        else:
            # .0005 of rounding, .001 of a validation set of 512 words
            assert floor - 0.0015 < row["validation_loss"].mean < 1.5 * floor


def test_reached_is_within_two_deviations():
    published = Spread(0.657, 0.162, 268)
    assert verdict("ood_rule_1", 0.657 - 0.324, published) == "reached"
    assert verdict("ood_rule_1", 0.657 - 0.325, published) == "below"
    assert verdict("ood_rule_1", 0.982, published) == "above"
    assert verdict("ood_rule_1", None, published) == "not run"
    assert verdict("ood_rule_1", 0.982, published, none_finished=True) == "none finished"
    assert verdict("ood_rule_1", None, published, none_finished=True) == "not run"


@pytest.mark.parametrize(
    ("metric", "deviation", "expected"),
    [
        ("ood_rule_1", 0.02, 0.04),
        ("ood_rule_1", 0.0, 0.05),
        ("validation_loss", 0.002, 0.004),
        ("validation_loss", 0.0, 0.0015),
        ("ood_finished", math.nan, 0.05),
    ],
)
def test_without_a_deviation_a_share_has_five_hundredths_and_a_loss_its_digits(
    metric, deviation, expected
):
    assert tolerance(metric, Spread(0.5, deviation, 5)) == pytest.approx(expected)


def test_the_edge_of_five_hundredths_is_reached():
    assert verdict("id_rule_1", 0.95, Spread(1.0, 0.0, 5)) == "reached"
    assert verdict("id_rule_1", 0.949, Spread(1.0, 0.0, 5)) == "below"


def test_the_best_published_row_of_a_grammar():
    assert best_published("aNbNcN") == ("transformer", Spread(0.187, 0.085, 10))
    assert best_published("abN") is None
    assert short_name("not_nested_parentheses_and_brackets") == "CS-Dyck"
    assert short_name("abN") == "abN"
