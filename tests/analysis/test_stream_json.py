import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyseq.analysis.stream_json import FORMAT, to_json, write_json
from pyseq.errors import UserError
from tests.analysis import stream_analyses

MAKERS = (stream_analyses.nothing, stream_analyses.structure, stream_analyses.tiny)
KEYS = {
    "format", "symbols", "alphabet", "level", "facts", "verdicts", "tests", "skipped", "power",
    "marginal", "entropy_rate", "evidence", "code_lengths", "predictions", "predicted_symbols",
    "most_common_value", "expected", "compressed", "pictures",
}  # fmt: skip


def _refused(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("make", MAKERS)
def test_a_file_reads_back_as_it_was(tmp_path, make):
    path = tmp_path / "analysis.json"
    write_json(path, make())
    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    assert read == to_json(make())
    assert set(read) == KEYS
    assert read["format"] == FORMAT


def test_every_key_is_documented():
    text = to_json.__doc__
    assert all(f"{key}" in text for key in KEYS)


def test_holds_what_the_page_shows():
    analysis = stream_analyses.structure()
    found = to_json(analysis)
    assert found["symbols"] == 1_000_000
    assert found["facts"][0] == ["file", str(Path("data/rolls.u16"))]
    assert [v["structure"] for v in found["verdicts"]] == [False, True]
    assert found["verdicts"][1]["sentence"] == analysis.verdicts[1].sentence
    line = found["tests"][4]
    assert line["name"] == "a single line in the spectrum of the symbols"
    assert (line["p_value"], line["fired"], line["question"]) == (0.0, True, "dependence")
    assert found["tests"][5]["corrected_p_value"] == pytest.approx(8e-45)
    assert sum(test["fired"] for test in found["tests"]) == 5
    assert found["code_lengths"][0]["late_bits"] == [8.731, 8.728, 8.734]
    assert found["code_lengths"][0]["weights"] == {"lag 7": 0.83, "order 1": 0.17}
    assert found["entropy_rate"] == 8.7234
    assert found["predictions"][1]["local_chance"] == 0.0087
    assert found["most_common_value"]["count"] == 151
    assert found["expected"]["MultiMCW"] == {"bits": 13.0211, "low": 12.8404, "high": 13.2198}
    assert found["expected"]["runs"][1]["longest_run"] == 2
    assert found["evidence"][0]["name"] == "mixture"
    assert found["evidence"][0]["path"]["symbols"][-1] == 1_000_000
    assert found["evidence"][0]["path"]["log10_e"][-1] == 30_000.0
    curves = found["pictures"]
    assert set(curves) == set(type(analysis.pictures).__dataclass_fields__)
    assert curves["lag_information"][0]["y"][6] == 0.4
    assert curves["lag_information"][0]["low"] == pytest.approx(0.0028)


def test_p_values_of_zero_stay_zero():
    analysis = stream_analyses.structure()
    tests = [replace(analysis.tests[0], p_value=0.0), *analysis.tests[1:]]
    found = to_json(replace(analysis, tests=tests, adjusted=np.zeros(len(tests))))
    assert found["tests"][0]["p_value"] == 0.0
    assert found["tests"][0]["corrected_p_value"] == 0.0


def test_numbers_that_are_not_finite_are_null():
    found = to_json(stream_analyses.tiny())
    assert found["marginal"] == {"entropy": 1.0, "min_entropy": None}
    assert found["code_lengths"][0]["bits"] == [None, None, None]
    assert found["pictures"]["autocorrelation"][0]["y"] == [None, None]
    assert found["pictures"]["histogram"][0]["y"] == []
    assert found["most_common_value"] is None


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"missing/a.json cannot be written"):
        write_json(tmp_path / "missing" / "a.json", stream_analyses.tiny())
