from benchmarks import rules_table
from pyseq.analysis.rules import RunRecord, read_record, write_record
from pyseq.training.rules.cells import find_records


def record(**changes) -> RunRecord:
    row = {"step": 5, "validation_loss": 0.1, "ood_rule_1": 0.25}
    settings = {"grammar": "aNbN", "model": "linear", "max_length": 64, "seeds": [0],
                "histories": [[row]], "stops": ["patience"], "seconds": 1800.0,
                "config": {"out": "/a/machine/of/mine", "lr": 0.002}}  # fmt: skip
    return RunRecord(**{**settings, **changes})


def test_records_are_taken_and_the_page_is_of_all_of_them(tmp_path):
    runs, results, page = tmp_path / "runs", tmp_path / "results", tmp_path / "page.md"
    for name, each in (("one", record()), ("two", record(variant="fixed"))):
        (runs / name).mkdir(parents=True)
        write_record(runs / name / "record.json", each)
    places = ["--results", str(results), "--page", str(page)]
    assert rules_table.main([str(runs), *places]) == 0
    assert sorted(x.name for x in results.iterdir()) == ["aNbN-linear-64", "aNbN-linear-fixed-64"]
    kept = read_record(results / "aNbN-linear-64" / "record.json")
    assert kept == record(config={"out": "aNbN-linear-64", "lr": 0.002})
    text = page.read_text()
    assert "from 2 runs, 1.0 hours" in text
    assert rules_table.main(places) == 0
    assert page.read_text() == text


def test_the_page_in_docs_is_that_of_the_records():
    expected = rules_table.page(find_records([rules_table.RESULTS]))
    assert rules_table.PAGE.read_text("utf-8") == expected
