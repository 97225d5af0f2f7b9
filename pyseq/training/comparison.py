"""Both models trained on one budget, one after the other, and judged on the same symbols."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation, as_json, perplexity
from pyseq.analysis.plots import bits_chart
from pyseq.analysis.report.page import figure, note, page, section, table, verdict_box
from pyseq.analysis.verdicts import Contest, contest
from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError
from pyseq.models.checkpoint import MODELS
from pyseq.training.config import TrainConfig
from pyseq.training.fit import Outcome
from pyseq.training.resume import checkpoint_to_resume
from pyseq.training.run import Run, prepare, run_folder

ENDLESS = 1_000_000  # epochs: more than any clock or number of steps lets happen
_SPENT = {
    "parameters": "{:,}", "steps": "{:,}", "symbols": "{:,}", "seconds": "{:.1f}",
    "symbols/s": "{:,.0f}", "TFLOP": "{:.3g}", "learning rate": "{:g}",
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """Two trainings and what they show.

    Attributes:
        outcomes (dict model name -> Outcome): in the order in which they were trained.
        contest (Contest): the second model beside the first, and both beside the baselines.
    """

    outcomes: dict[str, Outcome]
    contest: Contest

    @property
    def spent(self) -> dict[str, dict[str, float | None]]:
        """What each training used; symbols count repeats, seconds also validations."""
        return {name: _spent(outcome) for name, outcome in self.outcomes.items()}

    @property
    def evaluation(self) -> Evaluation:
        """One of the two, for what they share: scored symbols, baselines, ceiling."""
        return next(iter(self.outcomes.values())).evaluation

    @property
    def config(self) -> TrainConfig:
        """One of the two, for what they share: all but the model, its file and its defaults."""
        return next(iter(self.outcomes.values())).run.config

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, bits/symbol, perplexity, top-1 accuracy of every predictor, "" where unknown.

        The models come first and the ceiling last.
        """
        rows = []
        for name, outcome in self.outcomes.items():
            found = outcome.evaluation
            bits, top1 = str(found.bits["model"]), format_percent(found.accuracy[1])
            rows.append((name, bits, str(found.perplexity), top1))
        for name, of_baseline in self.evaluation.bits.items():
            if isinstance(of_baseline, float):
                rows.append((name, f"{of_baseline:.4f}", "", ""))
            elif name != "model":
                rows.append((name, str(of_baseline), str(perplexity(of_baseline)), ""))
        most = self.evaluation.ceiling
        top1 = format_percent(most.top1)
        return [*rows, ("ceiling", f"{most.bits:.4f}", f"{2**most.bits:.4g}", top1)]

    def spent_rows(self) -> list[tuple[str, ...]]:
        """What each training used, as text: a name and a value for each model."""
        columns = [
            [
                form.format(x) if (x := used[name]) is not None else ""
                for name, form in _SPENT.items()
            ]
            for used in self.spent.values()
        ]
        return list(zip(_SPENT, *columns, strict=True))

    def statements(self) -> list[tuple[str, str]]:
        """Subjects and sentences: everything that is said about the models, and with what right."""
        found = self.contest
        chances = len(self.evaluation.bits)  # the models, and the baselines but the marginal
        return [
            ("verdict", found.sentence),
            *((f"{name} on its own", verdict.sentence) for name, verdict in found.verdicts.items()),
            *(
                (f"{name} in bits/byte", str(outcome.evaluation.bits_per_byte))
                for name, outcome in self.outcomes.items()
                if outcome.evaluation.bits_per_byte is not None
            ),
            ("best of all predictors", found.best),
            (
                "intervals",
                f"these sentences rest on {100 * found.level:.4g} % intervals: {chances} predictors"
                f" beside the marginal are {chances} chances of a false finding, which together"
                " stay at about 5 % (Bonferroni)",
            ),
            (
                "alike for both",
                "the stream, its split and classes, the order of the windows, batches and schedule,"
                f" seed {self.config.seed}, device {self.config.device}, CPU threads"
                f" {self.config.threads}; validations count in the time of both"
                + self._about_rates(),
            ),
            (
                "limits",
                "one training of each model, on this budget and with one seed: the intervals are"
                " about the symbols that were scored, and another seed may end elsewhere;"
                f" {next(iter(self.outcomes))} was trained first, and under a time limit a machine"
                " that was busier during one of the two gave that one fewer steps",
            ),
        ]

    def _about_rates(self) -> str:
        rates = {outcome.run.config.lr for outcome in self.outcomes.values()}
        return "; the learning rates are --lr_find's, in extra time" if len(rates) > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """What goes into summary.json, of JSON's types only."""
        models = {}
        for name, outcome in self.outcomes.items():
            verdict = self.contest.verdicts[name]
            alone = {
                "verdict": verdict.kind,
                "gain_bits_per_symbol": verdict.gain,
                "sentence": verdict.sentence,
            }
            models[name] = {
                "ckpt": outcome.run.config.ckpt,
                **self.spent[name],
                "best_validation_bits": outcome.summary["best_validation_bits"],
                "test": outcome.evaluation.to_dict() | alone,
            }
        return as_json(
            {
                "budget": budget(self.config),
                "verdict": self.contest.kind,
                "gain_bits_per_symbol": self.contest.gain,
                "level": self.contest.level,
                "sentence": self.contest.sentence,
                "best": self.contest.best,
                "models": models,
            }
        )


