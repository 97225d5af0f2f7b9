"""The script for a GPU: every step runs, and its page says what the rows and the tests say."""

import os
import subprocess
import sys
import tarfile

import pytest

from benchmarks import gpu_summary, missing_imports, registry, rows
from tests.benchmarks.test_benchmark_report import row

STEPS = (
    *("install", "tests", "tests_kernels", "kernels", "memcheck"),
    *(f"bench_{op}" for op in registry.on_gpu()),
    "tune",
)
LARGE = "B=4 H=32 G=8 T=8192 D=128 causal"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "steps.tsv").write_text("install\tok\t7\ntests\texit status 1\t90\n")
    (tmp_path / "not_collected.txt").write_text("tests/data/test_order.py\thypothesis\n")
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/>'
        '<testcase classname="a" name="bad"><failure message="off by 3&#10;more"/></testcase>'
        '<testcase classname="a" name="left"><skipped/></testcase></testsuite></testsuites>'
    )
    common = {"op": "cosine_attention", "shape": LARGE, "dtype": "bfloat16", "direction": "forward"}
    store(
        tmp_path,
        row(**common, backend="triton fused", p50="0.004", ratio="0.7", peer="SDPA cuDNN"),
        row(**common, backend="triton online", p50="0.005", ratio="0.56", peer="SDPA cuDNN"),
        row(**common, backend="SDPA cuDNN", role="peer", p50="0.0028"),
        row(**common, backend="FlexAttention compiled", role="peer", p50="0.003"),
    )
    log = "left out: SDPA flash: no such kernel\nleft out: SDPA flash expanded: no such kernel\n"
    (tmp_path / "logs" / "bench_cosine_attention.log").write_text(log)
    return tmp_path


def store(folder, *stored) -> None:
    rows.append(folder / "results" / "some-gpu" / f"{stored[0]['op']}.csv", stored)


def line_of(text: str, beginning: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(f"| {beginning}")]
    return line


def test_the_page_says_how_tests_and_steps_ended(folder):
    text, all_passed = gpu_summary.page(folder)
    assert not all_passed
    assert "install: ok, 7 s; tests: exit status 1, 90 s." in text
    assert "1 passed, 1 failed, 1 skipped." in text
    assert "- a::bad: off by 3\n" in text
    assert "not collected: tests/data/test_order.py, which needs hypothesis" in text
    assert "- cosine_attention, SDPA flash, SDPA flash expanded: no such kernel" in text
    assert gpu_summary.main([str(folder)]) == 1
    (folder / "tests.xml").unlink()
    assert gpu_summary.page(folder)[1]  # no tests were asked for
    (folder / "logs" / "tests.log").touch()
    assert not gpu_summary.page(folder)[1]  # they were, and left nothing


def test_a_line_has_the_best_of_ours_its_ratio_share_and_verdict(folder):
    line = line_of(gpu_summary.page(folder)[0], f"cosine_attention forward, {LARGE}, bfloat16")
    assert "| triton fused | 4.00 [1.00, 4.00] ms |" in line
    assert "| 0.700x [1.25, 1.75] SDPA cuDNN | 75.0 % |" in line
    assert "0.65x reached, 0.9x NOT reached, 1.0x NOT reached" in line
    assert "ahead of FlexAttention: NOT reached (0.750x)" in line


def test_every_op_has_a_line_also_without_a_row(folder):
    text, _ = gpu_summary.page(folder)
    for op in set(registry.on_gpu()) - {"cosine_attention"}:
        assert f"| {op} | no row |" in text


def test_shares_of_a_ceiling_and_of_memory_have_verdicts(folder):
    patch = {"op": "patch_embed", "direction": "forward", "shape": "B=64 T=65536 P=16 C=512"}
    store(folder, row(**patch, backend="triton", ratio="1.5", ceiling_share="0.8"))
    loss = {"op": "scale_cross_entropy", "direction": "forward+backward", "peer": "compiled"}
    one = loss | {"shape": "tokens=16384 C=1024 V=65536 scales=1"}
    several = loss | {"shape": "tokens=16384 C=1024 V=65536 scales=1/256", "ratio": ""}
    store(
        folder,
        row(**one, backend="triton", peak_bytes="100", ratio="0.9"),
        row(**one, backend="compiled", role="peer", peak_bytes="1000"),
        row(**several, backend="triton"),
    )
    text, _ = gpu_summary.page(folder)
    assert "1.3x reached; 85% of ceiling: NOT reached" in line_of(text, "patch_embed forward")
    of_one = line_of(text, f"scale_cross_entropy forward+backward, {one['shape']},")
    assert "1.0x NOT reached; 15% of its peak memory: reached (10%)" in of_one
    assert line_of(text, f"scale_cross_entropy forward+backward, {several['shape']},").endswith(
        "| no peer | 75.0 % | - |"
    )


