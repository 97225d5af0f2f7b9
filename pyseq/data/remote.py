"""Streams behind a URL, as files in a cache on this machine."""

import fcntl
import glob
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pyseq.data.durable_file import replace_file
from pyseq.data.stream_info import info_path, tokenizer_path
from pyseq.errors import UserError

CACHE_VARIABLE = "PYSEQ_CACHE"
# By which file systems tell that a file is another one than before.
VERSION_FIELDS = (
    *("size", "ETag", "etag", "checksum", "md5Hash", "generation", "mtime", "created"),
    *("LastModified", "last_modified", "Last-Modified"),
)
_log = logging.getLogger(__name__)


def is_url(path: str) -> bool:
    """Whether a path is one for fsspec, such as "s3://bucket/a.u16" or "https://host/a.u16"."""
    return "://" in path


def cache_folder() -> Path:
    """Where copies are kept: $PYSEQ_CACHE, or pyseq in the user's folder for caches."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyseq"


def local_copies(url: str) -> list[Path]:
    """The files that a URL means, each copied once to the cache, with what describes it.

    A file that changed at its source, by what its file system says about it, is copied anew; the
    older copy stays. Any number of processes may ask at once.

    Args:
        url (str): for fsspec, which needs a package of its own for some kinds; may be a glob.

    Returns:
        list of Path: in sorted order of their names at the source.

    Raises:
        UserError: nothing is there, or it cannot be read or kept.
    """
    with _explained(url):
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
        if glob.has_magic(path) and not files.exists(path):
            found = set(files.glob(path))
            besides = {f"{name}{end}" for name in found for end in _ends()}
            names = sorted(found - besides)
            if not names:
                raise UserError(f"{url} matches no file")
        else:
            names = [path]
        return [_copied(files, name, url) for name in names]


def _ends() -> list[str]:
    """Of the names of files that describe a stream."""
    return [of("x").name[1:] for of in (info_path, tokenizer_path)]


def _copied(files: Any, name: str, url: str) -> Path:
    info = files.info(name)
    if info.get("type") == "directory":
        raise UserError(f"{url} is a directory; a u16 file, several, or a glob fits")
    version = [str(info.get(field)) for field in VERSION_FIELDS]
    key = hashlib.sha256(repr((files.protocol, name, version)).encode()).hexdigest()[:32]
    target = cache_folder() / key / PurePosixPath(name).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / ".lock"):
        if target.exists():
            return target
        _log.info("%s: copied to %s", name, target)
        for end in _ends():
            if files.exists(name + end):
                _copy(files, name + end, target.with_name(target.name + end), None)
        _copy(files, name, target, info.get("size"))  # last: it stands for the whole
    return target


def _copy(files: Any, name: str, target: Path, size: int | None) -> None:
    replace_file(target, lambda temporary: files.get_file(name, str(temporary)))
    got = target.stat().st_size
    if size is not None and got != size:
        target.unlink()
        raise UserError(f"{name} ended after {got} of {size} bytes while it was copied")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Everything that goes wrong between here and there is told in one sentence."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist") from error
    except Exception as error:  # every kind of file system has errors of its own
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{url} cannot be read: {words}") from error
