"""Sections on the tests of a stream: those that fired with their pictures, then all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyseq.analysis import plots
from pyseq.analysis.plots.bands import MOST_MULTIPLES
from pyseq.analysis.plots.evidence import MOST_ROWS
from pyseq.analysis.randomness.test_result import Question, TestResult
from pyseq.analysis.report.page import figure, folded, note, section, table, wrapped
from pyseq.analysis.stream_analysis import Band, StreamAnalysis
from pyseq.analysis.stream_words import QUESTIONS, fired_tests, p_value_text

# Words in the name of a test of dependence that tell which curve shows what it found; the first
# one counts. All tests of the marginal are about the histogram.
_PICTURES: Mapping[str, tuple[str, ...]] = {
    "cumulated_spectrum": ("whole spectrum", "bartlett"),
    "spectrum": ("single line", "fisher"),
    "autocorrelation": ("correlation",),
    "lag_information": ("mutual information", "pairs: "),
    "lag_accuracy": ("equal symbols",),
}
_OF_PREDICTORS = ("evidence", "e-process", "mixture")  # in names of tests made of a path
_HEADINGS = {
    "cumulated_spectrum": "Power summed over frequencies",
    "spectrum": "Power at each frequency",
    "autocorrelation": "Correlation with earlier symbols",
    "lag_information": "Information that earlier symbols give",
    "lag_accuracy": "How often a symbol equals an earlier one",
    "histogram": "How often symbols come",
}
_CAPTIONS = {
    "cumulated_spectrum": (
        "Independent draws have equal power at all frequencies and keep the curve near zero; a "
        "slope that takes it out of the band is power gathered at low or high frequencies, as "
        "slow drifts or alternation give."
    ),
    "spectrum": (
        "A spike above the band is something that repeats: one at a frequency of 0.125 "
        "cycles/symbol comes back every 8 symbols."
    ),
    "autocorrelation": (
        "A bar above zero: symbols that far apart tend to be large or small together; below: one "
        "tends to be large when the other is small."
    ),
    "lag_information": (
        "How many bits a symbol tells about the one that many places later, of any form of "
        "dependence; the estimate is above zero even for independent draws, so the band, made of "
        "the same symbols shuffled, is what counts."
    ),
    "lag_accuracy": (
        "The share of symbols that are the same as the one that many places before; a bar above "
        "the band is repetition at that distance."
    ),
    "histogram": (
        "At 1 a symbol, or a bin of neighbouring symbols, comes exactly as often as the declared "
        "law says; above it more often, below it less."
    ),
}


def picture_of(test: TestResult) -> str | None:
    """The field of `Pictures` that shows what a test found, by its name; None where none does."""
    if test.question == "marginal":
        return "histogram"
    name = test.name.lower()
    for picture, words in _PICTURES.items():
        if any(word in name for word in words):
            return picture
    return None


def fired_section(analysis: StreamAnalysis) -> str:
    """The tests that fired: what each found, and its picture."""
    fired = fired_tests(analysis)
    if not fired:
        return ""
    groups: dict[str | None, list[tuple[TestResult, float]]] = {}
    for test, adjusted in fired:
        picture = picture_of(test)
        groups.setdefault(picture if _drawn(analysis, picture) else None, []).append(
            (test, adjusted)
        )
    bare = groups.pop(None, [])
    parts = []
    for picture, tests in groups.items():
        assert picture is not None
        parts += [
            f"<h3>{_HEADINGS[picture]}</h3>",
            _found(tests),
            _picture(analysis, picture),
        ]
    if bare:
        rows = [(test.name, test.p_value, adjusted, True) for test, adjusted in bare]
        parts += [
            "<h3>Seen by the test alone</h3>" if groups else "",
            _found(bare),
            figure(plots.p_value_chart(rows, analysis.level, "fired-p-values")),
            note("The further right a mark stands, the less chance explains it."),
            _link_to_evidence(bare, analysis),
        ]
    return section("What fired", *parts)


def _link_to_evidence(tests: Sequence[tuple[TestResult, float]], analysis: StreamAnalysis) -> str:
    named = any(word in test.name.lower() for test, _ in tests for word in _OF_PREDICTORS)
    if not (named and analysis.evidence):
        return ""
    return '<p>How the evidence grew is drawn <a href="#evidence-as-it-grew">above</a>.</p>'


def _found(tests: Sequence[tuple[TestResult, float]]) -> str:
    rows = [
        (test.name, test.finding or "structure", test.statistic, p_value_text(adjusted))
        for test, adjusted in tests
    ]
    return wrapped(table(("test", "what it found", "measured", "p, corrected"), rows, text=(1, 2)))


def tests_section(analysis: StreamAnalysis) -> str:
    """Every test by question, with where its p-value comes from."""
    if not analysis.tests:
        return ""
    fired = {(test.question, test.name) for test, _ in fired_tests(analysis)}
    pairs = list(zip(analysis.tests, map(float, analysis.adjusted), strict=True))
    rows = [
        (test.name, test.p_value, adjusted, (test.question, test.name) in fired)
        for test, adjusted in pairs
    ]
    left_out = len(rows) - MOST_ROWS
    how = (
        "How to read the picture: a full mark right of the dashed line is a test that fired; the "
        "open circle is the same test as if it were the only one, which is allowed to lie beyond "
        "the line now and then."
    )
    if left_out > 0:
        how += f" The {left_out:,} tests with the largest p-values are not drawn."
    text = (
        "A p-value is the chance that a stream of the null shows at least as much as was measured. "
        f"Of {len(rows):,} tests some come out small by accident; Holm's correction keeps the "
        "chance that any of them fires on such a stream at or below the level of "
        f"{100 * analysis.level:.4g} %."
    )
    return section(
        "All tests",
        figure(plots.p_value_chart(rows, analysis.level)),
        note(how),
        note(text),
        *(_question(question, pairs, fired) for question in QUESTIONS),
    )


_COLUMNS = ("test", "", "measured", "p", "p, corrected", "where p comes from", "symbols read")


def _question(
    question: Question,
    pairs: Sequence[tuple[TestResult, float]],
    fired: set[tuple[Question, str]],
) -> str:
    rows = [
        (
            test.name,
            "fired" if (question, test.name) in fired else "",
            test.statistic,
            p_value_text(test.p_value),
            p_value_text(adjusted),
            test.null,
            test.symbols,
        )
        for test, adjusted in pairs
        if test.question == question
    ]
    if not rows:
        return ""
    found = wrapped(table(_COLUMNS, rows, text=(1, 2, 5)))
    return f"<h3>{QUESTIONS[question]}</h3>{found}"


def pictures_section(analysis: StreamAnalysis) -> str:
    """The pictures that no fired test has shown yet."""
    shown = {picture_of(test) for test, _ in fired_tests(analysis)}
    parts = [
        f"<h3>{_HEADINGS[picture]}</h3>{_picture(analysis, picture)}"
        for picture in _HEADINGS
        if picture not in shown and _drawn(analysis, picture)
    ]
    return section("Pictures", *parts)


def skipped_section(analysis: StreamAnalysis) -> str:
    """Tests that were not run, and why."""
    found = table(("test", "why not"), analysis.skipped, text=(1,))
    return section("Tests that were not run", wrapped(found))


def _bands(analysis: StreamAnalysis, picture: str) -> Sequence[Band]:
    found: Sequence[Band] = getattr(analysis.pictures, picture)
    return found


def _drawn(analysis: StreamAnalysis, picture: str | None) -> bool:
    """Whether there is anything to draw."""
    return picture is not None and bool(plots.has_points(_bands(analysis, picture)))


def _picture(analysis: StreamAnalysis, picture: str) -> str:
    """A large picture with its caption, and the small ones of bytes and bits below it."""
    bands = _bands(analysis, picture)
    others = [band for band in bands if plots.has_points([band])][1:]
    outside = [band.name for band in others if plots.leaves_band(band)]
    small = figure(plots.band_multiples(picture, bands))
    if small and len(others) > MOST_MULTIPLES:
        small += note(
            f"{MOST_MULTIPLES} of {len(others)}: those that come closest to leaving their bands, "
            "or leave them furthest."
        )
    summary = f"The same for {_listed([band.name for band in others])}"
    if outside:
        summary += f"; outside: {_listed(outside)}"
    return (
        figure(plots.band_chart(picture, bands)) + note(_CAPTIONS[picture]) + folded(summary, small)
    )


def _listed(names: Sequence[str], most: int = 4) -> str:
    """The names, the middle ones left out where there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} … {names[-1]} ({len(names)})"
