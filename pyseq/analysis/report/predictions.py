"""Sections on the predictions taken apart: heads, scales, confusions, attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyseq.analysis import plots
from pyseq.analysis.attention_reach import LayerReach
from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.horizons import HorizonScores
from pyseq.analysis.prediction_analysis import PredictionAnalysis
from pyseq.analysis.report.page import escaped, figure, folded, note, section, table
from pyseq.analysis.report.scores import about_chance
from pyseq.analysis.scales import ScaleScores
from pyseq.analysis.verdicts import Verdict


def heads_section(analysis: PredictionAnalysis, evaluation: Evaluation) -> str:
    """How well each head predicts, from the next symbol to the farthest one."""
    heads = analysis.horizons
    names = [head_name(head.horizon) for head in heads]
    if len(heads) < 2:
        return section("Heads", _sentence(analysis.about_horizons))
    groups = [
        (name, head.bits, head.marginal_bits) for name, head in zip(names, heads, strict=True)
    ]
    verdicts = [(name, head.verdict) for name, head in zip(names, heads, strict=True)]
    return section(
        "Heads",
        figure(plots.grouped_bits_chart(groups, "heads")),
        _with_verdicts(_HEAD_COLUMNS, [_head_row(head) for head in heads], verdicts, evaluation),
        _sentence(analysis.about_horizons),
        _about_verdicts(analysis, verdicts, evaluation),
    )


_HEAD_COLUMNS = (
    "head",
    "bits/symbol",
    "marginal",
    "top-1",
    "top-5",
    "confidence",
    "entropy",
    "ECE",
)


def head_name(horizon: int) -> str:
    """What the head of a horizon is called."""
    return "next symbol" if horizon == 1 else f"{horizon} ahead"


def _head_row(head: HorizonScores) -> tuple[str, ...]:
    """A head's scores, as `_HEAD_COLUMNS` names them."""
    return (
        head_name(head.horizon),
        str(head.bits),
        f"{head.marginal_bits.value:.4f}",
        format_percent(head.accuracy[1]),
        format_percent(head.accuracy[5].value),
        format_percent(head.confidence.value),
        f"{head.entropy.value:.4f}",
        format_percent(head.ece),
    )


def scales_section(analysis: PredictionAnalysis, evaluation: Evaluation) -> str:
    """How well the model predicts at coarser resolutions."""
    scales = analysis.scales
    if not scales:
        return section("Scales", _sentence(analysis.about_scales))
    names = [scale_name(scale) for scale in scales]
    groups = [
        (name, scale.bits, scale.marginal_bits) for name, scale in zip(names, scales, strict=True)
    ]
    ceilings = [scale.ceiling.bits for scale in scales]
    verdicts = [(name, scale.verdict) for name, scale in zip(names, scales, strict=True)]
    return section(
        "Scales",
        figure(plots.grouped_bits_chart(groups, "scales", ceilings=ceilings)),
        _with_verdicts(
            _SCALE_COLUMNS, [_scale_row(scale) for scale in scales], verdicts, evaluation
        ),
        _sentence(analysis.about_scales),
        note(
            "The ceilings, of bits/symbol and of top-1 accuracy, are what independent symbols "
            "allow on average; a finite sample can come out on either side of them."
        ),
        _about_verdicts(analysis, verdicts, evaluation),
    )


_SCALE_COLUMNS = (
    "scale", "bits/symbol", "marginal", "ceiling", "top-1", "ceiling", "confidence", "ECE",
)  # fmt: skip


def scale_name(scale: ScaleScores) -> str:
    """What a scale is called."""
    return f"{scale.bins:,} {'bins' if scale.width > 1 else 'classes'}"


def _scale_row(scale: ScaleScores) -> tuple[str, ...]:
    """A scale's scores, as `_SCALE_COLUMNS` names them."""
    return (
        scale_name(scale),
        str(scale.bits),
        f"{scale.marginal_bits.value:.4f}",
        f"{scale.ceiling.bits:.4f}",
        format_percent(scale.accuracy),
        format_percent(scale.ceiling.top1),
        format_percent(scale.confidence.value),
        format_percent(scale.ece),
    )


def _with_verdicts(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    verdicts: Sequence[tuple[str, Verdict]],
    evaluation: Evaluation,
) -> str:
    """The table, with a column of verdicts where there can be any."""
    if not evaluation.held_out:
        return table(columns, rows)
    judged = [
        (name, verdict.kind, *scores)
        for (name, *scores), (_, verdict) in zip(rows, verdicts, strict=True)
    ]
    return table((columns[0], "verdict", *columns[1:]), judged, text=(1,))


