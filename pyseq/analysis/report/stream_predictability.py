"""Sections on how predictable a stream is: code lengths, evidence, guesses, compressors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyseq.analysis import plots
from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.perfect_source import Expectation
from pyseq.analysis.report.page import facts, figure, folded, note, section, table, wrapped
from pyseq.analysis.stream_analysis import CodeLength, StreamAnalysis
from pyseq.analysis.stream_words import (
    about_code_length,
    bits_of_right_guesses,
    bits_text,
    evidence_row,
    percent_text,
    share_of_right_guesses,
)

_MOST_WEIGHTS = 12


def code_length_section(analysis: StreamAnalysis) -> str:
    """Bits per symbol that predictors needed, beside guessing evenly and the frequencies alone."""
    codes = analysis.code_lengths
    rows = [
        (
            code.name,
            code.symbols,
            bits_text(code.bits),
            bits_text(code.late_bits),
            bits_text(code.marginal_bits),
            bits_text(code.uniform_bits),
            percent_text(code.accuracy),
            bits_text(code.average_min_entropy),
        )
        for code in codes
    ]
    head = (
        "predictor", "symbols", "bits/symbol", "second half", "frequencies alone",
        "guessing evenly", "right guesses", "min-entropy, bits",
    )  # fmt: skip
    explained = (
        "Bits/symbol: what a predictor that learns as it goes needs to write the next symbol down, "
        "on average; with 95 % intervals. Second half: the same over the later symbols, when it "
        "has learned more. Min-entropy: -log2 of its share of right guesses. A predictor bounds "
        "the entropy rate (the bits of each symbol that no past can tell) from above: a better one "
        "may need fewer."
    )
    text = [
        _entropy_rate(analysis),
        *(about_code_length(code, analysis) for code in codes),
        explained if codes else "",
    ]
    return section(
        "How predictable",
        *_code_charts(analysis),
        wrapped(table(head, rows)),
        *(note(sentence) for sentence in text if sentence),
        facts(_marginal(analysis)),
        *map(_weights, codes),
    )


def _entropy_rate(analysis: StreamAnalysis) -> str:
    known = analysis.entropy_rate
    true = "" if known is None else f" The stream's description says {bits_text(known)}."
    whole = [code for code in analysis.code_lengths if _reads_whole(code, analysis)]
    finite = [code for code in whole if math.isfinite(code.late_bits.value)]
    if not finite:
        return true.strip()
    best = min(finite, key=lambda code: code.late_bits.value)
    return (
        f"Estimate of the entropy rate, from above: {best.late_bits} bits/symbol ({best.name}, "
        f"second half); symbols drawn evenly would have {bits_text(best.uniform_bits)}.{true}"
    )


def _reads_whole(code: CodeLength, analysis: StreamAnalysis) -> bool:
    """Whether it predicts the stream's own symbols, not bins of them."""
    return code.alphabet in (0, analysis.alphabet)


def _code_charts(analysis: StreamAnalysis) -> list[str]:
    """A chart for each alphabet that is predicted: bits of bins are no bits of symbols."""
    alphabets: dict[int, list[CodeLength]] = {}
    for code in analysis.code_lengths:
        alphabets.setdefault(code.alphabet or analysis.alphabet, []).append(code)
    charts = []
    for alphabet, codes in alphabets.items():
        rows: list[tuple[str, Interval | float]] = []
        for code in codes:
            rows += [(code.name, code.bits), (f"{code.name}, second half", code.late_bits)]
        own = len(rows)
        if alphabet == analysis.alphabet:
            rows += [(part.name, part.bits) for part in analysis.compressed]
        lines = [("frequencies alone", codes[0].marginal_bits), ("guessing evenly",
                 codes[0].uniform_bits)]  # fmt: skip
        if alphabet == analysis.alphabet and analysis.entropy_rate is not None:
            lines.append(("true entropy rate", analysis.entropy_rate))
        if len(alphabets) > 1:
            charts.append(note(f"Of {alphabet:,} classes:"))
        finite = [line for line in lines if math.isfinite(line[1])]
        name = f"code-lengths-{alphabet}"
        charts.append(figure(plots.code_length_chart(rows, finite, name, highlight=own)))
    return charts


def _marginal(analysis: StreamAnalysis) -> Sequence[tuple[str, object]]:
    return [
        ("entropy of the frequencies, as counted", f"{bits_text(analysis.entropy)} bits/symbol"),
        (
            "min-entropy of the frequencies, as counted",
            f"{bits_text(analysis.min_entropy)} bits/symbol (-log2 of the largest share)",
        ),
    ]


def _weights(code: CodeLength) -> str:
    """What the parts of a mixture weigh, the heaviest first."""
    if not code.weights:
        return ""
    heaviest = sorted(code.weights.items(), key=lambda item: -item[1])
    rows = [(name, format_percent(weight)) for name, weight in heaviest[:_MOST_WEIGHTS]]
    rest = len(heaviest) - len(rows)
    text = "A part's weight is how far the mixture trusts it: what the prediction rests on."
    if rest:
        text += f" {rest} more weigh less."
    return folded(f"What {code.name} relies on", table(("part", "weight"), rows) + note(text))


