"""Whether a training can go on from what its run folder holds."""

from pathlib import Path
from typing import Any

import yaml

from pyseq.errors import UserError
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO, has_checkpoint
from pyseq.training.run import Run

# What may differ between a run and its continuation: where it runs, what it tells, its patience.
_MAY_CHANGE = {
    "u16_path", "ckpt", "io", "device", "threads", "workers", "save_every", "log_every", "patience",
    "resume", "ignore_fingerprint",
}  # fmt: skip


def settings_to_resume(folder: Path) -> dict[str, Any] | None:
    """With which settings a run began that can go on.

    Args:
        folder (Path): the run folder.

    Returns:
        dict: its resolved settings by name, or None if it left no state.

    Raises:
        UserError: the settings cannot be read.
    """
    if not has_checkpoint(folder / "last"):
        return None
    path = folder / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text())
        if not isinstance(settings, dict):
            raise ValueError(f"it holds {settings!r} and no settings")
        return settings
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read: {reason}; --resume never begins anew") from error


def checkpoint_to_resume(run: Run) -> Path | None:
    """The state to go on from, if `--resume auto` finds one.

    Args:
        run (Run): what is to be trained.

    Returns:
        Path of the checkpoint folder, or None.

    Raises:
        UserError: the state belongs to other settings, other data or other classes.
    """
    folder = run.folder / "last"
    before = settings_to_resume(run.folder) if run.config.resume == "auto" else None
    if before is None:
        return None
    now = yaml.safe_load(run.config.to_yaml())
    for name in now.keys() - _MAY_CHANGE:
        if before.get(name) != now[name]:
            raise UserError(
                f"--resume auto: the run in {run.folder} had {name} {before.get(name)}, now it is"
                f" {now[name]}; the same settings fit, or --resume never"
            )
    state = SafetensorsCheckpointIO().load_checkpoint(folder)
    data = state["data"]
    if data["fingerprint"] != run.card.data["fingerprint"] and not run.config.ignore_fingerprint:
        raise UserError(
            f"--resume auto: the run in {run.folder} was trained on other data (fingerprint"
            f" {data['fingerprint']}, now {run.card.data['fingerprint']}); --ignore_fingerprint"
            " goes on all the same"
        )
    if state["edges"] != run.binning.edges:
        raise UserError(
            f"--resume auto: the run in {run.folder} has bins with other edges than --binning"
            " adaptive gives on this stream; the same stream fits, or --resume never"
        )
    return folder
