"""`pyseq evaluate`: score a trained model on a stream it has not seen."""

from dataclasses import dataclass
from pathlib import Path
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
    which the baselines count; auto: test on the stream it was trained on, what comes after the
    training range on a stream that holds that range, all on any other stream."""
    analyze_predictions: bool = False
    """Also take the predictions apart: by confidence, entropy, head and scale, and where attention
    looks; with plots on a page."""
    report: str | None = None
    """Where the page goes (an HTML file); default: evaluation.html in the model's run folder, and
    without --analyze_predictions no page."""
    seq_len: int | None = None
    """Context in symbols; default: the model's."""
    use_amp: bool = False
    """Compute in bfloat16 where it is safe (autocast) and the machine has products of it."""
    io: Literal["mmap", "pread", "ram", "gpu"] = "mmap"
    """How the file is read; gpu: once, into the memory of the GPU that the model runs on."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Print the evaluation."""
    config = flags.parse(EvaluateConfig, "evaluate", arguments)
    if config.max_samples < 2 or (config.seq_len is not None and config.seq_len < 1):
        raise UserError("--max_samples must be at least 2 and --seq_len at least 1")
    page = _page_path(config)
    from pyseq.analysis.evaluation import evaluate, stream_ceiling
    from pyseq.analysis.held_out import ranges
    from pyseq.analysis.prediction_analysis import analyze_predictions
    from pyseq.analysis.report import class_names, model_report, write_report
    from pyseq.cli.evaluation_table import print_analysis, print_evaluation
    from pyseq.cli.symbol_text import about_another_kind, require_same_tokens
    from pyseq.data.described_stream import describe_stream
    from pyseq.models.device import choose_device, mixed_precision, stream_device
    from pyseq.models.predictor import load

    device = choose_device(config.device)
    predictor = load(config.ckpt, device=device)
    card = predictor.card
    described = describe_stream(
        config.u16_path, io=config.io, device=stream_device(config.io, device),
        alphabet=card.binning.alphabet, kind=card.kind,
    )  # fmt: skip
    stream = described.stream
    require_same_tokens(card.codec, stream)
    counted, (start, stop), held_out = ranges(config.range, stream, card)
    stop = min(stop, start + config.max_samples + 1)
    facts = [
        ("stream", config.u16_path),
        ("model", config.ckpt),
        ("scored", f"symbols {start + 1:,} to {stop - 1:,} of {len(stream):,}"),
        ("counted by the baselines", f"symbols {counted[0]:,} to {counted[1] - 1:,}"),
    ]
    about_kind = about_another_kind(card, stream)
    if about_kind is not None:
        facts.append(("another kind of stream", about_kind))
    about_tokens = described.learned_beyond(start)
    if about_tokens is not None:
        subject, _, fact = about_tokens.partition(": ")
        facts.append((subject, fact))
    autocast, about_precision = mixed_precision(config.use_amp, device)
    if about_precision is not None:
        subject, _, fact = about_precision.partition(": ")
        facts.append((subject, fact))
    for name, fact in facts[2:]:
        print(f"{name}: {fact}")
    scored, seq_len = (start, stop), config.seq_len or card.seq_len
    evaluation = evaluate(
        predictor, stream, counted, scored, binning=card.binning,
        ceiling=stream_ceiling(described.counts(*counted), card.binning),
        seq_len=seq_len, autocast=autocast, held_out=held_out,
        symbol_bytes=card.symbol_bytes,
    )  # fmt: skip
    print_evaluation(evaluation, described.entropy_rate)
    analysis = None
    if config.analyze_predictions:
        analysis = analyze_predictions(
            predictor, stream, counted, scored, binning=card.binning, seq_len=seq_len,
            autocast=autocast,
        )  # fmt: skip
        print_analysis(evaluation, analysis, class_names(card))
    if page is not None:
        report = model_report(predictor, evaluation, analysis, stream=config.u16_path, facts=facts)
        page.parent.mkdir(parents=True, exist_ok=True)
        write_report(page, report)
        print(f"report: {page}")
    return 0


def _page_path(config: EvaluateConfig) -> Path | None:
    """Where the page goes; refused before anything is computed."""
    if config.report is None:
        folder = Path(config.ckpt).with_suffix(".run")
        return folder / "evaluation.html" if config.analyze_predictions else None
    page = Path(config.report)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {page} is a page; a name that ends in .html fits")
    if page.is_dir() or not page.parent.is_dir():
        what = "is a folder" if page.is_dir() else f"has no folder {page.parent} to lie in"
        raise UserError(f"--report {page} {what}")
    return page
