"""Files that are replaced as a whole, and stay replaced after a power cut."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pyseq.errors import UserError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Make a file in a temporary folder, force it to the disk and rename it to `path`.

    Whatever ends this early, `path` is what it was before, or whole. What a kill left behind is
    removed by the next call for the same file, which may have one writer at a time.

    Args:
        path (Path): of the file; its folder must exist.
        write (Callable): given the temporary path, writes the file there.

    Raises:
        UserError: the file cannot be written, on a full disk for example.
    """
    # A folder, since the writer may have temporary files of its own: safetensors does.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary / path.name)
        sync(temporary / path.name)
        os.replace(temporary / path.name, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # not every file system can do this to a folder
        sync(path.parent)


def sync(path: Path) -> None:
    """Force what was written to a file, or renamed in a folder, from the cache to the disk.

    Args:
        path (Path): of the file or folder.

    Raises:
        OSError: the disk did not take it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
