"""What each strategy of rule training is worth: ``python -m benchmarks.rules_strategies``.

aNbN up to 32 symbols, 5 seeds as one stack, as many steps for all; each strategy is added alone to
plain training and held against it seed by seed. What was run is a line in
benchmarks/results/rules/strategies.jsonl and is not run again; docs/rules-strategies.md is written
anew from all lines.

Expected: "adversarial" drives OOD R1 to 0 and "oracle" comes near to 1, as both train on the tested
prompts; of the others none is expected to help by more than the seeds differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks import machine
from pyseq.analysis.fusion.gains import verdict
from pyseq.analysis.fusion.technique_table import markdown
from pyseq.analysis.intervals import Interval
from pyseq.analysis.rules import select_best, select_minimum_loss
from pyseq.models.rules import load_stack
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.language import Language
from pyseq.training.rules.run import BEST, train_rules

RESULTS = Path(__file__).parent / "results" / "rules" / "strategies.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "rules-strategies.md"
MODELS = ("lstm", "transformer")
# An epoch of aNbN at this length is one step.
COMMON: Mapping[str, Any] = {
    "grammar": "aNbN", "max_length": 32, "seeds": 5, "max_steps": 2000, "validate_every": 200,
    "patience": 0,
}  # fmt: skip
PLAIN, PROGRESSIVE = "plain", "progressive: from step 700 and 1400"
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    "curriculum: 8 symbols, 16 from step 400, 32 from step 800": {
        "curriculum_lengths": (8, 16),
        "curriculum_epochs": (400, 800),
    },
    PROGRESSIVE: {"progressive": (700, 1400)},
    "multi-task with baN": {"multi_task": ("baN",)},
    "label smoothing .1": {"label_smoothing": 0.1},
    "focal loss, gamma 2": {"focal_gamma": 2.0},
    "counting loss, weight .1": {"auxiliary_weight": 0.1},
    "augmentation .05": {"augment": 0.05},
    "weight decay .1": {"weight_decay": 0.1},
    "learning-rate finder": {"lr_find": True},
    "adversarial (a diagnostic)": {"adversarial": True},
    "oracle (an upper bound)": {"oracle": True},
}


def configured(model: str, strategy: str, out: str, threads: int) -> RulesConfig:
    """A resolved training."""
    changes = {**COMMON, **STRATEGIES[strategy]}
    config = RulesConfig(model=model, out=out, device="cpu", threads=threads, **changes)
    return config.resolved()


def settings_of(config: RulesConfig) -> dict[str, Any]:
    """What a line must agree in to be of this table, in JSON's types."""
    left_out = {"out", "threads", "resume", "device", "max_time"}
    return json.loads(json.dumps({k: v for k, v in config.to_dict().items() if k not in left_out}))


def run(model: str, strategy: str, threads: int) -> dict[str, Any]:
    """Train one strategy; its line."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pyseq-strategies-") as folder:
        config = configured(model, strategy, folder, threads)
        record = train_rules(config, told=False)
        stack, _ = load_stack(Path(folder) / BEST)
        language = Language.of(config)
        scores = language.scores(stack)
        with torch.inference_mode():
            (together,) = language.scores(stack, average=True)
        # What "progressive" keeps from its training is half of what the others are tested on.
        held_out = Language.of(configured(model, PROGRESSIVE, folder, threads)).prompts
        own = language.prompts
        language.prompts = dataclasses.replace(
            own, out_of_distribution=[p for p in own.out_of_distribution
                                      if p in set(held_out.out_of_distribution)],
        )  # fmt: skip
        half = language.scores(stack)
    best = [select_best(rows) for rows in record.histories]
    least = [select_minimum_loss(rows) for rows in record.histories]
    return {
        "model": model,
        "strategy": strategy,
        "settings": settings_of(config),
        "seeds": list(record.seeds),
        "lr": record.config["lr"],
        "prompts": len(own.out_of_distribution),
        "ood_rule_1": [score.ood_rule_1 for score in scores],
        "ood_finished": [score.ood_finished for score in scores],
        "id_rule_1": [score.id_rule_1 for score in scores],
        "held_out_half": [score.ood_rule_1 for score in half],
        "ensemble": together.ood_rule_1,
        "best_of_history": [row["ood_rule_1"] for row in best],
        "validation_loss": [row["validation_loss"] for row in least],
        "floor": record.floor,
        "seconds": time.perf_counter() - began,
        "machine": machine.device_name("cpu"),
    }


def read_lines(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Lines of this table's settings, by model and strategy."""
    found = {}
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for line in map(json.loads, lines):
        key = line["model"], line["strategy"]
        known = key[0] in MODELS and key[1] in STRATEGIES
        if known and line["settings"] == settings_of(configured(*key, "", 1)):
            found[key] = line
    return found


