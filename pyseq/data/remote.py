"""Streams behind a URL, as files in a cache on this machine."""

import errno
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
    *("size", "ETag", "etag", "sha", "checksum", "md5Hash", "generation", "mtime", "created"),
    *("LastModified", "last_modified", "Last-Modified"),
)
ABSENT = (401, 403, 404)  # what web servers and object stores say of a file that is not there
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
SECONDS_OF_SILENCE = 60
_log = logging.getLogger(__name__)


def is_url(path: str) -> bool:
    """Whether a path is one for fsspec, such as "s3://bucket/a.u16" or "https://host/a.u16"."""
    return "://" in path


def cache_folder() -> Path:
    """Where copies are kept: $PYSEQ_CACHE, or pyseq in the user's folder for caches."""
    if os.environ.get(CACHE_VARIABLE):
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
        files, path = _file_system(url)
        if glob.has_magic(path) and not files.exists(path):
            found = set(files.glob(path))
            besides = {_beside(name, end) for name in found for end in _ends()}
            names = sorted(found - besides)
            if not names:
                raise UserError(f"{url} matches no file")
        else:
            names = [path]
        return [_copied(files, name, url) for name in names]


def _file_system(url: str) -> tuple[Any, str]:
    """Of fsspec, and what the URL is called there."""
    import fsspec

    options = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        # By default a copy may take five minutes, however large it is.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=SECONDS_OF_SILENCE, sock_read=SECONDS_OF_SILENCE
        )
        options = {"client_kwargs": {"timeout": timeout}}
    return fsspec.core.url_to_fs(url, **options)


def _ends() -> list[str]:
    """Of the names of files that describe a stream."""
    return [of("x").name[1:] for of in (info_path, tokenizer_path)]


def _beside(name: str, end: str) -> str:
    """What a file that describes another one is called: before a URL's query."""
    path, mark, query = name.partition("?") if is_url(name) else (name, "", "")
    return f"{path}{end}{mark}{query}"


def _copied(files: Any, name: str, url: str) -> Path:
    info = files.info(name)
    if info.get("type") == "directory":
        raise UserError(f"{url} is a directory; a u16 file, several, or a glob fits")
    version = [str(info.get(field)) for field in VERSION_FIELDS]
    options = {key: value for key, value in files.storage_options.items() if key != "client_kwargs"}
    identity = repr((files.protocol, sorted(options.items()), name, version))
    plain = name.partition("?")[0] if is_url(name) else name
    folder = cache_folder() / hashlib.sha256(identity.encode()).hexdigest()[:32]
    target = folder / PurePosixPath(plain).name
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        for end in _ends():
            _copy_description(files, _beside(name, end), target.with_name(target.name + end))
        if not target.exists():
            _log.info("%s: copied to %s", name, target)
            _copy(files, name, target, info.get("size"))
    return target


def _copy_description(files: Any, name: str, target: Path) -> None:
    """Each time, as it is small and may change alone."""
    try:
        found = files.cat_file(name)
    except Exception as error:
        absent = isinstance(error, FileNotFoundError | PermissionError)
        if not absent and getattr(error, "status", None) not in ABSENT:
            raise
        target.unlink(missing_ok=True)
        return
    if not target.exists() or target.read_bytes() != found:
        replace_file(target, lambda temporary: temporary.write_bytes(found))


def _copy(files: Any, name: str, target: Path, size: int | None) -> None:
    def get(temporary: Path) -> None:
        try:
            files.get_file(name, str(temporary))
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise
            raise UserError(f"{name} cannot be read: {error or type(error).__name__}") from error
        got = temporary.stat().st_size
        if size is not None and got != size:
            raise UserError(f"{name} ended after {got} of {size} bytes while it was copied")

    replace_file(target, get)


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
        raise UserError(f"{url} is not there, or nobody answers") from error
    except Exception as error:  # every kind of file system has errors of its own
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{url} cannot be read: {words}") from error