def contestants(config: TrainConfig, minutes: float) -> dict[str, TrainConfig]:
    """What each model is trained with: everything alike but the model and where it goes.

    Args:
        config (TrainConfig): the flags. `epochs` 0: as many as the other limits allow; `model` is
            not looked at; `ckpt` x.pt gives x.baseline.pt and x.supercharged.pt.
        minutes (float): time for each model where the flags set no limit.

    Returns:
        dict model name -> TrainConfig: for `prepare`.

    Raises:
        UserError: a flag does not fit a comparison.
    """
    path, folder = Path(config.ckpt), run_folder(config.ckpt)
    if not path.name or path.is_dir():
        raise UserError(f"--ckpt {path} is a directory; a file name fits")
    if (folder / "config.yaml").exists():
        raise UserError(f"--ckpt {path}: {folder} belongs to a training; another name fits")
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    settings = {name: getattr(config, name) for name in names}
    if config.epochs == 0:
        settings["epochs"] = ENDLESS
        if config.max_time is None and config.max_steps is None:
            settings["max_time"] = minutes
    suffix = path.suffix or ".pt"
    return {
        name: TrainConfig(
            **settings | {"model": name, "ckpt": str(path.with_name(f"{path.stem}.{name}{suffix}"))}
        )
        for name in MODELS
    }


def prepare_both(configs: dict[str, TrainConfig]) -> Run:
    """Find everything that can be wrong with either training before the first one begins.

    Each training is prepared once more when its turn comes, so that it starts from the random state
    that it would have on its own.

    Args:
        configs (dict model name -> TrainConfig): what `contestants` gave.

    Returns:
        Run: the first, for what they share.

    Raises:
        UserError: the stream, a flag, or what `--resume auto` would go on from does not fit.
    """
    runs = [prepare(config) for config in configs.values()]
    for run in runs:
        checkpoint_to_resume(run)
    return runs[0]


def budget(config: TrainConfig) -> str:
    """The limits of each training, in words."""
    limits = []
    if config.max_time is not None:
        limits.append(f"{config.max_time:g} minute{_s(config.max_time)} with validations")
    if config.max_steps is not None:
        limits.append(f"{config.max_steps:,} optimiser step{_s(config.max_steps)}")
    if config.epochs != ENDLESS:
        limits.append(f"{config.epochs:,} pass{'es' * (config.epochs > 1)} over the training range")
    either = ", whichever comes first" if len(limits) > 1 else ""
    return f"{' or '.join(limits)} for each model{either}"