def test_the_page_stays_short(folder):
    many = [row(op="hard_attention", shape=f"T={n}", backend="triton") for n in range(200)]
    store(folder, *many)
    assert len(gpu_summary.page(folder)[0]) < 12_000


def test_files_that_cannot_be_imported_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(missing_imports, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_good.py").write_text("import os\nfrom pathlib import Path\n")
    (tmp_path / "tests" / "test_bad.py").write_text("import os, abacus.beads\nfrom sand import x\n")
    found = missing_imports.missing_from(["tests"])
    assert {str(file): modules for file, modules in found.items()} == {
        "tests/test_bad.py": ["abacus", "sand"]
    }


@pytest.mark.slow
def test_a_dry_run_takes_every_step_and_has_a_line_for_every_op(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = ["benchmarks/gpu.sh", "--dry-run"]
    root = missing_imports.ROOT
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "summary.md").read_text()
    assert done.stdout.endswith(page)
    assert len(done.stdout) < 12_000
    for step in STEPS:
        assert f"{step}: ok, " in done.stdout or f"{step}: skipped: " in done.stdout
    for op in registry.on_gpu():
        assert f"| {op} " in page
        assert f"| {op} | no row |" not in page
    with tarfile.open(tmp_path / "evidence.tar.gz") as archive:
        names = [name for name in archive.getnames() if name.endswith(".csv")]
    stored = {name.split("/")[-1].removesuffix(".csv") for name in names}
    assert stored == {*registry.on_gpu(), "patches_tiles"}


def test_shares_of_the_tests_of_triton_are_all_of_them():
    """What is not about Triton's kernels is in every share."""

    def collected(share: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "--triton-share", share, "tests/ops/test_hard_attention.py"],
            cwd=missing_imports.ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return {line for line in done.stdout.splitlines() if "::" in line}

    whole, *shares = (collected(share) for share in ("0/1", "0/2", "1/2"))
    assert shares[0] | shares[1] == whole
    both = shares[0] & shares[1]
    assert both == {test for test in whole if "triton" not in test}
    assert all(len(share - both) > 10 for share in shares)


def test_unknown_arguments_are_told_how_it_is_used():
    done = subprocess.run(
        ["benchmarks/gpu.sh", "--fast"], cwd=missing_imports.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SHARE", "8/8", "SHARE is 8/8; I/N fits, with I from 0 to N - 1"),
        ("SHARE", "all", "SHARE is all; I/N fits"),
        ("PYTHON", "/no/such/python", "/no/such/python"),
    ],
)
def test_settings_that_do_not_fit_are_refused(variable, value, words, tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path), variable: value}
    done = subprocess.run(
        ["benchmarks/gpu.sh", "--dry-run"],
        cwd=missing_imports.ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr


def test_of_tiles_the_page_says_what_was_wrong_and_not_what_does_not_fit(folder):
    log = (
        "decode, triton, warps=4: OutOfResources: shared memory\n"
        "decode, triton, warps=8: wrong: off by 3\n"
        "left out: triton warps=2: decode_tiles: triton warps=2 is wrong and is not timed\n"
        "left out: triton warps=1: OutOfMemoryError: CUDA out of memory\n"
        "benchmarks: patches, B=64: CUDA error\n"
    )
    (folder / "logs" / "tune.log").write_text(log)
    text, _ = gpu_summary.page(folder)
    assert "- decode, triton, warps=8: wrong: off by 3\n" in text
    assert "triton warps=2 is wrong and is not timed" in text
    assert "- patches, B=64: CUDA error\n" in text
    assert "OutOf" not in text
