"""Which test files import what is not installed: ``python -m benchmarks.missing_imports FOLDER``.

Prints a line for each: the file, a tab, and the modules that are missing. Imports inside functions
and of this project's own modules are not looked at.
"""

import ast
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def missing_from(folders: list[str]) -> dict[Path, list[str]]:
    """The test files of some folders that cannot be imported, and the modules that they lack."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("test_*.py"))]
    lacking = {file.relative_to(ROOT): _missing(file) for file in files}
    return {file: modules for file, modules in lacking.items() if modules}


def _missing(file: Path) -> list[str]:
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    tops = {name.split(".")[0] for name in names}
    return sorted(top for top in tops if top and importlib.util.find_spec(top) is None)


if __name__ == "__main__":
    for file, modules in missing_from(sys.argv[1:]).items():
        print(f"{file}\t{', '.join(modules)}")
