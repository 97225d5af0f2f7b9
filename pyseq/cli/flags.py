"""Flags from dataclasses: underscores or hyphens, defaults shown, and --config F.yaml."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from pyseq.errors import UserError

Config = TypeVar("Config")


def parse(config: type[Config], command: str, arguments: list[str]) -> Config:
    """Build `config` from flags; those of --config F.yaml come first, so the command line wins.

    Raises:
        UserError: a flag is wrong; the YAML cannot be read, is no mapping, or has a key that is no
            flag.
        SystemExit: tyro showed the help (0).
    """
    path, rest = _take_config(arguments)
    if path is not None:
        rest = _flags_of(path, config) + rest
    what = " ".join(str(config.__doc__).split())
    about = f"{what} --config F.yaml sets any of these flags; the command line wins."
    with one_sentence():
        return tyro.cli(
            config, prog=f"pyseq {command}", args=rest, use_underscores=True, description=about
        )


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn the box that tyro prints about a wrong flag into a UserError."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as end:
        if end.code != 2:
            raise
        plain = re.sub("[╭╮╰╯│─]+|-{4,}", " ", said.getvalue().partition("\n")[2])
        plain = re.split("Argument helptext|For full helptext|Full helptext", plain)[0]
        what = " ".join(plain.split()).rstrip(".: ")
        raise UserError(f"{what}; --help shows the flags") from None


def _take_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise UserError("--config needs the name of a YAML file")
            return Path(arguments[index + 1]), arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), (
                arguments[:index] + arguments[index + 1 :]
            )
    return None, arguments


def _flags_of(path: Path, config: type) -> list[str]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"--config {path} is no YAML: {first_line}") from error
    if values is None:
        return []
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds a {type(values).__name__}; a mapping of flags fits")
    known = {field.name for field in dataclasses.fields(config)}
    flags: list[str] = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(
                f"--config {path}: unknown key {key!r}; known: {', '.join(sorted(known))}"
            )
        flags += _flag(name, value)
    return flags


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else _negated(name)]
    if isinstance(value, dict):  # of a nested config: --transformer.heads 5
        return [flag for key, inner in value.items() for flag in _flag(f"{name}.{key}", inner)]
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}", str(value)]  # None is tyro's spelling too


def _negated(name: str) -> str:
    """tyro's way to say no: before the last part of a nested name."""
    *outer, last = name.split(".")
    return "--" + ".".join([*outer, f"no_{last}"])