def _s(number: float) -> str:
    return "" if number == 1 else "s"


def judge_both(outcomes: dict[str, Outcome]) -> Compared:
    """Say what two trainings show.

    Args:
        outcomes (dict model name -> Outcome): of `fit`, in the order of the trainings.

    Returns:
        Compared: judged on the symbols that both have scored.

    Raises:
        ValueError: the two have scored different symbols.
    """
    first, second = (outcome.evaluation.scores for outcome in outcomes.values())
    if first.first != second.first or not np.array_equal(first.classes, second.classes):
        raise ValueError(
            f"judge_both: {' and '.join(outcomes)} have scored different symbols, {first.first} to"
            f" {first.first + len(first.bits)} and {second.first} to"
            f" {second.first + len(second.bits)}"
        )
    shared = next(iter(outcomes.values()))
    found = contest(
        {name: outcome.evaluation.scores.bits for name, outcome in outcomes.items()},
        shared.evaluation.baselines,
        first.classes,
        ceiling=shared.evaluation.ceiling,
        block=shared.run.config.seq_len,
    )
    return Compared(outcomes, found)


def open_folder(config: TrainConfig) -> Path:
    """The comparison's run folder, without what an earlier comparison has left.

    Args:
        config (TrainConfig): the flags, as `contestants` took them.

    Returns:
        Path: of the folder.

    Raises:
        UserError: it cannot be made.
    """
    folder = run_folder(config.ckpt)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    for leftover in ("summary.json", "report.html"):
        (folder / leftover).unlink(missing_ok=True)
    return folder


def write_comparison(folder: Path, compared: Compared) -> Path:
    """Write summary.json and report.html.

    Args:
        folder (Path): the comparison's run folder.
        compared (Compared): what is written.

    Returns:
        Path: of the report.

    Raises:
        UserError: a file cannot be written.
    """
    summary = json.dumps(compared.to_dict(), indent=2, allow_nan=False) + "\n"
    replace_file(folder / "summary.json", lambda path: path.write_text(summary))
    report, text = folder / "report.html", _page(compared)
    replace_file(report, lambda path: path.write_text(text, encoding="utf-8"))
    return report


def _page(compared: Compared) -> str:
    evaluation, names = compared.evaluation, list(compared.outcomes)
    bits = [(name, outcome.evaluation.bits["model"]) for name, outcome in compared.outcomes.items()]
    bits += [item for item in evaluation.bits.items() if item[0] != "model"]
    scored = f"{len(evaluation.scores.bits):,} held-out symbols, 95 % intervals"
    (_, verdict), *statements = compared.statements()
    return page(
        f"{' and '.join(names)} on {Path(compared.config.u16_path).name}",
        verdict_box(verdict),
        [
            section(
                "Predictors",
                figure(bits_chart(bits, evaluation.ceiling, highlight=names[-1])),
                table(("", "bits/symbol", "perplexity", "top-1 accuracy"), compared.rows()),
                note(f"{scored}. The ceiling is of independent draws: {evaluation.ceiling.reason}"),
            ),
            section("What this shows", *(note(": ".join(said)) for said in statements)),
            section(
                "What each used",
                table(("", *names), compared.spent_rows()),
                note(f"The budget: {budget(compared.config)}."),
            ),
        ],
    )


def _spent(outcome: Outcome) -> dict[str, float | None]:
    used = outcome.summary["budget"]
    return {
        "parameters": outcome.summary["parameters"],
        "steps": used["steps"],
        "symbols": used["symbols"],
        "seconds": used["seconds"],
        "symbols/s": used["symbols_per_second"],
        "TFLOP": (used["symbols"] or 0) * used["mflop_per_symbol"] / 1e6,
        "learning rate": outcome.run.config.lr,
    }
