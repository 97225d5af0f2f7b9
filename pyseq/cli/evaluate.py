"""`pyseq evaluate`: score a trained model on a stream it has not seen."""

from dataclasses import dataclass
from typing import Literal

from pyseq.cli import flags
from pyseq.errors import UserError


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a trained model beside marginal, order-1, order-2 and xz."""

    u16_path: str
    """The stream, or a glob of shards."""
    ckpt: str = "model.pt"
    """The model that `pyseq train --ckpt` wrote."""
    max_samples: int = 100_000
    """Symbols to score, from the start of the range."""
    range: Literal["auto", "test", "all"] = "auto"
    """test: the test range of the model's own split; all: the whole stream, the first tenth of
    which the baselines count; auto: test on the stream it was trained on, else all."""
    seq_len: int | None = None
    """Context in symbols; default: the model's."""
    use_amp: bool = False
    """Compute in bfloat16 where it is safe (autocast)."""
    io: Literal["mmap", "pread", "ram"] = "mmap"
    """How the file is read."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Print the evaluation."""
    config = flags.parse(EvaluateConfig, "evaluate", arguments)
    if config.max_samples < 2 or (config.seq_len is not None and config.seq_len < 1):
        raise UserError("--max_samples must be at least 2 and --seq_len at least 1")
    from pyseq.analysis.evaluation import evaluate, stream_ceiling
    from pyseq.cli.evaluation_table import print_evaluation
    from pyseq.data.described_stream import describe_stream
    from pyseq.models.predictor import load
    from pyseq.training.fit import choose_device

    predictor = load(config.ckpt, device=choose_device(config.device))
    card = predictor.card
    described = describe_stream(
        config.u16_path, io=config.io, alphabet=card.binning.alphabet, kind=card.kind
    )
    counted, scored = ranges(config.range, described.stream, card)
    start, stop = scored
    stop = min(stop, start + config.max_samples + 1)
    print(f"scored: symbols {start + 1:,} to {stop - 1:,} of {len(described.stream):,}")
    print(f"counted by the baselines: symbols {counted[0]:,} to {counted[1] - 1:,}")
    evaluation = evaluate(
        predictor,
        described.stream,
        counted,
        (start, stop),
        binning=card.binning,
        ceiling=stream_ceiling(described.counts(*counted), card.binning),
        seq_len=config.seq_len or card.seq_len,
        autocast=config.use_amp,
    )
    print_evaluation(evaluation, described.entropy_rate)
    return 0


def ranges(choice: str, stream, card) -> tuple[tuple[int, int], tuple[int, int]]:
    """What the baselines count and what is scored, half-open ranges of the stream."""
    trained_on_it = stream.fingerprint == card.data.get("fingerprint")
    if choice == "auto":
        choice = "test" if trained_on_it else "all"
    if choice == "test":
        if not trained_on_it:
            raise UserError(
                "--range test needs the stream the model was trained on, and this is another one;"
                " --range all scores it whole"
            )
        splits = card.data["splits"]
        return tuple(splits["train"]), tuple(splits["test"])
    tenth = len(stream) // 10
    if tenth < 2:
        raise UserError(f"a stream of {len(stream)} symbols is too short to score; 20 or more fit")
    return (0, tenth), (tenth, len(stream))
