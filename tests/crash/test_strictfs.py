"""The strict file system does what programs expect of one, and drops what nobody has synced."""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.crash.disk import PAGE, ROOT, Disk, Operation
from tests.crash.strictfs import recorded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.strictfs import Recording


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def left(recording: Recording, target: Path, end: int | None = None, torn: Random | None = None) -> dict[str, bytes]:
    """The files that a cut leaves, after all operations or after `end`."""
    Disk(recording.operations[:end]).lay_out(target, torn)
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_names_and_bytes_that_were_synced_are_left(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        (recording.point / "d").mkdir()
        write(recording.point / "d" / "f", b"old")
        sync_directory(recording.point / "d")
        sync_directory(recording.point)
        with (recording.point / "d" / "f").open("r+b") as file:
            file.write(b"new, but not synced")
        assert (recording.point / "d" / "f").read_bytes() == b"new, but not synced"
    assert left(recording, tmp_path / "left") == {"d/f": b"old"}


def test_bytes_without_fsync_are_lost(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"bytes", sync=False)
        sync_directory(recording.point)
    assert left(recording, tmp_path / "left") == {"f": b""}


def test_name_without_fsync_of_its_directory_is_lost(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"bytes")
        (recording.point / "d").mkdir()
        write(recording.point / "d" / "g", b"bytes")
        sync_directory(recording.point / "d")
    assert left(recording, tmp_path / "left") == {}


def test_name_that_was_taken_comes_back_without_fsync_of_its_directory(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"bytes")
        sync_directory(recording.point)
        (recording.point / "f").unlink()
        assert not (recording.point / "f").exists()
    assert left(recording, tmp_path / "left") == {"f": b"bytes"}


def test_renamed_file_has_its_old_name_until_the_directory_is_synced(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"bytes")
        sync_directory(recording.point)
        (recording.point / "f").rename(recording.point / "g")
        before = recording.clock()
        sync_directory(recording.point)
    assert left(recording, tmp_path / "before", before) == {"f": b"bytes"}
    assert left(recording, tmp_path / "after") == {"g": b"bytes"}


def test_start_of_write_back_makes_nothing_durable(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording, (recording.point / "f").open("wb") as file:
        sync_directory(recording.point)
        file.write(bytes(PAGE))
        file.flush()
        assert ctypes.CDLL(None).sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(PAGE), 7) == 0
    assert left(recording, tmp_path / "left") == {"f": b""}


def test_file_system_goes_on_after_a_kill_and_after_a_cut(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"bytes")
        sync_directory(recording.point)
        write(recording.point / "g", b"not synced", sync=False)
        os.link(recording.point / "f", recording.point / "h")
    for name, cut, left_names in (("kill", [], ["f", "g", "h"]), ("power", [Operation("cut", ROOT)], ["f"])):
        (tmp_path / name).mkdir()
        with recorded(tmp_path / name, before=[*recording.operations, *cut]) as again:
            assert sorted(path.name for path in again.point.iterdir()) == left_names
            assert (again.point / "f").stat().st_nlink == len({"f", "h"} & {*left_names})
            write(again.point / "new", b"new")
            sync_directory(again.point)
        assert {*left(again, tmp_path / name / "left")} == {*left_names, "new"}


def test_labels_last_from_fsync_on(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        path = recording.point / "f"
        write(path, b"bytes")
        sync_directory(recording.point)
        os.setxattr(path, "user.kept", b"1")
        fd = os.open(path, os.O_RDWR)
        os.fdatasync(fd)
        before = recording.clock()
        os.fsync(fd)
        os.close(fd)
        os.setxattr(path, "user.lost", b"2")
        assert sorted(os.listxattr(path)) == ["user.kept", "user.lost"]
        assert os.getxattr(path, "user.kept") == b"1"
        os.removexattr(path, "user.kept")
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            os.getxattr(path, "user.kept")
    left(recording, tmp_path / "before", before)
    left(recording, tmp_path / "after")
    assert os.listxattr(tmp_path / "before" / "f") == []
    assert os.listxattr(tmp_path / "after" / "f") == ["user.kept"]


def test_nameless_file_can_be_given_two_names(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        fd = os.open(recording.point, os.O_RDWR | os.O_TMPFILE, 0o600)
        directory = os.open(recording.point, os.O_RDONLY | os.O_DIRECTORY)
        os.write(fd, b"bytes")
        os.fsync(fd)
        os.link(f"/proc/self/fd/{fd}", "f", src_dir_fd=directory, dst_dir_fd=directory)
        os.link("f", "g", src_dir_fd=directory, dst_dir_fd=directory)
        assert os.fstat(fd).st_nlink == 2
        with pytest.raises(FileExistsError):
            os.link("f", "g", src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        os.close(directory)
        os.close(fd)
    assert left(recording, tmp_path / "left") == {"f": b"bytes", "g": b"bytes"}
    assert (tmp_path / "left" / "f").samefile(tmp_path / "left" / "g")


def test_nameless_files_can_be_lacking(tmp_path: Path) -> None:
    with recorded(tmp_path, "--named") as recording, pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        os.open(recording.point, os.O_RDWR | os.O_TMPFILE, 0o600)


def test_torn_cut_leaves_sizes_without_pages_and_pages_without_order(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"")
        sync_directory(recording.point)
        write(recording.point / "f", b"x" * 2 * PAGE, sync=False)
        write(recording.point / "g", b"", sync=False)
    seen = [left(recording, tmp_path / str(seed), torn=Random(seed)) for seed in range(60)]
    pages = (b"x" * PAGE, bytes(PAGE))
    assert {files["f"] for files in seen} == {b"", *(first + second for first in pages for second in pages)}
    assert {"g" in files for files in seen} == {True, False}


def test_synced_bytes_are_never_torn(tmp_path: Path) -> None:
    with recorded(tmp_path) as recording:
        write(recording.point / "f", b"x" * 2 * PAGE)
        sync_directory(recording.point)
        with (recording.point / "f").open("ab") as file:
            file.write(b"y")
    for seed in range(20):
        assert left(recording, tmp_path / str(seed), torn=Random(seed))["f"].rstrip(b"y\0") == b"x" * 2 * PAGE


@pytest.mark.parametrize(("mode", "lost"), [("FULL", False), ("NORMAL", True)])
def test_sqlite_keeps_its_commits_only_where_it_syncs_each(tmp_path: Path, mode: str, *, lost: bool) -> None:
    told = []
    with recorded(tmp_path) as recording:
        with closing(sqlite3.connect(recording.point / "db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {mode}")
            connection.execute("CREATE TABLE numbers (number)")
            sync_directory(recording.point)
            for number in range(20):
                connection.execute("INSERT INTO numbers VALUES (?)", (number,))
                told.append(recording.clock())
        operations = recording.operations
    kept = []
    for number, end in enumerate(told):
        Disk(operations[:end]).lay_out(tmp_path / str(number))
        with closing(sqlite3.connect(tmp_path / str(number) / "db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            count = connection.execute("SELECT count(*) FROM numbers").fetchone()[0] if tables else 0
        kept.append(count == number + 1)
    assert all(kept) is not lost
