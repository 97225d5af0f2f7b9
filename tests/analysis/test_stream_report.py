"""The page of a stream: what stands on it, in which order, and that it is whole."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.sp800_90b import MostCommonValue
from pyseq.analysis.report.stream import write_stream_report
from pyseq.analysis.report.stream_tests import picture_of
from pyseq.analysis.stream_analysis import Compressed, Pictures, Power
from pyseq.errors import UserError
from tests.analysis import stream_analyses
from tests.analysis.stream_analyses import band
from tests.analysis.test_report import _Page

FOUND = [
    "what-this-run-would-have-noticed",
    "how-predictable",
    "evidence-as-it-grew",
    "guessing-the-next-symbol",
    "compressors",
    "what-fired",
    "all-tests",
    "pictures",
    "tests-that-were-not-run",
    "this-run",
    "what-a-pass-does-not-mean",
]
NOT_FOUND = [name for name in FOUND if name != "what-fired"]


def _written(folder, analysis):
    path = folder / "report.html"
    write_stream_report(path, analysis)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The pages of all three streams."""
    folder = tmp_path_factory.mktemp("pages")
    makers = (stream_analyses.nothing, stream_analyses.structure, stream_analyses.tiny)
    return {make.__name__: _written(folder, make()) for make in makers}


def section(text, name):
    """The text of one section."""
    [found] = re.findall(rf'<section id="{name}">.*?</section>', text, re.DOTALL)
    return _Page(found).text


def test_both_verdicts_stand_on_top_in_full(texts):
    for make in (stream_analyses.nothing, stream_analyses.structure):
        text = texts[make.__name__]
        above = _Page(text.split("<section")[0] + "</main></body></html>").text
        places = [above.index(verdict.sentence) for verdict in make().verdicts]
        assert places == sorted(places)
        assert "Is rolls.u16 predictable?" in above


def test_colour_only_repeats_what_the_verdict_says(texts):
    def boxes(text):
        return re.findall(r'<div class="(verdict[^"]*)">', text)

    assert boxes(texts["nothing"]) == ["verdict", "verdict"]
    assert boxes(texts["structure"]) == ["verdict", "verdict found"]


def test_sections_in_the_order_of_a_reader(texts):
    assert _Page(texts["nothing"]).sections == NOT_FOUND
    assert _Page(texts["structure"]).sections == FOUND
    missing = {"what-this-run-would-have-noticed", "what-fired"}
    assert _Page(texts["tiny"]).sections == [name for name in FOUND if name not in missing]


def test_says_how_predictable_the_stream_is(texts):
    words = section(texts["structure"], "how-predictable")
    for expected in (
        "Estimate of the entropy rate, from above: 8.7310 [8.7280, 8.7340] bits/symbol",
        "symbols drawn evenly would have 13.2879",
        "The stream's description says 8.7234.",
        "4.5497 bits/symbol fewer than the 13.2807 that the symbols' frequencies alone give",
        "true entropy rate 8.7234",
        "Of 256 classes:",
        "lag 7 83.0 %",
        "2.2515 [2.2460, 2.2571]",
        "12.6123 bits/symbol (-log2 of the largest share)",
    ):
        assert expected in words, expected


def test_no_saving_is_claimed_without_a_verdict_of_dependence(tmp_path):
    """The interval of a code length may end below the frequencies' bits by accident."""
    found = stream_analyses.nothing()
    [code] = found.code_lengths
    below = replace(code, late_bits=Interval(13.27, 13.26, 13.28))
    bare = replace(found, code_lengths=[below], pictures=Pictures())
    words = section(_written(tmp_path, bare), "how-predictable")
    assert "no evidence that the past helped it" in words
    assert "fewer" not in words.split("Bits/symbol: what")[0]


def test_shows_the_evidence(texts):
    words = section(texts["structure"], "evidence-as-it-grew")
    for expected in (
        "mixture 10^30,000 10^30,000 66 < 1e-300 0.500 [0.490, 0.510]",
        "bit 0 0.00316 2.51 never 0.3981 -0.0010",
        "a chance of at most 1.00 %",
        "independent draws of an unknown law, 256 classes",
    ):
        assert expected in words, expected


