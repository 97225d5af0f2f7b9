"""Whether a training can go on from what its run folder holds."""

from pathlib import Path

import yaml

from pyseq.errors import UserError
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO, has_checkpoint
from pyseq.training.run import Run

# What may differ between a run and its continuation: where it runs, what it tells, its patience.
_MAY_CHANGE = {
    "u16_path", "ckpt", "io", "device", "threads", "workers", "save_every", "log_every", "patience",
    "resume", "ignore_fingerprint",
}  # fmt: skip


def checkpoint_to_resume(run: Run) -> Path | None:
    """The state to go on from, if `--resume auto` finds one.

    Args:
        run (Run): what is to be trained.

    Returns:
        Path of the checkpoint folder, or None.

    Raises:
        UserError: the state belongs to other settings or other data.
    """
    folder = run.folder / "last"
    if run.config.resume != "auto" or not has_checkpoint(folder):
        return None
    try:
        before = yaml.safe_load((run.folder / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{run.folder / 'config.yaml'} cannot be read: {error}") from error
    now = yaml.safe_load(run.config.to_yaml())
    for name in now.keys() - _MAY_CHANGE:
        if before.get(name) != now[name]:
            raise UserError(
                f"--resume auto: the run in {run.folder} had {name} {before.get(name)}, now it is"
                f" {now[name]}; the same settings fit, or --resume never"
            )
    data = SafetensorsCheckpointIO().load_checkpoint(folder)["data"]
    if data["fingerprint"] != run.card.data["fingerprint"] and not run.config.ignore_fingerprint:
        raise UserError(
            f"--resume auto: the run in {run.folder} was trained on other data (fingerprint"
            f" {data['fingerprint']}, now {run.card.data['fingerprint']}); --ignore_fingerprint"
            " goes on all the same"
        )
    return folder
