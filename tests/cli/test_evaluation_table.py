"""The table says no more about the scored symbols than is known, and breaks no sentence."""

import numpy as np
import pytest

from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.intervals import Interval
from pyseq.analysis.scoring import Scores
from pyseq.analysis.verdicts import Verdict
from pyseq.cli.evaluation_table import print_evaluation


def evaluation() -> Evaluation:
    share = Interval(0.5, 0.4, 0.6)
    nothing = np.zeros(1000)
    return Evaluation(
        scores=Scores(1, nothing, nothing, nothing, nothing, np.zeros((1000, 3), dtype=bool), 16),
        bits={"model": Interval(3.0, 2.9, 3.1), "xz": 3.5},
        accuracy={1: share, 3: share, 5: share},
        entropy=Interval(3.0, 2.9, 3.1),
        confidence=share,
        ece=0.01,
        ceiling=ceiling(np.full(16, 100)),
        verdict=Verdict("structure", "structure: " + "words " * 30, share),
    )


@pytest.mark.parametrize(("options", "word"), [({}, "held-out"), ({"held_out": False}, "scored")])
def test_the_title_calls_held_out_only_what_is_known_to_be(capsys, options, word):
    print_evaluation(evaluation(), None, **options)
    out = capsys.readouterr().out
    assert f"bits/symbol on 1,000 {word} symbols" in out
    assert ("held-out" in out) == (word == "held-out")


def test_sentences_stay_on_one_line(capsys):
    print_evaluation(evaluation(), 2.5)
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("ceiling for independent draws"))
    assert line.endswith("4.00000 bits if all 16 classes were equally likely")
    assert any(line.startswith("verdict: structure: words") and len(line) > 150 for line in lines)