def gain(with_: Sequence[float], without: Sequence[float]) -> Interval:
    """Mean difference over seeds with its 95 % interval, Student's; infinite for one seed."""
    difference = np.subtract(with_, without)
    count, mean = len(difference), float(difference.mean())
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    quantile = float(stats.t.ppf(0.975, count - 1))
    margin = quantile * float(difference.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - margin, mean + margin)


def kept(line: Mapping[str, Any]) -> list[float]:
    """Share of all prompts whose completion ends and keeps rule 1, for each seed."""
    return [
        rule * ended for rule, ended in zip(line["ood_rule_1"], line["ood_finished"], strict=True)
    ]


def table(lines: Mapping[tuple[str, str], Mapping[str, Any]], model: str) -> list[str]:
    """One model's strategies as Markdown."""
    plain = lines.get((model, PLAIN))
    if plain is None:
        return [f"## {model}", "Not run yet."]
    rows = []
    for strategy in STRATEGIES:
        line = lines.get((model, strategy))
        if line is None:
            rows.append((strategy, "not run", *[""] * 9))
            continue
        which = "held_out_half" if strategy == PROGRESSIVE else "ood_rule_1"
        of_ended = compared(line[which], plain[which]) if strategy != PLAIN else ("", "")
        # What plain training ends of the half is not in its line.
        alike = strategy not in (PLAIN, PROGRESSIVE)
        of_all = compared(kept(line), kept(plain)) if alike else ("", "")
        rows.append(
            (
                strategy,
                spread(line["ood_rule_1"]),
                *of_ended,
                spread(line["ood_finished"]),
                spread(kept(line)),
                *of_all,
                spread(line["best_of_history"]),
                f"{line['ensemble']:.3f}",
                f"{np.mean(line['validation_loss']):.4f}",
            )
        )
    gains = ("gain over plain", "verdict")
    head = ("strategy", "OOD R1", *gains, "finished", "kept", *gains, "best of history", "ensemble",
            "validation loss")  # fmt: skip
    minutes = sum(line["seconds"] for (of, _), line in lines.items() if of == model) / 60
    return [
        f"## {model}",
        markdown(head, rows),
        f"{minutes:.0f} minutes of wall clock on {plain['machine']}, which had other things to do; "
        f"the least possible loss is {plain['floor']:.4f}.",
    ]


def compared(with_: Sequence[float], without: Sequence[float]) -> tuple[str, str]:
    """The gain and what is to be said of it."""
    found = gain(with_, without)
    return str(found), verdict(found)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def page(lines: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The whole page."""
    parts = [
        "# What each strategy of rule training is worth",
        "Written by `python -m benchmarks.rules_strategies`: "
        + ", ".join(f"{name} {value}" for name, value in COMMON.items())
        + "; other settings as published. OOD R1 is that of the completions that end, for the "
        "weights with the least validation loss, mean and standard deviation over seeds; finished "
        "is the share that ends, and kept is the share of all prompts that end and keep rule 1. "
        "Best of history is the figure that the paper's tables have; the ensemble averages the "
        "seeds' probabilities at every step. A gain is paired by seed, with Student's 95 % "
        "interval over seeds; of forty gains by what does nothing, one is said to help and one to "
        "hurt. Where all seeds agree an interval has no width, which says nothing of other seeds. "
        "Progressive training learns right completions of half of the prompts: its figures and its "
        "gain are of the other half alone.",
    ]
    for model in MODELS:
        parts += table(lines, model)
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + 60 * chosen.minutes
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    known = read_lines(chosen.results)
    for model in chosen.models:
        for strategy in STRATEGIES:
            if (model, strategy) in known or time.monotonic() > end:
                continue
            line = run(model, strategy, chosen.threads)
            with chosen.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"{model}, {strategy}: OOD R1 {spread(line['ood_rule_1'])}, "
                f"{line['seconds']:.0f} s", flush=True,
            )  # fmt: skip
    chosen.page.write_text(page(read_lines(chosen.results)), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
