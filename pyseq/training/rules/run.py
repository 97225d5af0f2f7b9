"""One training of a stack, from its settings to the record and the report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from torch import Tensor

from pyseq.analysis.rules import RunRecord, write_record
from pyseq.analysis.rules.examination import examine
from pyseq.analysis.rules.run_report import write_rules_report
from pyseq.data.durable_file import replace_file
from pyseq.data.grammars import chance_level, emit_eos_at_once
from pyseq.errors import UserError
from pyseq.models.device import choose_device
from pyseq.models.rules import RuleModel, build_rule_model, save_stack
from pyseq.training.callbacks import LastCheckpoint, StopAtEnd
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.folder_lock import locked, made
from pyseq.training.interruption import Interruption
from pyseq.training.lightning_trainer import quietly
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.resume import settings_to_resume
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.history import COLUMNS, History
from pyseq.training.rules.language import Language
from pyseq.training.rules.module import RuleTraining
from pyseq.training.rules.published import variant
from pyseq.training.rules.words import Curriculum, WordBatches

BEST, LAST, RECORD, REPORT = "model.pt", "last.pt", "record.json", "report.html"

# What may differ between a run and its continuation: where it runs, and for how long.
_MAY_CHANGE = {"out", "resume", "device", "threads", "max_time"}


@dataclass(frozen=True)
class RulesRun:
    """Everything that is settled before the first step.

    Attributes:
        config (RulesConfig): resolved.
        language (Language): what is learned and tested.
        model (RuleModel): with fresh weights.
        batches (WordBatches): the whole training.
        validation (Tensor (S, N, L), uint8): validation words.
        device (torch.device): where the model runs.
    """

    config: RulesConfig
    language: Language
    model: RuleModel
    batches: WordBatches
    validation: Tensor
    device: torch.device

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(str(self.config.out))

    @property
    def validate_steps(self) -> int:
        """Optimiser steps between validations."""
        per_unit = self.batches.steps_per_epoch if self.config.validate_unit == "epoch" else 1
        assert self.config.validate_every is not None, "prepare_rules resolves it"
        return self.config.validate_every * per_unit


def prepare_rules(config: RulesConfig) -> RulesRun:
    """Settle everything that can be wrong before anything is written or trained.

    Args:
        config (RulesConfig): the flags; `threads` is set for the whole process.

    Returns:
        RulesRun: ready to be trained.

    Raises:
        UserError: a flag does not fit; one sentence.
    """
    config = config.resolved()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    assert config.num_train is not None, "resolved"
    language = Language.of(config)
    seeds = config.all_seeds
    batches = WordBatches(
        language.training_pools(config.num_train, seeds), seeds, config.batch, config.max_steps,
        Curriculum(config.curriculum_lengths, config.curriculum_epochs), device,
    )  # fmt: skip
    model = build_rule_model(
        config.model_config, classes=language.classes, max_length=language.model_length,
        seeds=seeds,
    )  # fmt: skip
    validation = language.validation_tokens(config.num_validation, seeds)
    return RulesRun(config, language, model, batches, validation, device)


def train_rules(config: RulesConfig, *, told: bool = True) -> RunRecord:
    """Train a stack, keep each seed's best and last weights, write record and report.

    Dropout draws from torch's generator, which is seeded here; without it a seed learns the same
    in every stack.

    Args:
        config (RulesConfig): the flags.
        told (bool): whether each validation prints a line to stderr.

    Returns:
        RunRecord: what record.json in the run folder holds.

    Raises:
        UserError: a flag does not fit, `--resume auto` finds another run's state, or the disk is
            full.
        TrainingStopped: SIGTERM or Ctrl-C, in the main thread; the state is saved first.
    """
    run = prepare_rules(config)
    made(run.folder, "--out")
    with Interruption() as interruption, locked(run.folder, "--out"):
        checkpoint = _checkpoint_to_resume(run)
        run = _begin(run, told) if checkpoint is None else _as_begun(run)
        history = _train(run, checkpoint, interruption, told)
        return _conclude(run, history)


def _checkpoint_to_resume(run: RulesRun) -> Path | None:
    """The state to go on from, if `--resume auto` finds one that fits."""
    before = settings_to_resume(run.folder) if run.config.resume == "auto" else None
    if before is None:
        return None
    if run.config.schedule == "cosine" and before.get("max_time") != run.config.max_time:
        raise UserError(
            f"--resume auto: the run in {run.folder} had max_time {before.get('max_time')}, which"
            " cosine follows; the same fits"
        )
    state = SafetensorsCheckpointIO().load_checkpoint(run.folder / "last")
    steps = state["global_step"]
    refuse_other_settings(before, run.config, steps, "--resume auto: ", "--resume never")
    if not state["finished"] and steps == run.config.max_steps:
        raise UserError(
            f"--resume auto: the run in {run.folder} was interrupted after {steps} steps, and only"
            f" a further one lets it end; --max_steps {steps + 1} and more fit, or --resume never"
        )
    return run.folder / "last"


def refuse_other_settings(
    before: Mapping[str, Any], config: RulesConfig, steps: int, intro: str, otherwise: str
) -> None:
    """Let only go on what is the same training, wherever and for however long it runs.

    Args:
        before (mapping): settings of the run that is in the folder, by name, as `to_dict` gives
            them; a rate that --lr_find found among them.
        config (RulesConfig): resolved settings of the run that is asked for.
        steps (int): that the run in the folder has made. --max_steps may be any number from these
            on, unless the schedule depends on it.
        intro (str): what the sentence begins with.
        otherwise (str): what else fits.

    Raises:
        UserError: they differ.
    """
    now = yaml.safe_load(config.to_yaml())
    if config.lr_find:  # the run that goes on keeps the rate that it began with
        now = now | {"lr_find": False, "lr": before.get("lr")}
    may_change = set(_MAY_CHANGE)
    if config.schedule != "cosine":
        if config.max_steps < steps:
            raise UserError(
                f"{intro}the run in {config.out} has made {steps} steps, more than --max_steps"
                f" {config.max_steps}; {steps} and more fit, or {otherwise}"
            )
        may_change.add("max_steps")
    for name in sorted(now.keys() - may_change):
        if before.get(name) != now[name]:
            raise UserError(
                f"{intro}the run in {config.out} had {name} {before.get(name)}, now it is"
                f" {now[name]}; the same settings fit, or {otherwise}"
            )


def has_more_steps(record: RunRecord, config: RulesConfig) -> bool:
    """Whether --max_steps ended a run that may now make more of them.

    Args:
        record (RunRecord): what the run left.
        config (RulesConfig): resolved settings of the same training.

    Returns:
        bool: of seeds that another rule ended nothing is said.
    """
    return "max_steps" in record.stops and record.steps < config.max_steps


def _as_begun(run: RulesRun) -> RulesRun:
    """With the rate that the run began with, which --lr_find may have found."""
    began = yaml.safe_load((run.folder / "config.yaml").read_text())
    return replace(run, config=replace(run.config, lr=began["lr"], lr_find=False))


def _begin(run: RulesRun, told: bool) -> RulesRun:
    """Remove what an earlier training left, and look for a rate if that is asked for."""
    SafetensorsCheckpointIO().remove_checkpoint(run.folder / "last")
    for leftover in (BEST, LAST, RECORD, REPORT):
        (run.folder / leftover).unlink(missing_ok=True)
    if not run.config.lr_find:
        return run
    from pyseq.training.rules.rate_finder import found_rate

    rate, sentence = found_rate(run)
    if told:
        print(sentence, flush=True)
    return replace(run, config=replace(run.config, lr=rate, lr_find=False))


def _train(
    run: RulesRun, checkpoint: Path | None, interruption: Interruption, told: bool
) -> History:
    """Make the steps that are left."""
    config, folder = run.config, run.folder
    state: dict[str, Any] = {}
    if checkpoint is not None:
        state = SafetensorsCheckpointIO().load_checkpoint(checkpoint)
    settings = folder / "config.yaml"
    replace_file(settings, lambda path: path.write_text(config.to_yaml()))
    interruption.advice = (
        f"to go on: pyseq rules train --config {shlex.quote(str(settings))} --resume auto"
    )
    file = MetricsFile(folder, state.get("global_step", 0), COLUMNS)
    phases_end = max([run.batches.curriculum.last_begins, *config.progressive])
    history = History(
        file, config.all_seeds, config.patience, phases_end * run.batches.steps_per_epoch, told
    )
    if state.get("finished"):
        history.load_state_dict(state["callbacks"][history.state_key])
        if not _goes_on(config, history.stops, state["global_step"], state["elapsed"]):
            return history
    torch.manual_seed(config.first_seed)
    every = min(run.validate_steps, len(run.batches))
    module = RuleTraining(run.model, config, run.batches, run.language, run.validation)
    trainer = make_rules_trainer(
        run.device,
        val_check_interval=every,
        callbacks=[
            StopAtEnd(),
            history,
            LastCheckpoint(folder / "last", every, file, interruption),  # saves the others
        ],
    )
    with interruption.deferred():
        quietly(trainer.fit, module, run.batches, [0], ckpt_path=checkpoint)
    return history


def _goes_on(config: RulesConfig, stops: Sequence[str], steps: int, elapsed: float) -> bool:
    """Whether a training that ran out of time or steps has more of both now."""
    if not {"max_time", "max_steps"}.intersection(stops):
        return False
    in_time = config.max_time is None or elapsed < 60 * config.max_time
    return in_time and steps < config.max_steps


def make_rules_trainer(device: torch.device, **more: Any) -> lightning.Trainer:
    """A Trainer that computes on one device and writes nothing by itself.

    Args:
        device (torch.device): where the model runs.
        more: what else `lightning.Trainer` is to be told.
    """
    return quietly(
        lightning.Trainer,
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=1,  # WordBatches strings the epochs together
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        plugins=[SafetensorsCheckpointIO()],
        **more,
    )


def _conclude(run: RulesRun, history: History) -> RunRecord:
    """Write both stacks, the record and the report."""
    config, language = run.config, run.language
    model = build_rule_model(
        config.model_config, classes=language.classes, max_length=language.model_length,
        seeds=config.all_seeds,
    )  # fmt: skip
    for name, weights in ((LAST, history.last), (BEST, history.best)):
        _put(model, weights)
        save_stack(run.folder / name, model, stack_metadata(config, name == BEST))
    record = _record(run, history)
    write_record(run.folder / RECORD, record)
    examination = examine(
        model.to(run.device), language.grammar, language.prompts, max_length=config.max_length,
        vocabulary=language.vocabulary,
    )  # fmt: skip
    write_rules_report(run.folder / REPORT, record, examination)
    return record


def _put(model: RuleModel, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def stack_metadata(config: RulesConfig, best: bool) -> dict[str, Any]:
    """What a model file says of the training that it is of.

    Args:
        config (RulesConfig): resolved.
        best (bool): whether it holds each seed's weights at its lowest validation loss, or its
            last.

    Returns:
        dict: of JSON's types.
    """
    return {
        "grammar": config.grammar,
        "weights": "lowest validation loss" if best else "last",
        "seeds": list(config.all_seeds),
        "training": yaml.safe_load(config.to_yaml()),
    }


def _record(run: RulesRun, history: History) -> RunRecord:
    config, grammar = run.config, run.language.grammar
    rows = MetricsFile.read(run.folder)
    prompts = run.language.prompts
    floor = grammar.loss_floor(config.max_length)
    return RunRecord(
        grammar=config.grammar,
        model=config.model,
        max_length=config.max_length,
        seeds=config.all_seeds,
        histories=[
            [{name: v for name, v in row.items() if name != "seed"}
             for row in rows if row["seed"] == seed]
            for seed in config.all_seeds
        ],
        variant=variant(config, history.stops),
        stops=history.stops,
        config=yaml.safe_load(config.to_yaml()),
        floor=floor.nats_per_target,
        floor_error=floor.standard_error,
        chance=chance_level(grammar, prompts, max_length=config.max_length),
        eos_at_once=emit_eos_at_once(grammar, prompts),
        parameters=run.model.describe().parameters,
        seconds=history.seconds,
        device=str(run.device),
        facts={"torch": torch.__version__, "prompts tested": [
            len(prompts.in_distribution), len(prompts.out_of_distribution)]},
    )  # fmt: skip
