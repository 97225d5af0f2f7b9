"""A stream's analysis as people read it in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.predictability.sp800_90b import Prediction
from pyseq.analysis.stream_analysis import StreamAnalysis
from pyseq.analysis.stream_words import (
    about_code_length,
    bits_text,
    e_value_text,
    fired_tests,
    p_value_text,
    share_of_right_guesses,
    smallest_p_value,
    verdicts_in_short,
)
from pyseq.cli.evaluation_table import print_table

_MOST_FIRED = 12
_CODES = ("predictor", "bits/symbol", "second half", "frequencies alone", "right")
_GUESSES = ("SP 800-90B", "right guesses [95 %]", "bits/symbol, bound", "by longest run")


def print_analysis(analysis: StreamAnalysis, console: Console) -> None:
    """Print the verdicts, what they rest on, and the verdicts again in the last line.

    Args:
        analysis (StreamAnalysis): what was found.
        console (Console): where it is printed.
    """
    for verdict in analysis.verdicts:
        _say(console, verdict.sentence)
    _print_tests(console, analysis)
    _print_code_lengths(console, analysis)
    _print_evidence(console, analysis)
    _print_guesses(console, analysis.predictions)
    if analysis.skipped:
        _say(console, f"not run: {'; '.join(f'{name} ({why})' for name, why in analysis.skipped)}")
    _say(console, "a pass is no certificate: the report says what it does not mean")
    _say(console, f"verdict: {verdicts_in_short(analysis)}")


def _print_tests(console: Console, analysis: StreamAnalysis) -> None:
    """The tests that fired, or the one that came closest."""
    fired, run = fired_tests(analysis), len(analysis.tests)
    if fired:
        rows = [
            (test.name, p_value_text(adjusted), test.finding or test.statistic)
            for test, adjusted in fired[:_MOST_FIRED]
        ]
        title = f"{len(fired):,} of {run:,} tests fired"
        print_table(console, title, ("test", "p, corrected", "what it found"), rows)
        if len(fired) > len(rows):
            _say(console, f"and {len(fired) - len(rows):,} more")
        return
    closest = smallest_p_value(analysis)
    if closest is not None:
        test, adjusted = closest
        _say(
            console,
            f"none of {run:,} tests fired; the smallest p-value is {p_value_text(test.p_value)} "
            f"({test.name}), {p_value_text(adjusted)} when corrected for their number",
        )


def _print_code_lengths(console: Console, analysis: StreamAnalysis) -> None:
    codes = analysis.code_lengths
    if not codes:
        return
    rows = [
        (
            code.name,
            bits_text(code.bits),
            bits_text(code.late_bits),
            bits_text(code.marginal_bits),
            _percent(code.accuracy.value),
        )
        for code in codes
    ]
    print_table(console, f"code length, {codes[0].symbols:,} symbols", _CODES, rows)
    for code in codes:
        _say(console, about_code_length(code, analysis))
    if analysis.entropy_rate is not None:
        _say(console, f"true entropy rate of the source: {analysis.entropy_rate:.4f} bits/symbol")


def _print_evidence(console: Console, analysis: StreamAnalysis) -> None:
    """The headline's evidence in one line."""
    for name, evidence in analysis.evidence[:1]:
        passed = evidence.first_exceeds
        when = f", above {1 / evidence.level:,.4g} after {passed:,} symbols" if passed else ""
        _say(
            console,
            f"evidence, {name}: E = {e_value_text(evidence.log_e)} at the end, "
            f"{e_value_text(evidence.log_e_max)} at its largest{when}; p-value "
            f"{p_value_text(evidence.p_value)}, valid at any time",
        )


def _print_guesses(console: Console, predictions: Sequence[Prediction]) -> None:
    if not predictions:
        return
    rows = [
        (p.name, share_of_right_guesses(p), bits_text(p.global_bits), bits_text(p.local_bits))
        for p in predictions
    ]
    print_table(console, f"guessing {predictions[0].predictions:,} symbols", _GUESSES, rows)


def _percent(share: float) -> str:
    return format_percent(share) if math.isfinite(share) else "none"


def _say(console: Console, sentence: str) -> None:
    if sentence:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
