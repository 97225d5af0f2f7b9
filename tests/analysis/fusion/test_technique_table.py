import json
from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.fusion import (
    TechniqueRun,
    append_run,
    missing_rows,
    missing_texts,
    paired_gain,
    read_runs,
    technique_rows,
    technique_texts,
)
from pyseq.errors import UserError
from tests.analysis.fusion.records import guesses

LABEL = np.random.default_rng(0).integers(3, size=300)
SEEDS = range(5)


def run(technique, place, seed, sharpness, **more):
    given = guesses(LABEL, sharpness, [seed, len(technique), len(place)])
    return TechniqueRun.of(
        given, LABEL, data="animals", technique=technique, place=place, seed=seed, **more
    )


def runs():
    """Mixup helps, glitter does nothing, dust hurts."""
    found = [run("", "baseline", s, 2.0) for s in SEEDS]
    for name, alone, so_far in (("mixup", 3.0, 3.0), ("glitter", 2.0, 3.0), ("dust", 1.0, 2.0)):
        found += [run(name, "alone", s, alone) for s in SEEDS]
        found += [run(name, "so far", s, so_far) for s in SEEDS]
    return found


ORDER = ("mixup", "glitter", "dust")


def test_verdicts_are_those_of_what_was_planted():
    rows = technique_rows(runs(), "animals", ORDER)
    assert [row.technique for row in rows] == ["", *ORDER]
    for metric in ("accuracy", "nll"):
        alone = [row.alone[metric].verdict for row in rows[1:]]
        so_far = [row.so_far[metric].verdict for row in rows[1:]]
        assert alone == so_far == ["helps", "no difference that the data can show", "hurts"]


def test_gains_so_far_add_up_to_the_total():
    rows = technique_rows(runs(), "animals", ORDER)
    for metric in ("accuracy", "nll"):
        steps = sum(row.so_far[metric].interval.value for row in rows[1:])
        assert steps == pytest.approx(rows[-1].total[metric].interval.value)
    gained = rows[-1].accuracy.value - rows[0].accuracy.value
    assert rows[-1].total["accuracy"].interval.value == pytest.approx(gained)


def test_a_gain_is_paired_gains_own():
    probabilities = [guesses(LABEL, 2.0 + k, [s, k]) for k in (0, 1) for s in SEEDS]
    first, second = np.stack(probabilities[:5]), np.stack(probabilities[5:])
    found = [
        TechniqueRun.of(each, LABEL, data="animals", technique=name, place=place, seed=seed)
        for name, place, arm in (("", "baseline", first), ("it", "alone", second))
        for seed, each in enumerate(arm)
    ]
    row = technique_rows(found, "animals", ["it"])[1]
    for metric in ("accuracy", "nll"):
        whole = paired_gain(second, first, LABEL, metric=metric).interval
        assert row.alone[metric].interval.value == pytest.approx(whole.value, abs=1e-5)
        assert row.alone[metric].interval.low == pytest.approx(whole.low, abs=1e-4)


def test_a_step_that_was_not_run_leaves_the_next_without_a_gain():
    found = [each for each in runs() if (each.technique, each.place) != ("glitter", "so far")]
    rows = technique_rows(found, "animals", ORDER)
    assert rows[2].so_far == {}
    assert rows[3].so_far == {}
    assert rows[3].total["nll"].seeds == 5
    assert technique_rows(found, "plants", ORDER) == []


def test_what_is_for_alone_only_is_no_step():
    found = [each for each in runs() if (each.technique, each.place) != ("glitter", "so far")]
    rows = technique_rows(found, "animals", ORDER, left_out={"glitter"})
    assert rows[2].so_far == {}
    assert rows[2].alone["nll"].seeds == 5
    dust = technique_rows(found, "animals", ["mixup", "dust"])[2]
    assert rows[3].so_far == dust.so_far
    assert "glitter" not in [line[0] for line in technique_texts(rows, "so far")[1]]


def test_a_technique_upon_another_is_held_against_it():
    found = runs()
    plain = technique_rows(found, "animals", ORDER)
    rows = technique_rows(found, "animals", ORDER, upon={"dust": "mixup"})
    assert rows[2] == plain[2]
    better = plain[1].alone["nll"].interval.value
    worse = plain[3].alone["nll"].interval.value
    assert rows[3].alone["nll"].interval.value == pytest.approx(worse - better)


def test_few_seeds_are_said_and_pair_by_pair():
    found = [each for each in runs() if each.technique != "mixup" or each.seed in (1, 3)]
    rows = technique_rows(found, "animals", ORDER)
    assert rows[1].alone["accuracy"].seeds == 2
    _, lines = technique_texts(rows, "alone")
    assert lines[1][1] == "2 (few)"
    assert lines[0][:2] == ("baseline", "5")


