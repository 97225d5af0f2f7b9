"""One training at a time in a run folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pyseq.errors import UserError


class FolderInUse(UserError):
    """Another training is at work in a run folder."""


def made(folder: Path, flag: str) -> None:
    """Make a folder with those above it, if it is not there.

    Args:
        folder (Path): it may be there.
        flag (str): the flag that names it, for the sentence.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder} cannot be made a folder: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Keep a second training out of a run folder, until this one ends or is killed.

    Args:
        folder (Path): it exists.
        flag (str): the flag that names another folder, for the sentence.

    Raises:
        FolderInUse: another training is at work in it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUse(
                f"another training is writing to {folder}; another {flag} fits"
            ) from error
        yield
    finally:
        os.close(handle)
