"""`pyseq evaluate`: score a trained model on a stream it has not seen."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyseq.cli import flags
from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.data import U16Stream
    from pyseq.models.checkpoint import ModelCard


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
    which the baselines count; auto: test on the stream it was trained on, what comes after the
    training range on a stream that holds that range, all on any other stream."""
    analyze_predictions: bool = False
    """Also print how accuracy, bits and entropy go with the model's confidence."""
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
    from pyseq.cli.evaluation_table import print_confidence_groups, print_evaluation
    from pyseq.data.described_stream import describe_stream
    from pyseq.models.device import choose_device
    from pyseq.models.predictor import load

    predictor = load(config.ckpt, device=choose_device(config.device))
    card = predictor.card
    described = describe_stream(
        config.u16_path, io=config.io, alphabet=card.binning.alphabet, kind=card.kind
    )
    counted, (start, stop), held_out = ranges(config.range, described.stream, card)
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
    print_evaluation(evaluation, described.entropy_rate, held_out=held_out)
    if config.analyze_predictions:
        print_confidence_groups(evaluation.scores)
    return 0


Range = tuple[int, int]


def ranges(choice: str, stream: "U16Stream", card: "ModelCard") -> tuple[Range, Range, bool]:
    """What the baselines count, what is scored, and whether the model never saw the latter.

    Ranges are half-open. Symbols that the model was trained on are recognised by the fingerprint of
    its training range, wherever the files were cut or grew since.
    """
    first, last = card.data.get("trained", (0, len(stream) + 1))
    if len(stream) < last or stream.range_fingerprint(first, last) != card.data["trained_print"]:
        if choice == "test":
            raise UserError(
                "--range test needs the stream the model was trained on, and this is another one;"
                " --range all scores it whole"
            )
        return *_tenth(stream), True
    same = stream.fingerprint == card.data["fingerprint"]
    if choice == "test" or (choice == "auto" and same):
        start, stop = card.data["splits"]["test"]
        if stop > len(stream):
            raise UserError("the stream is shorter than the one the model was trained on")
        return (first, last), (start, stop), True
    if choice == "all":
        return *_tenth(stream), False
    start = last + card.seq_len + 1
    if len(stream) - start < 2:
        raise UserError("the stream holds nothing but symbols that the model was trained on")
    return (first, last), (start, len(stream)), True


def _tenth(stream: "U16Stream") -> tuple[Range, Range]:
    tenth = len(stream) // 10
    if tenth < 2:
        raise UserError(f"a stream of {len(stream)} symbols is too short to score; 20 or more fit")
    return (0, tenth), (tenth, len(stream))