def test_seeds_are_counted_where_a_row_has_a_partner():
    found = [each for each in runs() if each.place != "baseline" or each.seed < 2]
    rows = technique_rows(found, "animals", ORDER)
    assert {line[1] for line in technique_texts(rows, "alone")[1]} == {"2 (few)"}
    so_far = {line[0]: line[1] for line in technique_texts(rows, "so far")[1]}
    assert so_far == {"baseline": "2 (few)", "mixup": "2 (few)", "glitter": "5", "dust": "5"}


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "some.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read: it is no text"):
        read_runs(tmp_path / "some.jsonl")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_runs(tmp_path)


def test_both_halves_of_the_table_have_a_text_for_each_heading():
    rows = technique_rows(runs(), "animals", ORDER)
    for place in ("alone", "so far"):
        head, lines = technique_texts(rows, place)
        assert {len(line) for line in lines} == {len(head)}
        assert [line[3] for line in lines] == ["", "helps", "cannot tell", "hurts"]
        assert lines[1][2].startswith("+")


def test_other_test_objects_are_refused():
    found = runs()
    short = TechniqueRun.of(
        guesses(LABEL[:9], 1, 0), LABEL[:9], data="animals", technique="", place="baseline", seed=2
    )
    with pytest.raises(ValueError, match=r"\[9, 300\] test objects|broadcast"):
        technique_rows([*found, short], "animals", ORDER)


def blind(seed, sharpness, without, technique=""):
    place = "alone" if technique else "baseline"
    hidden = {
        name: guesses(LABEL, s, [seed, len(technique), 9, k])
        for k, (name, s) in enumerate(without.items())
    }
    return run(technique, place, seed, sharpness, without=hidden)


def test_missing_modalities_are_held_against_half_of_the_others_loss():
    concatenation = [blind(s, 4.0, {"voice": 0.5, "face": 2.0}) for s in SEEDS]
    attention = [blind(s, 4.0, {"voice": 3.0, "face": 2.0}, "attention") for s in SEEDS]
    rows = {row.modality: row for row in missing_rows(attention, concatenation)}
    assert set(rows) == {"voice", "face", "any one"}
    assert rows["voice"].verdict == "less than half"
    assert rows["face"].verdict == "not less than half"
    any_one, parts = rows["any one"], (rows["voice"], rows["face"])
    assert any_one.loss.value == pytest.approx(np.mean([row.loss.value for row in parts]))
    assert any_one.margin.value == pytest.approx(
        any_one.reference_loss.value / 2 - any_one.loss.value
    )
    lost = np.mean([each.hit.mean() for each in attention]) - np.mean(
        [[digit == "1" for digit in each.without["voice"]] for each in attention]
    )
    assert rows["voice"].loss.value == pytest.approx(lost)
    head, lines = missing_texts(list(rows.values()))
    assert len(lines) == 3
    assert len(lines[0]) == len(head)


def test_without_a_common_seed_or_modality_nothing_is_compared():
    first, second = blind(0, 2.0, {"voice": 1.0}), blind(1, 2.0, {"voice": 1.0}, "attention")
    assert missing_rows([second], [first]) == []
    other = blind(0, 2.0, {"face": 1.0}, "attention")
    assert missing_rows([other], [first]) == []


def test_runs_come_back_and_the_last_of_a_key_counts(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert read_runs(path) == []
    first = blind(0, 2.0, {"voice": 1.0})
    append_run(path, first)
    append_run(path, replace(first, seed=1))
    append_run(path, replace(first, seconds=3.0, settings={"width": 8}, group=[0] * 300))
    found = read_runs(path)
    assert [each.seed for each in found] == [0, 1]
    assert found[0].seconds == 3.0
    assert found[1] == replace(first, seed=1)


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "runs.jsonl"
    one = run("", "baseline", 0, 2.0)
    append_run(path, one)
    with path.open("a") as file:
        file.write('{"data": "animals", "tech')
    append_run(path, replace(one, seed=1))
    assert [each.seed for each in read_runs(path)] == [0, 1]


def test_a_whole_line_of_something_else_is_refused(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps({"name": "mixup"}) + "\n")
    with pytest.raises(UserError, match=r"line 1, is no run of a technique"):
        read_runs(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"place": "so far"}, "the baseline has no technique"),
        ({"place": "nowhere"}, "'nowhere'"),
        ({"nats": [1.0]}, r"\[1, 300\] objects"),
        ({"group": [1]}, r"\[1, 300\] objects"),
    ],
)
def test_a_run_that_does_not_fit_itself_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        replace(run("", "baseline", 0, 2.0), **changes)
