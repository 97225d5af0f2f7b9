"""README's numbers come from rows, and --check notices when they do not."""

import pytest

from benchmarks import plots, report, rows

PAGE = """# Title
<!-- benchmarks:gather:begin dtype=int64 -->
old
<!-- benchmarks:gather:end -->
after
"""


def row(**changes: str) -> dict[str, str]:
    values = dict.fromkeys(rows.COLUMNS, "")
    values.update(
        op="gather",
        backend="native",
        role="contestant",
        shape="B=2 T=4",
        dtype="int64",
        p20="0.001",
        p50="0.002",
        p80="0.004",
        peak_bytes="2097152",
        unit="tokens/s",
        unit_value="4000000",
        ceiling="memcpy (GB/s)",
        ceiling_value="10",
        ceiling_share="0.75",
        peer="numpy",
        ratio="1.5",
        ratio_p20="1.25",
        ratio_p80="1.75",
        device="Some CPU, 2 threads",
        torch="2.13.0",
        threads="2",
        rounds="20",
        commit="abc",
        date="2026-01-02T03:04:05+00:00",
    )
    return values | changes


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results" / "some-cpu-2-threads" / "gather.csv"
    rows.append(path, [row(), row(dtype="uint16"), row(backend="numpy", role="peer")])
    return tmp_path / "results"


def test_a_table_has_the_number_its_spread_and_where_it_is_from(results):
    page = report.render(PAGE, results)
    assert "| native | 2.00 [1.00, 4.00] ms | 4.00 Mtokens/s | 75.0 % of memcpy (GB/s) |" in page
    assert "1.50x [1.25, 1.75] numpy" in page
    assert "Some CPU, 2 threads, 2 used" in page
    assert "commit abc, 2026-01-02" in page
    assert "2.0 MiB" in page
    assert "uint16" not in page
    assert "old" not in page
    assert page.startswith("# Title\n")
    assert page.endswith("-->\nafter\n")


def test_the_newest_run_of_a_case_counts_also_where_it_was_stored_first(results):
    path = results / "some-cpu-2-threads" / "gather.csv"
    newer = {"date": "2026-03-01T00:00:00+00:00", "p50": "0.003"}
    older = {"date": "2026-02-01T00:00:00+00:00", "p50": "0.009"}
    rows.append(path, [row(**newer), row(**older)])
    body = report.markdown(report.newest(results, "gather"))
    assert "3.00 [1.00, 4.00] ms" in body
    assert "9.00 [" not in body
    assert "numpy (peer)" not in body  # which took no part in the newest run
    assert body.index("2026-01-02") < body.index("2026-03-01")  # of the other case; a caption each


def test_check_detects_a_stale_number(results, tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(PAGE)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(rows, "RESULTS", results)
    assert report.main(["--check"]) == 1
    assert "README.md is stale" in capsys.readouterr().out
    assert readme.read_text() == PAGE
    assert report.main([]) == 0
    assert (tmp_path / "docs" / "benchmarks-gather-some-cpu-2-threads.svg").exists()
    assert report.main(["--check"]) == 0
    readme.write_text(readme.read_text().replace("4.00 Mtokens/s", "5.00 Mtokens/s"))
    assert report.main(["--check"]) == 1


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (PAGE.replace("<!-- benchmarks:gather:end -->", ""), "without its partner"),
        (PAGE.replace("gather", "unmeasured"), "no stored row of 'unmeasured'"),
        (PAGE.replace("dtype=int64", "dtype=int8"), "no stored row of 'gather'"),
        (PAGE.replace("dtype=int64", "colour=red"), "no column is called"),
    ],
)
def test_a_marker_that_no_row_can_fill_is_refused(results, page, message):
    with pytest.raises(ValueError, match=message):
        report.render(page, results)


def test_plots_are_small_and_the_same_each_time(results, tmp_path):
    (path,) = plots.draw_all(results, tmp_path)
    first = path.read_bytes()
    assert b"B=2 T=4" in first
    assert b"native" in first
    assert len(first) < 100_000
    plots.draw_all(results, tmp_path)
    assert path.read_bytes() == first


def test_the_pages_of_this_checkout_are_what_its_rows_give():
    assert report.stale(report.pages(), rows.RESULTS) == []
