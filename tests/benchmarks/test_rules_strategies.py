import json

import pytest

from benchmarks import rules_strategies
from benchmarks.rules_strategies import COMMON, PLAIN, PROGRESSIVE, STRATEGIES, gain, verdict

SMALL = {
    "max_length": 12, "prompt_length": 4, "seeds": 2, "max_steps": 8, "validate_every": 4,
    "warmup": 2, "lr": 1e-2, "num_validation": 8,
}  # fmt: skip


def test_every_strategy_is_a_training_that_can_be_run():
    configs = {
        (model, name): rules_strategies.configured(model, name, "x", 1)
        for model in rules_strategies.MODELS
        for name in STRATEGIES
    }
    for (model, name), config in configs.items():
        differs = {
            key
            for key, value in config.to_dict().items()
            if value != configs[model, PLAIN].to_dict()[key]
        }
        assert differs == set(STRATEGIES[name])


def test_what_was_run_is_kept_and_stands_on_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rules_strategies, "COMMON", {**COMMON, **SMALL})
    names = [PLAIN, PROGRESSIVE, "oracle (an upper bound)"]
    few = {name: STRATEGIES[name] for name in names} | {PROGRESSIVE: {"progressive": (2, 4)}}
    monkeypatch.setattr(rules_strategies, "STRATEGIES", few)
    flags = ["--models", "lstm", "--results", str(tmp_path / "rules" / "lines.jsonl"),
             "--page", str(tmp_path / "page.md")]  # fmt: skip
    assert rules_strategies.main(flags) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    lines = [json.loads(x) for x in (tmp_path / "rules" / "lines.jsonl").read_text().splitlines()]
    prompts = {line["strategy"]: line["prompts"] for line in lines}
    assert prompts[PLAIN] == prompts["oracle (an upper bound)"]
    assert prompts[PROGRESSIVE] == pytest.approx(prompts[PLAIN] / 2, abs=1)
    progressive = next(line for line in lines if line["strategy"] == PROGRESSIVE)
    assert progressive["ood_rule_1"] == progressive["held_out_half"]
    text = (tmp_path / "page.md").read_text()
    assert "| plain | " in text
    assert "## transformer\n\nNot run yet." in text
    assert rules_strategies.main(flags) == 0
    assert capsys.readouterr().out == ""
    # Lines of other settings are of another table.
    monkeypatch.setattr(rules_strategies, "COMMON", {**COMMON, **SMALL, "max_steps": 9})
    assert rules_strategies.read_lines(tmp_path / "rules" / "lines.jsonl") == {}


def test_the_page_in_docs_is_that_of_the_lines():
    lines = rules_strategies.read_lines(rules_strategies.RESULTS)
    assert len(lines) == len(rules_strategies.RESULTS.read_text("utf-8").splitlines())
    assert rules_strategies.PAGE.read_text("utf-8") == rules_strategies.page(lines)


def test_more_of_fewer_completions_may_be_a_gain_and_a_loss():
    ended, rare = [0.5, 0.5, 0.5], [0.1, 0.1, 0.1]
    line = {"ood_rule_1": [0.4, 0.5, 0.6], "ood_finished": ended, "held_out_half": [0.4, 0.4, 0.4],
            "best_of_history": [0.7] * 3, "ensemble": 0.5, "validation_loss": [0.1] * 3,
            "seconds": 60.0, "machine": "a machine", "floor": 0.08}  # fmt: skip
    few = line | {"ood_rule_1": [0.6, 0.7, 0.81], "ood_finished": rare}
    lines = {("lstm", PLAIN): line, ("lstm", "weight decay .1"): few, ("lstm", PROGRESSIVE): few}
    rows = rules_strategies.table(lines, "lstm")[1].splitlines()
    [decay] = [row.split(" | ") for row in rows if "weight decay" in row]
    [progressive] = [row.split(" | ") for row in rows if "progressive" in row]
    assert decay[1] == "0.703 ± 0.105"
    assert decay[2].startswith("0.203 [")
    assert decay[3:6] == ["helps", "0.100 ± 0.000", "0.070 ± 0.011"]
    assert decay[6].startswith("-0.180 [")
    assert decay[7] == "hurts"
    assert progressive[6:8] == ["", ""]


def test_gains_are_paired_by_seed():
    found = gain([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert verdict(found) == "helps"
    assert verdict(gain([0.4, 0.6], [0.5, 0.7])) == "hurts"
    wide = gain([0.0, 1.0, 0.5], [0.1, 0.2, 0.9])
    assert wide.low < 0 < wide.high
    assert verdict(wide).startswith("no difference")
    assert verdict(gain([1.0], [0.0])).startswith("no difference")
