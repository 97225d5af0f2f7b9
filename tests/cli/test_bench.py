"""`pyseq bench`: what it refuses, and one quick run."""

from types import SimpleNamespace

import pytest

from pyseq.cli import bench, main


def test_a_quick_run_prints_every_contestant_and_stores_nothing(capsys):
    from benchmarks import registry, rows

    before = sorted(rows.RESULTS.glob("**/*"))
    assert main.main(["bench", "gather_windows", "--quick", "--rounds=2", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    for case in registry.cases("gather_windows", quick=True):
        for contestant in case.contestants:
            assert contestant.name in printed
    assert "vs best peer" in printed
    assert sorted(rows.RESULTS.glob("**/*")) == before


def test_no_cell_of_a_piped_table_is_folded(capsys):
    header = ("contestant", "p50 [p20, p80]", "rate", "of ceiling", "vs best peer", "peak")
    cells = ("get_batch without targets (peer)", *["99.9 [99.9, 99.9] tokens"] * 5)
    table = SimpleNamespace(HEADER=header, title=lambda _: "title", cells=lambda _: [cells])
    bench._show(bench._console(), table, None)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "get_batch" in line]
    assert all(cell in line for cell in cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no benchmark is called 'nothing'; known: adaptive_attention, cosine_"),
        (["gather_windows", "--quick", "--save"], "a quick run is no measurement"),
        (["gather_windows", "--save", "--rounds", "9"], "9 rounds; at least 10"),
        (["gather_windows", "--threads", "0"], "at least 1 of each fits"),
        (["gather_windows", "--device", "abacus"], "device 'abacus' is not there"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments, message, capsys):
    assert main.main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_busy_machine_stores_nothing(monkeypatch, capsys):
    from benchmarks import machine

    monkeypatch.setattr(machine, "others_share", lambda: 0.4)
    assert main.main(["bench", "gather_windows", "--save"]) == 2
    assert "other processes use 40% of this machine" in capsys.readouterr().err


def test_without_a_checkout_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages/pyseq/cli/bench.py"))
    assert main.main(["bench", "gather_windows"]) == 2
    assert "pyseq bench needs a checkout" in capsys.readouterr().err