def _about_verdicts(
    analysis: PredictionAnalysis, verdicts: Sequence[tuple[str, Verdict]], evaluation: Evaluation
) -> str:
    if not evaluation.held_out:
        return ""
    sentences = table(("", ""), ((name, v.sentence) for name, v in verdicts), text=(1,))
    return note(about_level(analysis)) + folded("The verdicts in full", sentences)


def _sentence(clause: str) -> str:
    return note(f"{clause[:1].upper()}{clause[1:]}.")


def about_level(analysis: PredictionAnalysis) -> str:
    """How sure the verdicts of heads and scales are together."""
    return (
        f"Verdicts at a level of {100 * analysis.level:.4g} % each: on unpredictable symbols the "
        "chance that any head or scale is said to show structure is about 5 % at the most. The "
        "intervals are of 95 % each."
    )


def confusions_section(
    analysis: PredictionAnalysis, evaluation: Evaluation, class_names: Sequence[str]
) -> str:
    """What was predicted for what came: shaded cells for values, a list for tokens."""
    parts = [_confusion_chart(scale) for scale in analysis.scales if scale.confusion is not None]
    if analysis.confusions:
        head = ("came", "predicted", "times", "of all that came")
        rows = (
            (class_names[c.truth], class_names[c.predicted], c.count, format_percent(c.share))
            for c in analysis.confusions
        )
        text = (
            f"The most frequent mistakes among {analysis.symbols:,} predictions: what came, and "
            "which class was the most likely instead."
        )
        parts += [table(head, rows, text=(1,)), note(text)]
    if parts:
        parts.append(note(about_chance(evaluation)))
    return section("Confusions", *parts)


def _confusion_chart(scale: ScaleScores) -> str:
    counts = np.asarray(scale.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [str(symbol) for symbol in scale.first_symbols]
    text = (
        f"{scale.bins} bins, named by their first symbols. Each row is shaded by how often each "
        "bin was the most likely one when the row's bin came; hits lie on the framed diagonal. "
        "Rows that look alike are predicted alike, whatever comes."
    )
    chart = plots.confusion_chart(shares, labels, f"confusion-{scale.bins}")
    return f"<h3>{escaped(scale_name(scale))}</h3>" + figure(chart) + note(text)


def attention_section(analysis: PredictionAnalysis) -> str:
    """Where attention looks, in one picture for all layers with the same bands of distance."""
    reach = analysis.attention
    alike: dict[tuple, list[LayerReach]] = {}
    for layer in reach.layers:
        alike.setdefault((layer.unit, layer.bands), []).append(layer)
    pictures = [_attention_chart(layers, k) for k, layers in enumerate(alike.values())]
    rows = (
        (
            f"{layer.name}, head {number}",
            "" if head.mean_distance is None else f"{head.mean_distance:.1f} {layer.unit}",
            f"{head.entropy:.2f}",
            format_percent(head.relative_entropy),
            format_percent(head.memory),
        )
        for layer in reach.layers
        for number, head in enumerate(layer.heads, start=1)
    )
    columns = ("", "mean distance", "entropy, bits", "of even weights'", "on memory tokens")
    text = (
        f"Averages over the queries of {reach.windows:,} windows of {reach.length:,} symbols; at "
        "distance 0 lies the newest symbol or patch that the query has seen. The last rows show "
        "what a head would that weighs all it sees alike. Where a head looks does not say how well "
        "the model predicts."
    )
    if reach.weightless:
        text += f" Mixed without weights: {', '.join(reach.weightless)}."
    details = folded("Every head in numbers", table(columns, rows))
    if not pictures and not reach.weightless:
        return ""
    return section("Where attention looks", *pictures, note(text), details)


def _attention_chart(layers: Sequence[LayerReach], index: int) -> str:
    heads = [
        ((layer.name, f"head {number}"), head.shares, head.memory)
        for layer in layers
        for number, head in enumerate(layer.heads, start=1)
    ]
    evens = dict.fromkeys((layer.even, layer.even_memory) for layer in layers)
    heads += [(("even weights", ""), even, memory) for even, memory in evens]
    names, shares, memory = zip(*heads, strict=True)
    bands = [str(a) if a == b else f"{a}..{b}" for a, b in layers[0].bands]
    chart = plots.attention_chart(
        shares,
        bands,
        names,
        unit=layers[0].unit,
        name=f"attention-{index}",
        beside=("memory", memory) if any(memory) else None,
    )
    return figure(chart)
