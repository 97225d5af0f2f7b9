"""A stream's page as a browser makes it: an empty console, nothing overlapping or cut off."""

from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.randomness.test_result import holm
from pyseq.analysis.report.stream import write_stream_report
from tests.analysis import stream_analyses
from tests.analysis.test_report_in_browser import BROWSER, BROWSERS, measured, opened

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"needs a browser to open the page in: {', '.join(BROWSERS)}"
)


def _crowded():
    """Many tests that fired, long names, and lines of evidence that end close together."""
    found = stream_analyses.structure()
    long = "a very long name of a test whose view and lags are all spelled out, number"
    tests = [replace(found.tests[5], name=f"{long} {k}", p_value=10.0**-k) for k in range(90)]
    adjusted = holm([test.p_value for test in tests])
    fired = [test.name for test, p in zip(tests, adjusted, strict=True) if p <= found.level]
    return replace(
        found,
        tests=tests,
        adjusted=adjusted,
        verdicts=[found.verdicts[0], replace(found.verdicts[1], fired=fired)],
        evidence=[
            stream_analyses.evidence(f"view of the symbols, number {k}", 3.0 - k / 10)
            for k in range(12)
        ],
        code_lengths=[replace(code, name=f"{long} 1") for code in found.code_lengths],
    )


MAKERS = (stream_analyses.nothing, stream_analyses.structure, stream_analyses.tiny, _crowded)


def test_the_console_is_empty_and_every_picture_is_there(tmp_path):
    page = tmp_path / "report.html"
    write_stream_report(page, stream_analyses.structure())
    document, console = opened(page, tmp_path)
    assert console == []
    # 2 of code lengths, evidence, those of 4 fired tests and their small ones (2), p-values of
    # the fifth and of all, spectrum and its small ones, histogram.
    assert document.count("<svg") == 2 + 1 + 4 + 2 + 2 + 2 + 1


@pytest.mark.parametrize("width", [420, 1100])
@pytest.mark.parametrize("make", MAKERS)
def test_nothing_overlaps_or_is_cut_off(tmp_path, make, width):
    page = tmp_path / "report.html"
    write_stream_report(page, make())
    page.write_text(page.read_text().replace("<details>", "<details open>"))
    assert measured(page, tmp_path, width) == {"overlapping": [], "outside": [], "wide": []}


def test_crowded_pages_are_crowded():
    crowded = _crowded()
    assert len(crowded.verdicts[1].fired) > 80
    assert np.ptp([evidence.log_e for _, evidence in crowded.evidence]) < 3