def evidence_section(analysis: StreamAnalysis) -> str:
    """E-processes: their paths and what they come to."""
    found = analysis.evidence
    if not found:
        return ""
    level = found[0][1].level
    paths = [(name, *evidence.path) for name, evidence in found]
    head = (
        "against", "E at the end", "largest E", f"first {1 / level:,.4g}, after symbols",
        "p-value", "bits/symbol saved",
    )  # fmt: skip
    nulls = table(("", "the null"), ((name, e.null) for name, e in found), text=(1,))
    text = (
        "E is what one unit of money would have become in bets on every next symbol, made before "
        "it came, at odds that are fair under the null. If the null is true, it ever reaches "
        f"{1 / level:,.4g} with a chance of at most {format_percent(level)}, however long one "
        "looks and whenever one stops; so the p-value, one over the largest E, holds at any time. "
        "An E that falls is a predictor that lost its bets: no evidence, and no proof of the null."
    )
    return section(
        "Evidence as it grew",
        figure(plots.evidence_chart(paths, level)),
        note(
            "How to read the picture: a line that climbs past the dashed one is evidence against "
            "the null; one that stays below it, or falls, is none."
        ),
        wrapped(table(head, (evidence_row(name, e) for name, e in found))),
        note(text),
        folded("The nulls in full", wrapped(nulls)),
    )


def guesses_section(analysis: StreamAnalysis) -> str:
    """SP 800-90B's predictors: the bound by all guesses first, the longest run apart."""
    parts = []
    if analysis.predictions:
        parts += [*_all_guesses(analysis), *_longest_runs(analysis)]
    return section("Guessing the next symbol", *parts, _most_common(analysis))


def _all_guesses(analysis: StreamAnalysis) -> list[str]:
    """The headline: the share of right guesses and what it bounds."""
    found, read = analysis.predictions, analysis.predicted_symbols
    rows = [
        (
            p.name,
            p.predictions,
            p.correct,
            share_of_right_guesses(p),
            bits_of_right_guesses(p),
            bits_text(p.global_bits),
            _expected(analysis, p.name),
        )
        for p in found
    ]
    head = (
        "predictor", "guesses", "right", "share right", "-log2 of it, bits", "bound, bits/symbol",
        "a perfect source's bound",
    )  # fmt: skip
    lowest = min(found, key=lambda p: p.global_bits)
    full = [
        f"The memory of {p.name} was full after {p.full_at:,} symbols; it learned no new contexts "
        "from there on."
        for p in found
        if p.full_at is not None
    ]
    return [
        note(
            f"The lowest bound on the min-entropy is {bits_text(lowest.global_bits)} bits/symbol, "
            f"by {lowest.name}" + (f", over {read:,} symbols." if read else ".")
        ),
        wrapped(table(head, rows)),
        note(
            "The four predictors of NIST SP 800-90B guess every next symbol from those before. "
            "Bound: -log2 of the upper 99 % end of the share of right guesses; on average it lies "
            "below the alphabet's log2 even for a perfect source (independent symbols, all equally "
            "likely) of this length, whose expected bound stands beside it, with what 95 % of such "
            "sources get. Elsewhere in brackets: exact 95 % intervals for independent guesses."
        ),
        *map(note, full),
    ]


def _longest_runs(analysis: StreamAnalysis) -> list[str]:
    """The local bound, which one lucky run decides, with its chance."""
    rows = [
        (
            p.name,
            p.longest_run,
            bits_text(p.local_bits),
            format_percent(p.local_chance) if math.isfinite(p.local_chance) else "none",
            bits_text(p.min_entropy),
        )
        for p in analysis.predictions
    ]
    head = (
        "predictor", "longest run", "bits/symbol by it", "chance in a perfect source",
        "the standard's figure, bits",
    )  # fmt: skip
    runs = analysis.expected.get("runs")
    perfect = [
        f"{run.longest_run:,} or more in {format_percent(run.chance)} of perfect sources, scored "
        f"{bits_text(run.bits)} bits/symbol"
        for run in (runs if isinstance(runs, Sequence) else ())
    ]
    return [
        "<h3>By the longest run of right guesses</h3>",
        wrapped(table(head, rows)),
        note(
            "The standard also scores the longest run of right guesses and takes the lower figure. "
            "One lucky run decides it, so it stands apart here, with the chance that a perfect "
            "source shows a run at least as long."
        ),
        note(f"A longest run of: {'; '.join(perfect)}.") if perfect else "",
    ]


def _most_common(analysis: StreamAnalysis) -> str:
    """The standard's estimate by the symbol that comes most often."""
    value, expected = analysis.most_common_value, _expected(analysis, "most_common_value")
    if value is None:
        return ""
    text = (
        f"It came {value.count:,} times, a share of {value.p:.4g}; by the upper 99 % end of that "
        f"share, {bits_text(value.min_entropy)} bits/symbol"
    )
    if expected:
        text += f"; a perfect source of this length would be expected to get {expected}"
    return "<h3>By the most common symbol</h3>" + note(f"{text}.")


def _expected(analysis: StreamAnalysis, name: str) -> str:
    """What a perfect source would be expected to score; empty where that is not known."""
    found = analysis.expected.get(name)
    if isinstance(found, Expectation):
        return bits_text(Interval(found.bits, found.low, found.high))
    return ""


def compressors_section(analysis: StreamAnalysis) -> str:
    """What general compressors make of a sample."""
    rows = [
        (part.name, part.symbols, bits_text(part.bits), bits_text(part.shuffled_bits))
        for part in analysis.compressed
    ]
    text = (
        "Shuffled: the same symbols in random order, which keeps their frequencies and destroys "
        "everything else. Fewer bits in the stream's own order than shuffled are a repetition "
        "that the compressor found; general compressors find long repetitions and little else."
    )
    found = table(("compressor", "symbols", "bits/symbol", "shuffled"), rows)
    return section("Compressors", found, note(text) if found else "")
