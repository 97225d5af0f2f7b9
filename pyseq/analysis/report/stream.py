"""The page of `pyseq analyze`: what it shows about a stream, and in which order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.report import page, stream_predictability, stream_tests
from pyseq.analysis.report.page import note, section, table
from pyseq.analysis.stream_analysis import StreamAnalysis
from pyseq.analysis.stream_words import QUESTIONS, stream_name
from pyseq.data.durable_file import replace_file

_NO_PASS = (
    "A stream that passes is not certified. A pass says that these tests, on these symbols, would "
    "have been right to say nothing: it bounds only the departures listed above, and a generator "
    "can be built that passes every fixed list of tests and is still predictable by whoever knows "
    "how it works.",
    "Learned predictors have reaches too. Published networks learn the next output of linear "
    "congruential generators (LCG) and of permuted ones (PCG) only up to about 2^22 to 2^32 "
    "states; the generators in use have 2^64 states and more. That no network predicts such a "
    "stream says nothing about whether its state can be computed.",
    "A cryptographic generator whose key has leaked passes everything on this page, and whoever "
    "has the key knows every symbol in advance. For keys, lotteries and games the question is "
    "who knows the seed, which no test of the symbols can answer.",
    "If structure was found, it is in these symbols; whether it lies in the source or in how the "
    "symbols were recorded (a rounding, a lost or doubled block, a wrong alphabet) is for the "
    "one who recorded them to find out.",
)


def write_stream_report(path: str | os.PathLike[str], analysis: StreamAnalysis) -> None:
    """Write the page, which replaces what was there when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        analysis (StreamAnalysis): what the page shows; parts without data are left out.

    Raises:
        UserError: the page cannot be written; what was there before is left as it was.
    """
    text = _page(analysis)
    replace_file(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _page(analysis: StreamAnalysis) -> str:
    verdicts = [
        page.verdict_box(
            verdict.sentence,
            question=QUESTIONS[verdict.question],
            found=verdict.structure,
        )
        for verdict in analysis.verdicts
    ]
    sections = [
        _power_section(analysis),
        stream_predictability.code_length_section(analysis),
        stream_predictability.evidence_section(analysis),
        stream_predictability.guesses_section(analysis),
        stream_predictability.compressors_section(analysis),
        stream_tests.fired_section(analysis),
        stream_tests.tests_section(analysis),
        stream_tests.pictures_section(analysis),
        stream_tests.skipped_section(analysis),
        section("This run", page.facts(_facts(analysis))),
        section("What a pass does not mean", *map(note, _NO_PASS)),
    ]
    title = f"Is {stream_name(analysis.facts)} predictable?"
    return page.page(title, "\n".join(verdicts), sections)


def _power_section(analysis: StreamAnalysis) -> str:
    rows = [
        (QUESTIONS[power.question], power.text, format_percent(power.chance))
        for power in analysis.power
    ]
    text = (
        "The smallest departures of a few kinds that a run of this length finds with the stated "
        "chance, computed for the tests and the level of this run. Smaller ones, and other kinds, "
        "may be there unseen."
    )
    found = page.wrapped(table(("question", "departure", "chance to find it"), rows, text=(1,)))
    return section("What this run would have noticed", found, note(text) if found else "")


def _facts(analysis: StreamAnalysis) -> Sequence[tuple[str, object]]:
    """The facts given, with those of the analysis that they do not name."""
    named = {name for name, _ in analysis.facts}
    own = [
        ("symbols", analysis.symbols),
        ("alphabet", analysis.alphabet),
        ("level of both verdicts together", f"{100 * analysis.level:.4g} %"),
        ("tests", len(analysis.tests)),
    ]
    return [*analysis.facts, *(fact for fact in own if fact[0] not in named)]
