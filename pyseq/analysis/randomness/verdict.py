"""The two verdicts: from all p-values of a run to two sentences that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.randomness.tails import p_text
from pyseq.analysis.randomness.test_result import TestResult
from pyseq.analysis.stream_analysis import Power, StreamVerdict


def verdicts(
    tests: Sequence[TestResult], adjusted: NDArray[np.float64], *, level: float, symbols: int,
    power: Sequence[Power], law: str,
) -> tuple[StreamVerdict, StreamVerdict]:  # fmt: skip
    """The marginal's verdict and the dependence's.

    Args:
        tests (sequence of M TestResults): everything that was run.
        adjusted (array (M,), float64): Holm's p-values over all of them.
        level (float): chance of any false verdict that is allowed, such as 0.01.
        symbols (int): N.
        power (sequence of Power): what would have been noticed.
        law (str): the marginal's declared law in words.

    Returns:
        tuple of two StreamVerdicts.
    """
    nulls = {
        "marginal": f"independent draws of a law that is {law}",
        "dependence": "independent draws of the stream's own marginal",
    }
    fired = {question: _fired(tests, adjusted, level, question) for question in nulls}
    marginal, dependence = (
        StreamVerdict(
            question,  # type: ignore[arg-type]
            nulls[question],
            bool(fired[question]),
            _sentence(question, fired, nulls[question], level, symbols, power, tests),
            tuple(test.name for test, _ in fired[question]),
        )
        for question in nulls
    )
    return marginal, dependence


Fired = list[tuple[TestResult, float]]


def _fired(
    tests: Sequence[TestResult], adjusted: NDArray[np.float64], level: float, question: str
) -> Fired:
    found = [
        (test, float(p))
        for test, p in zip(tests, adjusted, strict=True)
        if p <= level and test.question == question
    ]
    return sorted(found, key=lambda pair: pair[0].p_value)


def _sentence(
    question: str, fired: dict[str, Fired], null: str, level: float, symbols: int,
    power: Sequence[Power], tests: Sequence[TestResult],
) -> str:  # fmt: skip
    ours = fired[question]
    asked = sum(test.question == question for test in tests)
    if ours:
        test, p = ours[0]
        others = f" and {len(ours) - 1} more of {asked} tests" if len(ours) > 1 else ""
        text = (
            f"{question}: structure in {symbols:,} symbols, which are not {null}: {test.finding} "
            f"({test.name}, corrected p {p_text(p)}){others}."
        )
        if question == "marginal" and fired["dependence"]:
            text += (
                " These tests count symbols as independent, which they are not (see dependence), so"
                " how uneven the marginal is remains open."
            )
        return text
    if not asked:
        return (
            f"{question}: no test could be run on {symbols:,} symbol{'s' if symbols > 1 else ''}, "
            "too few of them or all alike; of symbols that are all alike the next one is no "
            "surprise, but their order tells nothing."
        )
    noticed = [item.text for item in power if item.question == question]
    would = f"; this run would have noticed {_listed(noticed)}" if noticed else ""
    return (
        f"{question}: no evidence of structure in {symbols:,} symbols against {null} "
        f"({asked} tests, level {100 * level:.3g} % for those of both verdicts together){would}."
    )


def _listed(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + ", or " + items[-1]
