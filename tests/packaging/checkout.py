"""The repository as a clone would have it, and fresh virtual environments to install it in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Nothing a developer's shell or `make test` sets may decide how an install turns out.
OURS_ALONE = ("PYTHONPATH", "PYTHONHOME", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")

# Read when Python starts. pip is never told of the variable, so it sees an empty environment; torch
# and the rest of this environment are borrowed only when the installed package is used.
BORROW = "import os, sys; sys.path += filter(None, os.environ.get('BORROWED', '').split(':'))\n"
BORROWED = ":".join(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))


def tracked_files(*arguments: str) -> list[str]:
    """What `git ls-files` prints, without files that were deleted since."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"{ROOT} is no git checkout")
    command = ["git", "ls-files", "-z", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.split("\0") if line]
    return [line for line in lines if os.path.lexists(ROOT / line.split("\t")[-1])]


def copy_checkout(folder: Path) -> Path:
    """A copy of the tracked files as they are now, symbolic links kept."""
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return folder


def clean_variables(**more: str) -> dict[str, str]:
    """The environment variables of this process without those that steer Python, make or pyseq."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in OURS_ALONE and not name.startswith("PYSEQ_")
    }
    return kept | more


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command; stdout holds both of its outputs."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_variables(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # a build on a busy machine
    )


class Environment:
    """A virtual environment with nothing in it but pip."""

    def __init__(self, folder: Path, python: str = sys.executable):
        made = run(python, "-m", "venv", folder, cwd=folder.parent)
        assert made.returncode == 0, made.stdout
        self.bin = folder / "bin"
        [self.site_packages] = folder.glob("lib/python*/site-packages")
        (self.site_packages / "borrow.pth").write_text(BORROW)
        self.before = set(os.listdir(self.site_packages))

    def pip_install(self, *arguments: str | Path, cwd: Path, **variables: str):
        """`pip install --no-deps`; the result is the caller's to judge."""
        pip = (self.bin / "python", "-m", "pip", "install", "--no-deps")
        return run(*pip, *arguments, cwd=cwd, **variables)

    def use(self, *command: str, cwd: Path, **variables: str) -> str:
        """Run one of the environment's programs with borrowed packages; returns what it says."""
        done = run(self.bin / command[0], *command[1:], cwd=cwd, BORROWED=BORROWED, **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def added(self) -> set[str]:
        """Top-level names in site-packages that installing brought."""
        return set(os.listdir(self.site_packages)) - self.before
