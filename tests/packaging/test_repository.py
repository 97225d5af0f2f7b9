"""What can be read off the repository: its top level, its pins, its rooms and its documentation."""

import ast
import doctest
import importlib
import inspect
import re
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pyseq import ops
from pyseq.errors import BackendUnavailable
from pyseq.ops import backends
from tests.correctness import undocumented_parameters
from tests.packaging.checkout import ROOT, copy_checkout, run, tracked_files

TOP_LEVEL = {
    *("kernels", "csrc", "pyseq", "benchmarks", "tests", "docs", "examples"),
    *("setup.py", "pyproject.toml", "Makefile", "constraints.txt"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("u16_seq_model.py", "quick_accuracy_test.py", "run_extreme_boost.py"),
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PUBLIC_MODULES = ("pyseq", "pyseq.ops", "pyseq.nn", "pyseq.data", "pyseq.models")
WITH_EXAMPLES = [p for p in sorted((ROOT / "pyseq").rglob("*.py")) if ">>> " in p.read_text()]
SHARED_BY_OPS = {
    "__init__",
    "attention",
    "backends",
    "checks",
    "dropout",
    "precision",
    "registration",
}
# What the kernels share, a ceiling for benchmarks, what the analysis runs, the loader's threads.
NO_OPS = {"cpu", "mixture", "peak", "predictors", "randomness", "window_loader"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_top_level_holds_what_the_design_lists():
    names = {name.split("/")[0] for name in tracked_files()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_kernels_is_a_part_of_pyseq_and_no_package_of_its_own():
    assert (ROOT / "pyseq" / "kernels").resolve() == ROOT / "kernels"
    assert not (ROOT / "kernels" / "__init__.py").exists()
    [entry] = tracked_files("--stage", "pyseq/kernels")
    assert entry.startswith("120000 ")  # git's mode of a symbolic link


def pins() -> dict[str, str]:
    """constraints.txt as {name: version}; every line must be an exact pin."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").open()]
    return dict(line.split("==") for line in lines if line)


def test_requirements_and_pins_name_the_same_packages():
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    assert {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted} == set(pins())


def test_pre_commit_runs_the_pinned_tools():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    tools = re.findall(r"additional_dependencies: \[([\w-]+)==([\w.]+)\]", text)
    assert {name for name, _ in tools} == {"ruff", "clang-format"}
    assert all(pins()[name] == version for name, version in tools)


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("demo", ["-m venv .venv", "-c constraints.txt -e .", "pyseq demo"]),
        ("test", ["-m venv .venv", "PYSEQ_REQUIRE_CORE=1 .venv/bin/python -m pip", "-m pytest"]),
    ],
)
def test_the_two_commands_set_themselves_up(target, steps, tmp_path):
    done = run("make", "--dry-run", target, cwd=copy_checkout(tmp_path))
    assert done.returncode == 0, done.stdout
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places, done.stdout
    assert places == sorted(places), done.stdout


def rooms(floor: str, pattern: str) -> set[str]:
    return {path.parent.name for path in (ROOT / floor).glob(f"*/{pattern}")}


def test_an_op_has_the_same_room_on_every_floor():
    modules = {path.stem for path in (ROOT / "pyseq" / "ops").glob("*.py")}
    ops = rooms("pyseq/ops", "__init__.py") | modules - SHARED_BY_OPS
    assert set(backends.SERVED_BY) == ops
    for backend, with_code in [
        ("native", rooms("csrc", "*.c*") - NO_OPS),
        ("triton", rooms("kernels", "*.py")),
    ]:
        assert {op for op in ops if backend in backends.SERVED_BY[op]} == with_code


X, STREAM = torch.ones(1, 1, 2, 4), torch.arange(8).to(torch.uint16)
CALLS = {
    "adaptive_attention": partial(ops.adaptive_attention, X, X, X),
    "cosine_attention": partial(ops.cosine_attention, X, X, X, scale=1.0),
    "cosine_decode": partial(ops.cosine_decode, X, X, X, scale=1.0),
    "exponential_smoothing": partial(
        ops.exponential_smoothing, X, torch.full((2,), 0.5), torch.zeros(2, 4)
    ),
    "feed_forward": partial(
        ops.feed_forward, X[0], *(torch.ones(1, *n) for n in ((3, 4), (3,), (2, 3), (2,)))
    ),
    "gather_windows": partial(
        ops.gather_windows, STREAM, torch.zeros(1, dtype=torch.int64), length=2
    ),
    "hard_attention": partial(ops.hard_attention, X, X, X),
    "lstm": partial(ops.lstm, X, *(torch.ones(1, *n) for n in ((8, 4), (8, 2), (8,)))),
    "patch_embed": partial(ops.patch_embed, STREAM[None], torch.ones(3, 4)),
    "prepare_keys": partial(ops.prepare_keys, X),
    "scale_cross_entropy": partial(
        ops.scale_cross_entropy, X[0, 0], torch.ones(8, 4), torch.zeros(2, dtype=torch.int64)
    ),
    "softmax_attention": partial(ops.softmax_attention, X, X, X),
}


def test_every_op_is_called():
    assert set(CALLS) == set(backends.SERVED_BY) == set(ops.__all__) - {"BackendUnavailable"}


@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("op", backends.SERVED_BY)
def test_the_table_of_backends_says_what_the_ops_answer(op, backend):
    try:
        CALLS[op](backend=backend)
        has_code = True
    except BackendUnavailable as refusal:
        has_code = f"{op} has no {backend} code" not in str(refusal)
    assert has_code == (backend in backends.SERVED_BY[op])


def public_objects() -> dict[str, Any]:
    return {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in PUBLIC_MODULES
        for name in importlib.import_module(module).__all__
        if not name.startswith("__")
    }


@pytest.mark.parametrize("name", public_objects())
def test_public_names_are_documented(name):
    public = public_objects()[name]
    text = public.__doc__  # not inspect.getdoc, which would find a base class's
    assert text, f"{name} has no docstring"
    if inspect.ismodule(public):
        return
    assert not text.startswith(f"{public.__name__}("), f"{name}: the dataclass wrote its docstring"
    if not (inspect.isclass(public) and issubclass(public, Exception)):
        assert undocumented_parameters(public) == []


def public_methods() -> dict[str, Any]:
    return {
        f"{name}.{method}": function
        for name, public in public_objects().items()
        if inspect.isclass(public)
        for method, function in vars(public).items()
        if inspect.isfunction(function) and not method.startswith("_")
    }


@pytest.mark.parametrize("name", public_methods())
def test_public_methods_are_documented(name):
    """One line is enough for a method, but it names what goes in."""
    method = public_methods()[name]
    text = inspect.cleandoc(method.__doc__ or "")
    assert text, f"{name} has no docstring"
    parameters = list(inspect.signature(method).parameters)[1:]  # without self
    assert [p for p in parameters if not re.search(rf"\b{p}\b", text)] == []


def test_the_check_of_docstrings_sees_what_is_missing():
    def documented(first, second):
        """Do.

        Args:
            first (int): named; second is only mentioned.
        """

    assert undocumented_parameters(documented) == ["second"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("module", [module_name(path) for path in WITH_EXAMPLES])
def test_examples_in_docstrings_run(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("op", backends.SERVED_BY)
def test_every_op_has_an_example(op):
    assert ">>> " in importlib.import_module(f"pyseq.ops.{op}").__dict__[op].__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_pages_runs(page, tmp_path, monkeypatch):
    """Blocks with prompts are run in order, in one namespace; the others must at least compile."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if ">>> " not in block:
            ast.parse(block)
            continue
        test = doctest.DocTestParser().get_doctest(block, namespace, page.name, str(page), 0)
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=said.append, clear_globs=False)
        assert runner.failures == 0, "".join(said)
        namespace = test.globs
