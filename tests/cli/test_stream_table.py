import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from pyseq.cli.stream_table import print_analysis
from tests.analysis import stream_analyses


def printed(analysis, width=100):
    """The lines that a terminal shows."""
    console = Console(file=io.StringIO(), width=width)
    print_analysis(analysis, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    "make", [stream_analyses.nothing, stream_analyses.structure, stream_analyses.tiny]
)
def test_the_verdicts_come_first_and_last(make):
    analysis, lines = make(), printed(make())
    assert lines[:2] == [verdict.sentence for verdict in analysis.verdicts]
    assert lines[-1].startswith("verdict: marginal: no evidence of structure; dependence: ")
    assert len(lines) < 45


def test_without_structure_the_smallest_p_value_is_told():
    lines = printed(stream_analyses.nothing())
    [line] = [line for line in lines if "tests fired" in line]
    assert line == (
        "none of 11 tests fired; the smallest p-value is 0.0310 (a single line in the spectrum of "
        "the symbols), 0.3410 when corrected for their number"
    )
    assert lines[-1].endswith("dependence: no evidence of structure")
    assert "learning from the past cost it more than it gave" in " ".join(lines)
    assert "E = 10^-310 at the end, 2.51 at its largest; p-value 0.3981" in " ".join(lines)


def test_with_structure_the_tests_that_fired_are_listed():
    lines = printed(stream_analyses.structure())
    text = " ".join(" ".join(lines).split())
    assert "5 of 11 tests fired" in text
    assert "equal symbols, one of lags 1 to 128 < 1e-300" not in text
    assert "4.5497 bits/symbol fewer" in text
    assert "above 100 after 66 symbols" in text
    assert "true entropy rate of the source: 8.7234 bits/symbol" in text
    assert lines[-1].endswith("dependence: structure (5 tests fired)")


def test_of_many_that_fired_the_first_are_listed():
    base = stream_analyses.structure()
    tests = [
        replace(base.tests[5], name=f"test {k:02}", p_value=10.0 ** -(50 + k)) for k in range(30)
    ]
    fired = [test.name for test in tests]
    many = replace(
        base,
        tests=tests,
        adjusted=np.full(30, 1e-40),
        verdicts=[base.verdicts[0], replace(base.verdicts[1], fired=fired)],
    )
    lines = printed(many)
    listed = re.findall(r"test \d\d", " ".join(lines[2:]))
    assert listed == [f"test {k:02}" for k in range(29, 17, -1)]
    assert "and 18 more" in lines


def test_nothing_that_is_no_number_is_shown_as_one():
    text = "\n".join(printed(stream_analyses.tiny()))
    assert "nan" not in text
    assert "inf" not in text


def test_markup_in_names_is_text():
    base = stream_analyses.structure()
    [name] = base.evidence[:1]
    odd = replace(base, evidence=[("[bold]x[/bold]", name[1])], skipped=[("[red]", "[/red]")])
    text = "\n".join(printed(odd))
    assert "[bold]x[/bold]" in text
    assert "not run: [red] ([/red])" in text
