"""Records of runs as JSON files."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError

Record = TypeVar("Record")


def write_json(path: str | os.PathLike[str], found: Mapping[str, Any], indent: int | None) -> None:
    """Write a JSON object; the file that was there is replaced when the new one is complete.

    Args:
        path (path): of the file; its folder must exist.
        found (mapping): in JSON's types, all numbers finite.
        indent (int | None): spaces of each level; None writes one line.

    Raises:
        UserError: the file cannot be written.
    """
    text = json.dumps(found, indent=indent, allow_nan=False)
    replace_file(Path(path), lambda temporary: temporary.write_text(text + "\n", "utf-8"))


def read_json(
    path: str | os.PathLike[str], build: Callable[[Mapping[str, Any]], Record], what: str
) -> Record:
    """Read a JSON object and build a record of it.

    Args:
        path (path): of the file.
        build (Callable): makes the record; ValueError, TypeError and AttributeError say that the
            object is none.
        what (str): for the error, such as "record of a run of pyseq rules".

    Returns:
        what `build` made.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return build(found)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no {what}: {error}") from error
