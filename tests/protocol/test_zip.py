"""Archives as Python's own zipfile reads them."""

from __future__ import annotations

import io
import zipfile
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.protocol.zip import Archive, Member

NOON = datetime(2026, 3, 1, 12, 30, 42, tzinfo=UTC)


def written(*files: tuple[str, bytes], moment: datetime = NOON) -> bytes:
    archive = Archive([Member(name, len(data), moment) for name, data in files])
    parts = []
    for index, (_, data) in enumerate(files):
        parts += [archive.head(index), data]
        archive.wrote(len(data))
        parts.append(archive.tail(zlib.crc32(data)))
    whole = b"".join([*parts, archive.end()])
    assert len(whole) == archive.size
    return whole


def opened(data: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


names = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(st.lists(st.tuples(names, st.binary(max_size=50)), max_size=5, unique_by=lambda file: file[0].casefold()))
def test_archive_gives_back_what_was_put_in(files: list[tuple[str, bytes]]) -> None:
    archive = opened(written(*files))
    assert [(info.filename, archive.read(info)) for info in archive.infolist()] == files


def test_archive_of_nothing_is_one() -> None:
    assert opened(written()).namelist() == []


def test_member_has_its_time_and_an_ordinary_mode() -> None:
    [info] = opened(written(("a", b"b"))).infolist()
    assert info.date_time == (2026, 3, 1, 12, 30, 42)
    assert info.external_attr >> 16 == 0o100644
    assert info.compress_type == zipfile.ZIP_STORED


def test_time_before_zip_is_the_first_that_there_is() -> None:
    [info] = opened(written(("a", b""), moment=datetime(1971, 1, 1, tzinfo=UTC))).infolist()
    assert info.date_time[0] == 1980


def test_equal_names_are_told_apart() -> None:
    names = ["a.tar", "a.tar", "A.TAR", "a (2).tar", ".hidden", ".hidden", "b", "b"]
    found = opened(written(*((name, b"") for name in names))).namelist()
    assert found == ["a.tar", "a (2).tar", "A (3).TAR", "a (2) (2).tar", ".hidden", ".hidden (2)", "b", "b (2)"]


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32, 2**33 + 7])
def test_what_needs_64_bits_has_them(size: int) -> None:
    """Read by its directory alone, as if the bytes of the first member were there."""
    archive = Archive([Member("large", size, NOON), Member("after", 3, NOON)])
    head = archive.head(0)
    archive.wrote(size)
    rest = archive.tail(7) + archive.head(1)
    archive.wrote(3)
    rest += b"abc" + archive.tail(zlib.crc32(b"abc"))
    end = archive.end()
    assert archive.size == len(head) + size + len(rest) + len(end)

    class Sparse(io.RawIOBase):
        """The archive, with a hole in it."""

        def __init__(self) -> None:
            self.at = 0

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.at

        def seek(self, to: int, whence: int = 0) -> int:
            self.at = to + (0, self.at, archive.size)[whence]
            return self.at

        def read(self, count: int = -1) -> bytes:
            stop = archive.size if count < 0 else min(archive.size, self.at + count)
            tail = rest + end
            start, hole = archive.size - len(tail), len(head)
            data = (head[self.at : stop] if self.at < hole else b"") + tail[
                max(0, self.at - start) : max(0, stop - start)
            ]
            self.at = stop
            return data

    found = zipfile.ZipFile(Sparse())
    assert [info.file_size for info in found.infolist()] == [size, 3]
    assert found.read("after") == b"abc"
