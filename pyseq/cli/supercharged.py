"""`pyseq supercharged`: `pyseq train --model supercharged`, and its own name for the model."""

from dataclasses import dataclass
from typing import Literal

from pyseq.cli import flags
from pyseq.cli.train import train
from pyseq.training.config import TrainConfig


@dataclass(frozen=True)
class SuperchargedTrainConfig(TrainConfig):
    """Train the supercharged model to predict the next symbol of a u16 stream."""

    ckpt: str = "supercharged_model.pt"
    """Where the best model goes (a safetensors file); the run folder is this without its suffix
    plus .run/."""
    model: Literal["supercharged"] = "supercharged"
    """Which model."""


def main(arguments: list[str]) -> int:
    """Train as the flags say; prints the evaluation and where everything lies."""
    config = flags.parse(SuperchargedTrainConfig, "supercharged", arguments)
    from pyseq.training.run import prepare

    train(prepare(config))
    return 0
