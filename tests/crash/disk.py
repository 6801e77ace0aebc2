"""A disk that keeps what was synced, and nothing else: a recorded run can be cut anywhere, and what is left laid out.

The bytes, size and labels (extended attributes) of a file are durable as they were at its last fsync, and the names in
a directory as they were at the last fsync of that directory. No journal takes anything along, and write-back gives
nothing. The disk may also have written out, unasked, any part of the rest: pages, a size, single names; see `lay_out`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from random import Random

PAGE: Final = 4096
ROOT: Final = 1


class Operation(NamedTuple):
    """One change of the disk, one sync, or a power cut. `directory` and `name` are where a name was given or taken."""

    kind: str
    inode: int
    directory: int = 0
    name: str = ""
    value: Any = None


@dataclass
class Inode:
    """A file or a directory: as programs see it, and as it is durable."""

    is_directory: bool
    links: int = 0
    data: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)
    durable_data: bytearray = field(default_factory=bytearray)
    durable_names: dict[str, int] = field(default_factory=dict)
    durable_labels: dict[str, bytes] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    """Pages that were written, or cut off, since the last fsync."""

    def apply(self, kind: str, label: str, value: Any) -> None:
        match kind:
            case "write":
                self._write(*value)
            case "truncate":
                self._resize(value)
            case "setxattr":
                self.labels[label] = value
            case "removexattr":
                del self.labels[label]
            case "fdatasync":
                self._sync_data()
            case "fsync":
                self._sync_data()
                self.durable_labels = dict(self.labels)
            case "fsyncdir":
                self.durable_names = dict(self.names)

    def _write(self, offset: int, data: bytes) -> None:
        if offset > len(self.data):
            self._resize(offset)
        self.data[offset : offset + len(data)] = data
        self._soil(offset, offset + len(data))

    def _resize(self, size: int) -> None:
        old = len(self.data)
        if size < old:
            del self.data[size:]
        else:
            self.data.extend(bytes(size - old))
        self._soil(min(old, size), max(old, size))

    def _sync_data(self) -> None:
        _fit(self.durable_data, len(self.data))
        _copy_pages(self.data, self.durable_data, self.dirty)
        self.dirty.clear()

    def _soil(self, start: int, end: int) -> None:
        self.dirty.update(range(start // PAGE, -(-end // PAGE)))


class Disk:
    """All inodes. It is a directory, empty and durable, to begin with."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.inodes = {ROOT: Inode(is_directory=True, links=1)}
        for operation in operations:
            self.apply(operation)

    def apply(self, operation: Operation) -> None:
        kind, number, directory, name, value = operation
        if kind == "cut":
            self._cut()
            return
        if kind in ("create", "mkdir", "tmpfile"):
            self.inodes[number] = Inode(is_directory=kind == "mkdir")
        if not directory:
            self.inodes[number].apply(kind, name, value)
        if kind in ("unlink", "rmdir", "rename"):
            self._unname(directory, name)
        if kind == "rename":
            directory, name = value
            self._unname(directory, name)
        if kind in ("create", "mkdir", "link", "rename"):
            self._name(number, directory, name)

    def _name(self, number: int, directory: int, name: str) -> None:
        self.inodes[directory].names[name] = number
        self.inodes[number].links += 1

    def _unname(self, directory: int, name: str) -> None:
        number = self.inodes[directory].names.pop(name, None)
        if number is not None:
            self.inodes[number].links -= 1

    def _cut(self) -> None:
        """Programs see what is durable, and nothing else."""
        for inode in self.inodes.values():
            inode.data, inode.names = bytearray(inode.durable_data), dict(inode.durable_names)
            inode.labels = dict(inode.durable_labels)
            inode.links = 0
            inode.dirty.clear()
        for inode in self.inodes.values():
            for child in inode.names.values():
                self.inodes[child].links += 1

    def lay_out(self, target: Path, torn: Random | None = None) -> None:
        """What a power cut leaves now, as a directory.

        With `torn`, a random part of what was not synced is there as well: each name that was given or taken may have
        been, each size may be the new one, each page that was written may be the new one, or zeros where none was.
        """
        self._lay_out(ROOT, target, torn, {})

    def _lay_out(self, number: int, target: Path, torn: Random | None, done: dict[int, Path]) -> None:
        inode = self.inodes[number]
        if number in done:
            os.link(done[number], target)
            return
        if not inode.is_directory:
            done[number] = target
            target.write_bytes(_left_data(inode, torn))
            for label, value in _left(inode.durable_labels, inode.labels, torn).items():
                os.setxattr(target, label, value)
            return
        target.mkdir(0o700)
        for name, child in _left(inode.durable_names, inode.names, torn).items():
            self._lay_out(child, target / name, torn, done)


def _left(durable: dict[str, Any], live: dict[str, Any], torn: Random | None) -> dict[str, Any]:
    if torn is None or durable == live:
        return durable
    left = {}
    for name in sorted({*durable, *live}):
        chosen = torn.choice((durable, live))
        if name in chosen:
            left[name] = chosen[name]
    return left


def _left_data(inode: Inode, torn: Random | None) -> bytes:
    if torn is None or not inode.dirty:
        return bytes(inode.durable_data)
    left = bytearray(inode.durable_data)
    _fit(left, torn.choice((len(left), len(inode.data))))
    share = torn.choice((0.1, 0.5, 0.9, 1))
    _copy_pages(inode.data, left, {page for page in sorted(inode.dirty) if torn.random() < share})
    return bytes(left)


def _fit(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _copy_pages(source: bytearray, target: bytearray, pages: Iterable[int]) -> None:
    """The pages of `source` are in `target`, whose size does not change."""
    for page in pages:
        start, end = page * PAGE, min((page + 1) * PAGE, len(source), len(target))
        if start < end:
            target[start:end] = source[start:end]
