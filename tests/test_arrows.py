"""Import arrows point one way; the source is read, nothing is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyseq"

# Each part may import those listed for it, itself, and pyseq.errors.
MAY_IMPORT = {
    "errors": set(),
    "kernels": set(),
    "ops": {"kernels", "_core"},
    "nn": {"ops"},
    "data": {"ops"},
    "models": {"nn", "data", "ops"},
    "analysis": {"models", "nn", "data", "ops"},
    "training": {"analysis", "models", "nn", "data", "ops"},
    "cli": {"training", "analysis", "models", "nn", "data", "ops"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
FILES += sorted((PACKAGE / "kernels").resolve().rglob("*.py"))


def imported_modules(source: str) -> set[str]:
    """Names after `import` and `from`, and what importlib.import_module is given."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)}
    return names


def part_of(path: Path) -> str:
    if PACKAGE in path.parents:
        return path.relative_to(PACKAGE).parts[0]
    return "kernels"


def forbidden(source: str, part: str) -> set[str]:
    allowed = MAY_IMPORT[part] | {part, "errors", "__version__"}
    ours = {name.split(".")[1] for name in imported_modules(source) if name.startswith("pyseq.")}
    return ours - allowed


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{part_of(path)}/{path.name}")
def test_imports_follow_the_arrows(path):
    assert forbidden(path.read_text(), part_of(path)) == set()


def test_every_part_of_the_package_has_its_arrow():
    parts = {part_of(path) for path in FILES}
    assert parts == set(MAY_IMPORT) - {"errors"}


def test_the_checker_sees_a_wrong_arrow():
    assert forbidden("from pyseq.training import fit", "nn") == {"training"}
    assert forbidden("import pyseq.models.baseline", "data") == {"models"}
    assert forbidden("importlib.import_module('pyseq.cli.main')", "ops") == {"cli"}
    assert forbidden("from pyseq.ops import backends", "nn") == set()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pyseq", {"triton", "lightning", "matplotlib", "tyro", "sklearn", "scipy"}),
        ("pyseq.ops, pyseq.nn, pyseq.data", {"lightning", "matplotlib", "tyro", "sklearn"}),
        ("pyseq.models, pyseq.analysis", {"lightning", "matplotlib", "tyro"}),
        ("pyseq.cli.main", {"torch", "lightning", "matplotlib", "tyro"}),
    ],
)
def test_importing_stays_light(module, heavy):
    code = f"import {module}, sys; print(*sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
