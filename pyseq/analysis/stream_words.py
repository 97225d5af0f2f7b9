"""How the numbers of a stream's analysis are put into words, on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.evidence import Evidence
from pyseq.analysis.predictability.sp800_90b import Prediction
from pyseq.analysis.randomness.test_result import Question, TestResult
from pyseq.analysis.stream_analysis import CodeLength, StreamAnalysis

QUESTIONS: Mapping[Question, str] = {
    "marginal": "How often does each symbol come?",
    "dependence": "Does the past tell what comes next?",
}
_SMALLEST_P = 1e-300  # below it doubles lose digits, and then are 0


def p_value_text(p_value: float) -> str:
    """A p-value with two digits, or four decimals: 0.5231, 3.1e-07, < 1e-300.

    Args:
        p_value (float): from 0 to 1; not finite where there is none.

    Returns:
        str: as above; "none" where there is none.
    """
    if not math.isfinite(p_value):
        return "none"
    if p_value < _SMALLEST_P:
        return "< 1e-300"
    return f"{p_value:.4f}" if p_value >= 0.001 else f"{p_value:.1e}"


def e_value_text(log_e: float) -> str:
    """Evidence as a number: 0.031, 17.2, 10^45.

    Args:
        log_e (float): its natural logarithm; -inf for evidence of 0.

    Returns:
        str: with three digits, and beyond 1e6 or below 1e-4 as a power of ten.
    """
    if not math.isfinite(log_e):
        return {math.inf: "infinite", -math.inf: "0"}.get(log_e, "none")
    decades = log_e / math.log(10)
    return f"{10**decades:,.3g}" if -4 <= decades < 6 else f"10^{decades:,.0f}"


def bits_text(bits: Interval | float | None) -> str:
    """Bits with four decimals, or an interval as it prints; "none" where nothing is known."""
    if bits is None:
        return "none"
    if isinstance(bits, Interval):
        return str(bits) if math.isfinite(bits.value) else "none"
    return f"{bits:.4f}" if math.isfinite(bits) else "none"


def percent_text(share: Interval) -> str:
    """A share with its interval as percentages; "none" where nothing is known."""
    return format_percent(share) if math.isfinite(share.value) else "none"


def share_of_right_guesses(prediction: Prediction) -> str:
    """The share of right guesses with its exact 95 % interval, small shares as powers of ten."""
    share = prediction.accuracy_interval
    values = (share.value, share.low, share.high)
    if share.high >= 0.001:
        value, low, high = (f"{100 * x:.3g} %" for x in values)
    else:
        value, low, high = (f"{x:.3g}" for x in values)
    return f"{value} [{low}, {high}]"


def bits_of_right_guesses(prediction: Prediction) -> str:
    """-log2 of the share of right guesses, bits/symbol, with its 95 % interval."""
    share = prediction.accuracy_interval
    value, low, high = (_surprise(x) for x in (share.value, share.high, share.low))
    return f"{value} [{low}, {high}]"


def _surprise(share: float) -> str:
    return f"{-math.log2(share):.3f}" if share > 0 else "no limit"


def fired_tests(analysis: StreamAnalysis) -> list[tuple[TestResult, float]]:
    """The tests that the verdicts name, with their corrected p-values, the smallest one first.

    Args:
        analysis (StreamAnalysis): whose verdicts decide which tests fired.

    Returns:
        list of (TestResult, float): among equal corrected p-values the smaller plain one first.
    """
    names = {(verdict.question, name) for verdict in analysis.verdicts for name in verdict.fired}
    found = [
        (test, float(adjusted))
        for test, adjusted in zip(analysis.tests, analysis.adjusted, strict=True)
        if (test.question, test.name) in names
    ]
    return sorted(found, key=lambda pair: (pair[1], pair[0].p_value))


def smallest_p_value(analysis: StreamAnalysis) -> tuple[TestResult, float] | None:
    """The test with the smallest p-value and its corrected one; None where no test was run."""
    pairs = zip(analysis.tests, map(float, analysis.adjusted), strict=True)
    known = [pair for pair in pairs if math.isfinite(pair[0].p_value)]
    return min(known, key=lambda pair: (pair[1], pair[0].p_value), default=None)


def verdicts_in_short(analysis: StreamAnalysis) -> str:
    """Both verdicts in one line."""
    return "; ".join(
        f"{verdict.question}: {_in_short(verdict.structure, len(verdict.fired))}"
        for verdict in analysis.verdicts
    )


def _in_short(structure: bool, fired: int) -> str:
    if not structure:
        return "no evidence of structure"
    return f"structure ({fired} test{'s' if fired != 1 else ''} fired)"


def about_code_length(code: CodeLength, analysis: StreamAnalysis) -> str:
    """What a code length says about the stream, in one sentence.

    Args:
        code (CodeLength): of one predictor.
        analysis (StreamAnalysis): whose verdict on dependence decides whether a saving is one.

    Returns:
        str: how it compares with the symbols' own frequencies; empty where nothing was scored.
    """
    late, marginal = code.late_bits, code.marginal_bits
    if not (math.isfinite(late.value) and math.isfinite(marginal)):
        return ""
    alone = f"the {marginal:.4f} that the symbols' frequencies alone give"
    depends = any(v.question == "dependence" and v.structure for v in analysis.verdicts)
    if depends and late.high < marginal:
        return (
            f"{code.name}: in the second half {marginal - late.value:.4f} bits/symbol fewer than "
            f"{alone}; that much the past told it of each symbol."
        )
    if late.low > marginal:
        return (
            f"{code.name}: in the second half {late.value - marginal:.4f} bits/symbol more than "
            f"{alone}; learning from the past cost it more than it gave."
        )
    return (
        f"{code.name}: in the second half {late.value:.4f} bits/symbol beside {alone}; no evidence "
        "that the past helped it."
    )


def evidence_row(name: str, evidence: Evidence) -> tuple[str, ...]:
    """Name, evidence at the end and at its largest, when it passed the level, p-value, savings."""
    passed = evidence.first_exceeds
    return (
        name,
        e_value_text(evidence.log_e),
        e_value_text(evidence.log_e_max),
        "never" if passed is None else f"{passed:,}",
        p_value_text(evidence.p_value),
        bits_text(evidence.saved_bits),
    )


def stream_name(facts: Sequence[tuple[str, object]]) -> str:
    """The file or stream that the facts name; "this stream" where they name none."""
    named = dict(facts)
    for key in ("file", "stream"):
        if named.get(key):
            return str(named[key]).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "this stream"