def test_the_bound_by_all_guesses_is_the_headline_and_the_longest_run_stands_apart(texts):
    words = section(texts["nothing"], "guessing-the-next-symbol")
    headline, rest = words.split("By the longest run of right guesses")
    assert "lowest bound on the min-entropy is 12.9710 bits/symbol, by LZ78Y" in headline
    assert "13.273 [13.010, 13.595] 13.0133 13.02 [12.84, 13.22]" in headline
    assert "7.9658" not in headline
    assert "Lag 2 7.9658 0.870 % 7.9658" in rest
    assert "2 or more in 0.995 % of perfect sources, scored 7.9700 bits/symbol" in rest
    assert "151 times, a share of 0.000151" in rest
    assert "12.4162 bits/symbol; a perfect source of this length would be expected to" in rest


def test_every_test_is_in_the_table_of_its_question(texts):
    for make in (stream_analyses.nothing, stream_analyses.structure):
        analysis = make()
        words = section(texts[make.__name__], "all-tests")
        marginal, dependence = words.split("Does the past tell what comes next?")
        for test in analysis.tests:
            part = marginal if test.question == "marginal" else dependence
            assert f"{test.statistic} " in part
            assert f"{test.symbols:,}" in part
    assert "chi-square, 65,535 degrees of freedom" in words
    assert words.count("< 1e-300") == 6  # two p-values, corrected ones, and their figures
    row = "a single line in the spectrum of the symbols fired statistic 7.25 < 1e-300 < 1e-300"
    assert row in words
    assert "mutual information at lags fired statistic 9.25 3.0e-09 2.1e-08" in words
    assert "runs above and below the median statistic 11.25 0.3300 1.0000" in words


def test_tests_that_fired_come_with_their_pictures(texts):
    words = section(texts["structure"], "what-fired")
    [html] = re.findall(r'<section id="what-fired">.*?</section>', texts["structure"], re.DOTALL)
    for test in stream_analyses.structure().tests:
        assert (f"{test.name} finding" in words) == bool(test.finding)
    for picture in ("spectrum", "autocorrelation", "lag-information", "lag-accuracy"):
        assert len(re.findall(rf'id="{picture}-figure_1"', html)) == 1
    assert "histogram-figure_1" not in html
    assert 'id="fired-p-values-' in html
    assert 'href="#evidence-as-it-grew"' in html
    # What has been shown is not shown again.
    assert texts["structure"].count('id="spectrum-figure_1"') == 1


def test_a_curve_that_leaves_its_band_is_named_before_it_is_unfolded(texts):
    words = section(texts["structure"], "pictures")
    assert "The same for high byte, low byte, bit 0 … bit 4 (7); outside: low byte" in words
    assert "outside: " not in section(texts["nothing"], "pictures")


@pytest.mark.parametrize(
    ("name", "question", "picture"),
    [
        ("coarser scales", "marginal", "histogram"),
        ("the whole spectrum of the bits", "dependence", "cumulated_spectrum"),
        ("a single line in the spectrum of the low byte", "dependence", "spectrum"),
        ("autocorrelation, one of lags 1 to 64", "dependence", "autocorrelation"),
        ("correlation of the bits at any lag", "dependence", "autocorrelation"),
        ("mutual information at lags", "dependence", "lag_information"),
        ("pairs: low byte, then high byte", "dependence", "lag_information"),
        ("equal symbols, lags 1 to 64 together", "dependence", "lag_accuracy"),
        ("runs above and below the median", "dependence", None),
        ("rank of 64 x 64 matrices of bits", "dependence", None),
    ],
)
def test_a_test_has_the_picture_of_what_it_measures(name, question, picture):
    test = replace(stream_analyses.nothing().tests[0], name=name, question=question)
    assert picture_of(test) == picture


def test_a_test_that_fired_without_its_curve_is_still_drawn(tmp_path):
    text = _written(tmp_path, replace(stream_analyses.structure(), pictures=Pictures()))
    assert "pictures" not in _Page(text).sections
    assert text.count('id="fired-p-values-figure_1"') == 1
    assert "Seen by the test alone" not in text  # there is nothing it could be told apart from


def test_says_what_was_not_run_and_what_a_pass_does_not_mean(texts):
    for text in texts.values():
        words = section(text, "what-a-pass-does-not-mean")
        for expected in ("is not certified", "2^22 to 2^32", "whose key has leaked"):
            assert expected in words
    assert "the bit never changes" in section(texts["nothing"], "tests-that-were-not-run")
    assert "100 symbols are too few" in section(texts["tiny"], "tests-that-were-not-run")


def test_facts_are_told_once(texts):
    words = section(texts["nothing"], "this-run")
    for expected in ("seed 7", "symbols 1,000,000", "alphabet 10,001", "together 1 %", "tests 11"):
        assert words.count(expected) == 1, expected


