"""The tables say no more about the scored symbols than is known, and break no sentence."""

import numpy as np
import pytest

from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.intervals import Interval
from pyseq.analysis.verdicts import Verdict
from pyseq.cli.evaluation_table import print_analysis, print_evaluation
from tests.analysis import evaluations
from tests.analysis.evaluations import CHANCE, FOUND


def long_evaluation(**changes):
    verdict = Verdict("structure", "structure: " + "words " * 30, Interval(0.5, 0.4, 0.6))
    return evaluations.evaluation(
        verdict, ceiling=ceiling(np.full(16, 100)), scores=evaluations.scores(1000), **changes
    )


@pytest.mark.parametrize(("options", "word"), [({}, "held-out"), ({"held_out": False}, "scored")])
def test_the_title_calls_held_out_only_what_is_known_to_be(capsys, options, word):
    print_evaluation(long_evaluation(**options), None)
    out = capsys.readouterr().out
    assert f"bits/symbol on 1,000 {word} symbols" in out
    assert ("held-out" in out) == (word == "held-out")
    assert ("verdict: structure" in out) == (word == "held-out")
    assert ("\nno verdict: the scored range" in out) == (word == "scored")


def test_sentences_stay_on_one_line(capsys):
    print_evaluation(long_evaluation(), 2.5)
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("ceiling for independent draws"))
    assert line.endswith("4.00000 bits if all 6 classes were equally likely")
    assert any(line.startswith("verdict: structure: words") and len(line) > 150 for line in lines)


def shown(capsys, *arguments) -> str:
    """What is printed of predictions taken apart, runs of white space as one space."""
    print_analysis(*arguments)
    return " ".join(capsys.readouterr().out.split())


def test_predictions_are_taken_apart_in_tables(capsys):
    out = shown(capsys, evaluations.evaluation(), evaluations.analysis(), [])
    for expected in (
        "predictions by confidence",
        "predictions by entropy",
        "heads, on 2,998 symbols",
        "next symbol 2.1000 ± 0.1 4.5000 30.0 % 2.2000 structure",
        "2 ahead 2.2000 ± 0.1 4.5000 30.0 % 2.2000 structure",
        "the heads predict 1 to 2 symbols ahead",
        "scales, on 2,998 symbols",
        "6 classes 1.5000 ± 0.1 2.5000",
        "3 bins 1.5000 ± 0.1 2.5000",
        "each scale sums the probabilities over bins",
        "Verdicts at a level of 98.75 % each",
    ):
        assert expected in out, expected
    assert "at chance" not in out
    assert "mistakes" not in out


def test_lines_fit_a_narrow_terminal(capsys):
    print_analysis(evaluations.evaluation(CHANCE), evaluations.analysis(CHANCE), [])
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:1] in (" ", "─")]
    assert max(map(len, rows)) <= 80
    assert sum("at chance" in row for row in rows) == 4  # no cell is broken


def test_mistakes_on_tokens_are_listed_by_name(capsys):
    names = ["' '", "'e'", "'['", "']'", "x", "'[red]'"]
    out = shown(capsys, evaluations.evaluation(), evaluations.of_tokens(), names)
    assert "'[' ']' 41 25.0 %" in out
    assert "' ' '[red]' 7 12.5 %" in out
    assert "heads, on" not in out
    assert "scales, on" not in out
    assert "the model has one head tokens have no neighbours" in out


def test_at_chance_the_groups_are_explained(capsys):
    words = "The model is at chance: among several groups"
    assert words in shown(capsys, evaluations.evaluation(CHANCE), evaluations.analysis(CHANCE), [])
    assert words not in shown(capsys, evaluations.evaluation(FOUND), evaluations.analysis(), [])


def test_without_held_out_symbols_there_is_no_verdict(capsys):
    found = evaluations.evaluation(FOUND, held_out=False)
    out = shown(capsys, found, evaluations.analysis(), [])
    assert "structure" not in out
    assert "verdict" not in out.lower()
    assert "next symbol 2.1000 ± 0.1" in out
