"""Linear on aNbN, as published and with its mask turned: at length 16 in seconds."""

import pytest

from pyseq.analysis.rules import select_best
from pyseq.models.rules import LinearConfig
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.run import train_rules


def best_rows(folder, variant):
    """The best of each metric over a training's history, of every seed."""
    record = train_rules(
        RulesConfig(
            grammar="aNbN", model="linear", linear=LinearConfig(variant=variant), max_length=16,
            seeds=3, max_steps=1500, patience=0, device="cpu", out=str(folder / variant),
        ),
        told=False,
    )  # fmt: skip
    return [select_best(rows) for rows in record.histories]


def test_as_published_it_repeats_one_token(tmp_path):
    """EOS, whatever the prompt: R1 holds where the prompt keeps it, and 69 of 251 do."""
    for row in best_rows(tmp_path, "official"):
        assert (row["id_finished"], row["ood_finished"]) == (1, 1)
        assert row["ood_rule_1"] == pytest.approx(69 / 251)
        assert row["id_rule_1"] == pytest.approx(1 / 5)


def test_with_the_mask_turned_it_reads_the_prompt(tmp_path):
    """ID R1 is 1.00 and OOD R1 .20, less than the .275 of EOS at once."""
    rows = best_rows(tmp_path, "fixed")
    assert [row["id_rule_1"] for row in rows] == [1, 1, 1]
    outside = [row["ood_rule_1"] for row in rows]
    assert sum(outside) / 3 == pytest.approx(0.20, abs=0.02)