def test_many_tests_are_all_in_the_table_and_the_picture_says_what_it_leaves_out(tmp_path):
    base = stream_analyses.nothing()
    tests = [replace(base.tests[3], name=f"test {k:03}") for k in range(90)]
    many = replace(base, tests=tests, adjusted=np.ones(90), pictures=Pictures())
    words = section(_written(tmp_path, many), "all-tests")
    assert "The 30 tests with the largest p-values are not drawn." in words
    assert all(f"test {k:03} statistic" in words for k in range(90))


def test_numbers_that_are_none_are_no_numbers_on_the_page(texts):
    page = _Page(texts["tiny"]).text
    assert not re.search(r"\bnan\b", page)
    assert not re.search(r"\binf\b", page)


def test_needs_no_network_and_its_references_are_met(texts):
    for text in texts.values():
        page = _Page(text)
        assert "http:" not in text
        assert "https:" not in text
        assert "Content-Security-Policy" in text
        assert "script" not in page.seen
        used = [*page.references, *re.findall(r"url\(([^)]*)\)", text)]
        assert all(ref.startswith(("#", "data:")) for ref in used)
        assert len(page.ids) == len(set(page.ids))
        # A section that another one names may be a section's id, which the page knows too.
        assert {ref[1:] for ref in used if ref.startswith("#")} <= set(page.ids)


def test_pictures_take_their_colours_from_the_page(texts):
    for text in texts.values():
        pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
        assert pictures
        for picture in pictures:
            assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", picture)) == set()
        declared = set(re.findall(r"(--\w+):", text))
        assert set(re.findall(r"var\((--\w+)\)", text)) <= declared


def test_escapes_what_it_is_given(tmp_path):
    hostile = '</title><script>alert("$x$ & y")</script>'
    base = stream_analyses.structure()
    curve = band(hostile, [0.0, 0.5], 0.1)
    evidence = base.evidence[0][1]
    test = replace(
        base.tests[5], name=hostile, statistic=hostile, null=hostile, finding=hostile, p_value=0.0
    )
    found = replace(
        base,
        facts=[("file", hostile), (hostile, hostile)],
        verdicts=[replace(v, sentence=hostile, fired=[hostile]) for v in base.verdicts],
        tests=[test],
        adjusted=np.array([0.0]),
        skipped=[(hostile, hostile)],
        power=[Power("marginal", hostile, 1.0, hostile, 0.9)],
        evidence=[(hostile, replace(evidence, null=hostile))],
        code_lengths=[replace(base.code_lengths[0], name=hostile, weights={hostile: 1.0})],
        predictions=[replace(base.predictions[0], name=hostile)],
        compressed=[Compressed(hostile, 5, 1.0, 1.0)],
        pictures=Pictures(autocorrelation=[curve, curve], histogram=[curve, curve]),
    )
    page = _Page(_written(tmp_path, found))
    assert "script" not in page.seen
    assert page.text.count(hostile) > 20


def test_the_same_analysis_is_the_same_page(tmp_path, texts):
    assert _written(tmp_path, stream_analyses.structure()) == texts["structure"]


def test_long_curves_stay_a_small_page(texts):
    assert len(texts["nothing"]) < 600_000


def test_most_common_value_alone_is_shown(tmp_path):
    value = MostCommonValue(60, 0.6, 0.72, 0.4739)
    alone = replace(stream_analyses.tiny(), predictions=[], most_common_value=value)
    words = section(_written(tmp_path, alone), "guessing-the-next-symbol")
    assert "60 times, a share of 0.6; by the upper 99 % end" in words
    assert "longest run" not in words


def test_memory_that_was_full_is_told(tmp_path):
    base = stream_analyses.nothing()
    predictions = [replace(base.predictions[2], full_at=123_456)]
    bare = replace(base, predictions=predictions, pictures=Pictures())
    text = _written(tmp_path, bare)
    assert "memory of MultiMMC was full after 123,456 symbols" in _Page(text).text


def test_infinite_and_zero_values_are_drawn_or_left_out(tmp_path):
    base = stream_analyses.nothing()
    name, evidence = base.evidence[0]
    odd = replace(
        evidence, log_e=-math.inf, p_value=0.0, path=(np.array([0, 5]), np.array([0.0, -np.inf]))
    )
    text = _written(tmp_path, replace(base, evidence=[(name, odd)], pictures=Pictures()))
    assert "mixture 0 2.51" in section(text, "evidence-as-it-grew")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"missing/report.html cannot be written"):
        write_stream_report(tmp_path / "missing" / "report.html", stream_analyses.tiny())
