"""A zip archive as it is sent (APPNOTE 6.3.10): members are stored as they are, and each CRC comes after its bytes.

Nothing is compressed, so that the length of the whole is known before its first byte. Sizes stand in the local headers
too, though a data descriptor follows, for readers that take an archive as it comes. What needs 64 bits, and only that,
is written with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

_FLAGS: Final = 0x0808  # a data descriptor follows; the name is UTF-8
_MADE_BY: Final = 3 << 8 | 45  # Unix, so that the mode below counts
_MODE: Final = 0o100644 << 16
_MOST_32: Final = 0xFFFFFFFF
_MOST_16: Final = 0xFFFF
_OLDEST: Final = 1980


@dataclass(frozen=True, slots=True)
class Member:
    """A file that is to be in an archive."""

    name: str
    """One segment of a path."""
    size: int
    modified_at: datetime


class Archive:
    """The bytes around the members' own."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Members of one name are told apart by a number."""
        self._members = members
        self._names = [name.encode() for name in _unique(member.name for member in members)]
        self._offsets: list[int] = []
        self._crcs: list[int] = []
        self._position = 0

    @property
    def size(self) -> int:
        """Of the whole, in bytes."""
        copy = Archive(self._members)
        for index, member in enumerate(self._members):
            copy.head(index)
            copy._position += member.size
            copy.tail(0)
        return copy._position + len(copy.end())

    def head(self, index: int) -> bytes:
        """What comes before the bytes of the member, all of whose predecessors are written."""
        member, name = self._members[index], self._names[index]
        self._offsets.append(self._position)
        large = member.size >= _MOST_32
        extra = pack("<HHQQ", 1, 16, member.size, member.size) if large else b""
        size = _MOST_32 if large else member.size
        fixed = pack("<IHHHHH", 0x04034B50, 45 if large else 20, _FLAGS, 0, *_dos(member.modified_at))
        fixed += pack("<IIIHH", 0, size, size, len(name), len(extra))
        return self._written(fixed + name + extra)

    def wrote(self, count: int) -> None:
        """So many bytes of the member are written."""
        self._position += count

    def tail(self, crc: int) -> bytes:
        """What comes after them; `crc` is their CRC-32."""
        size = self._members[len(self._crcs)].size
        self._crcs.append(crc)
        layout = "<IIQQ" if size >= _MOST_32 else "<IIII"
        return self._written(pack(layout, 0x08074B50, crc, size, size))

    def end(self) -> bytes:
        """The directory, with which the archive ends."""
        directory = b"".join(map(self._entry, range(len(self._crcs))))
        count, size, start = len(self._crcs), len(directory), self._position
        large = count >= _MOST_16 or size >= _MOST_32 or start >= _MOST_32
        if large:
            at = start + size
            directory += pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
            directory += pack("<IIQI", 0x07064B50, 0, at, 1)
            count, size, start = min(count, _MOST_16), min(size, _MOST_32), min(start, _MOST_32)
        return directory + pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, start, 0)

    def _entry(self, index: int) -> bytes:
        member, name, offset = self._members[index], self._names[index], self._offsets[index]
        large = [value for value in (member.size, member.size, offset) if value >= _MOST_32]
        extra = pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        size, offset = min(member.size, _MOST_32), min(offset, _MOST_32)
        fixed = pack("<IHHHHHH", 0x02014B50, _MADE_BY, 45 if large else 20, _FLAGS, 0, *_dos(member.modified_at))
        fixed += pack("<III", self._crcs[index], size, size)
        return fixed + pack("<HHHHHII", len(name), len(extra), 0, 0, 0, _MODE, offset) + name + extra

    def _written(self, data: bytes) -> bytes:
        self._position += len(data)
        return data


def _dos(moment: datetime) -> tuple[int, int]:
    """Time and date in the form of DOS, in UTC, for there is no zone."""
    year = max(moment.year - _OLDEST, 0)
    return moment.hour << 11 | moment.minute << 5 | moment.second // 2, year << 9 | moment.month << 5 | moment.day


def _unique(names: Iterable[str]) -> list[str]:
    """The names, of which none is another's, on file systems without upper case too."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem, dot, ending = name.rpartition(".")
        stem, ending = (stem, dot + ending) if stem else (name, "")
        fresh, number = name, 1
        while fresh.casefold() in taken:
            number += 1
            fresh = f"{stem} ({number}){ending}"
        taken.add(fresh.casefold())
        found.append(fresh)
    return found
