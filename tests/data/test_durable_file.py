"""Files that are replaced as a whole."""

import os
from pathlib import Path

import pytest

from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError


def test_a_file_is_written_and_replaced(tmp_path):
    for text in ("one", "another"):
        replace_file(tmp_path / "f", lambda path, text=text: path.write_text(text))
        assert (tmp_path / "f").read_text() == text
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")]
)
def test_what_ends_early_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "f").write_text("old")

    def write(path: Path) -> None:
        path.write_text("ne")
        path.with_name("scratch").write_text("of the writer's own")
        raise error

    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as raised:
        replace_file(tmp_path / "f", write)
    if expected is UserError:
        assert str(raised.value) == f"{tmp_path}/f cannot be written: No space left on device"
    assert (tmp_path / "f").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_kill_left_is_removed_by_the_next_writer(tmp_path):
    (tmp_path / ".f.partial").mkdir()
    (tmp_path / ".f.partial" / "f").write_text("half")
    replace_file(tmp_path / "f", lambda path: path.write_text("whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_file_and_folder_are_forced_to_the_disk(tmp_path, monkeypatch):
    """The file before its name: else a power cut could leave the new name with nothing in it."""
    done = []

    def fsync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")))

    def rename(source, target) -> None:
        done.append("rename")
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    replace_file(tmp_path / "f", lambda path: path.write_text("x"))
    assert done == [tmp_path / ".f.partial" / "f", "rename", tmp_path]
