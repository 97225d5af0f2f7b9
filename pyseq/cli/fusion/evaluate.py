"""`pyseq fusion evaluate`: a trained model scored on other data, with noise, or half blind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pyseq.cli import flags
from pyseq.cli.fusion.scores_table import print_scores
from pyseq.cli.rules.narrow_table import print_narrow


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a trained model. Of the data that it was trained on only the test part is scored."""

    model: Annotated[Path, tyro.conf.Positional]
    """A model.safetensors that pyseq fusion train wrote."""
    data: str | None = None
    """digits, wine, breast_cancer, synthetic, or an .npz; default: as in the training."""
    without: tuple[str, ...] = ()
    """Modalities to hide, by name."""
    noise: float = 0.0
    """Normal noise on every feature, in deviations of the training data."""
    seed: int = 0
    """Of the noise."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Score as the flags say."""
    config = flags.parse(EvaluateConfig, "fusion evaluate", arguments)
    from pyseq.training.fusion.evaluate import evaluate_fusion

    found = evaluate_fusion(
        config.model, data=config.data, without=config.without, noise=config.noise,
        seed=config.seed, device=config.device,
    )  # fmt: skip
    done = [f"without {' and '.join(config.without)}"] if config.without else []
    done += [f"noise of {config.noise:g} deviations"] if config.noise else []
    title = f"{len(found.data)} objects of {found.data.name}{', '.join(['', *done])}"
    strategy = found.stored.config.strategy.replace("_", "-")
    print_scores(title, {strategy: found.scores})
    if found.members:
        lines = [(name, f"{100 * share:.2f}") for name, share in found.members]
        print_narrow("members alone", ("", "accuracy, %"), lines)
    print(f"scored: {found.which}; intervals are of 95 %")
    return 0
