"""A file system in memory, by FUSE's own protocol on /dev/fuse, that records every change and every sync.

    python -m tests.crash.strictfs MOUNTPOINT RECORD CLOCK [--named]

serves until its standard input ends, and then writes the record: a pickled list of `disk.Operation`. If there is a
record already, it goes on from there, as a machine does on which only a program was killed. CLOCK is a file of eight
bytes that hold, at any time, how many operations are recorded; it is advanced before the program that asked for one is
answered. With --named there are no nameless files (O_TMPFILE). Requests are answered one after the other. Times, owners
and modes are not kept: nothing that is tested here depends on them. Only root may mount it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import pickle
import stat
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.crash.disk import Disk, Operation
from tests.process import eventually, lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# linux/fuse.h, protocol 7.37
_REQUEST: Final = struct.Struct("<IIQQIIIHH")  # fuse_in_header: length, opcode, unique, node, ...
_ANSWER: Final = struct.Struct("<IiQ")
_ATTRIBUTES: Final = struct.Struct("<6Q10I")
_ENTRY: Final = struct.Struct("<4Q2I")
_READ: Final = struct.Struct("<2QI")  # the first members of fuse_read_in and fuse_write_in
_WRITE_HEAD: Final = 40
_SETATTR: Final = struct.Struct("<2I2Q")
_DIRENT: Final = struct.Struct("<2Q2I")
_SET_SIZE: Final = 1 << 3
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_MOST: Final = 1024 * 1024
_FOR_EVER: Final = 1 << 30
"""Seconds that the kernel may remember names and attributes: nobody else changes them."""
_NO_REPLACE: Final = 1
_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


class FileSystem:
    """Answers the kernel's requests: a node's number and the body of a request in, the body of the answer out."""

    def __init__(self, record: list[Operation], clock: mmap.mmap, *, nameless: bool) -> None:
        self.record = record
        self._disk = Disk(record)
        self._clock = clock
        self._newest = max(self._disk.inodes)
        self._handlers: dict[int, Callable[[int, bytes], bytes]] = {
            1: self._lookup, 3: lambda node, _: self._attributes(node), 4: self._setattr, 9: self._mkdir,
            10: self._unlink, 11: self._rmdir, 12: self._rename, 13: self._link, 14: self._open, 15: self._read,
            16: self._write, 17: self._statfs, 18: _nothing, 20: self._fsync, 21: self._setxattr, 22: self._getxattr,
            23: self._listxattr, 24: self._removexattr, 25: _nothing, 26: self._init, 27: self._open,
            28: self._readdir, 29: _nothing, 30: self._fsyncdir, 35: self._create, 45: self._rename2,
        }  # fmt: skip
        if nameless:
            self._handlers[51] = self._tmpfile

    def serve(self, device: int) -> None:
        """Answers requests until the file system is unmounted."""
        buffer = bytearray(_MOST + 8192)
        while True:
            try:
                self._serve_one(device, buffer)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                    return  # whoever still uses it then hears of that
                # The program no longer waits for the answer, or has taken its request back.
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    raise

    def _serve_one(self, device: int, buffer: bytearray) -> None:
        size = os.readv(device, [buffer])
        _, opcode, unique, node, *_ = _REQUEST.unpack_from(buffer)
        if opcode in (2, 36, 42):  # forget and interrupt want no answer
            return
        code, body = self._answer(opcode, node, bytes(memoryview(buffer)[_REQUEST.size : size]))
        os.writev(device, [_ANSWER.pack(_ANSWER.size + len(body), -code, unique), body])

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        handler = self._handlers.get(opcode)
        if handler is None:
            return errno.ENOSYS, b""
        try:
            return 0, handler(node, body)
        except OSError as error:
            return error.errno or errno.EIO, b""

    def _do(self, kind: str, inode: int, directory: int = 0, name: str = "", value: object = None) -> None:
        operation = Operation(kind, inode, directory, name, value)
        self._disk.apply(operation)
        self.record.append(operation)
        self.tell()

    def tell(self) -> None:
        """The clock shows how much is recorded."""
        struct.pack_into("<Q", self._clock, 0, len(self.record))

    def _init(self, _: int, __: bytes) -> bytes:
        flags = _BIG_WRITES | _MAX_PAGES
        return struct.pack("<4I2H2I2H8I", 7, 37, _MOST, flags, 16, 12, _MOST, 1, _MOST // 4096, 0, *[0] * 8)

    def _attributes(self, node: int) -> bytes:
        return struct.pack("<Q2I", _FOR_EVER, 0, 0) + self._stat(node)

    def _stat(self, node: int) -> bytes:
        inode = self._disk.inodes[node]
        mode = stat.S_IFDIR | 0o700 if inode.is_directory else stat.S_IFREG | 0o600
        size = len(inode.data)
        links = 2 if inode.is_directory else inode.links
        return _ATTRIBUTES.pack(node, size, -(-size // 512), 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    def _entry(self, node: int) -> bytes:
        return _ENTRY.pack(node, 0, _FOR_EVER, _FOR_EVER, 0, 0) + self._stat(node)

    def _child(self, directory: int, name: str) -> int:
        try:
            return self._disk.inodes[directory].names[name]
        except KeyError:
            raise _error(errno.ENOENT) from None

    def _new(self) -> int:
        self._newest += 1
        return self._newest

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._child(node, _names(body)[0]))

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size = _SETATTR.unpack_from(body)
        if valid & _SET_SIZE:
            self._do("truncate", node, value=size)
        return self._attributes(node)

    def _mkdir(self, node: int, body: bytes) -> bytes:
        new = self._new()
        self._do("mkdir", new, node, _names(body[8:])[0])
        return self._entry(new)

    def _create(self, node: int, body: bytes) -> bytes:
        new = self._new()
        self._do("create", new, node, _names(body[16:])[0])
        return self._entry(new) + self._open(new, b"")

    def _tmpfile(self, _: int, __: bytes) -> bytes:
        new = self._new()
        self._do("tmpfile", new)
        return self._entry(new) + self._open(new, b"")

    def _link(self, node: int, body: bytes) -> bytes:
        (target,) = struct.unpack_from("<Q", body)
        self._do("link", target, node, _names(body[8:])[0])
        return self._entry(target)

    def _unlink(self, node: int, body: bytes) -> bytes:
        [name] = _names(body)
        self._do("unlink", self._child(node, name), node, name)
        return b""

    def _rmdir(self, node: int, body: bytes) -> bytes:
        [name] = _names(body)
        child = self._child(node, name)
        if self._disk.inodes[child].names:
            raise _error(errno.ENOTEMPTY)
        self._do("rmdir", child, node, name)
        return b""

    def _rename(self, node: int, body: bytes) -> bytes:
        (target,) = struct.unpack_from("<Q", body)
        return self._move(node, target, *_names(body[8:]))

    def _rename2(self, node: int, body: bytes) -> bytes:
        target, flags, _ = struct.unpack_from("<Q2I", body)
        old, new = _names(body[16:])
        if flags & ~_NO_REPLACE:
            raise _error(errno.EINVAL)
        if flags and new in self._disk.inodes[target].names:
            raise _error(errno.EEXIST)
        return self._move(node, target, old, new)

    def _move(self, node: int, target: int, old: str, new: str) -> bytes:
        self._do("rename", self._child(node, old), node, old, (target, new))
        return b""

    def _open(self, _: int, __: bytes) -> bytes:
        return struct.pack("<Q2I", 0, 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = _READ.unpack_from(body)
        return bytes(memoryview(self._disk.inodes[node].data)[offset : offset + size])

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, size = _READ.unpack_from(body)
        self._do("write", node, value=(offset, body[_WRITE_HEAD : _WRITE_HEAD + size]))
        return struct.pack("<2I", size, 0)

    def _statfs(self, _: int, __: bytes) -> bytes:
        blocks = 1 << 20  # 4 GiB
        return struct.pack("<5Q10I", blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096, *[0] * 7)

    def _fsync(self, node: int, body: bytes) -> bytes:
        _, only_data = struct.unpack_from("<QI", body)
        self._do("fdatasync" if only_data & 1 else "fsync", node)
        return b""

    def _fsyncdir(self, node: int, _: bytes) -> bytes:
        self._do("fsyncdir", node)
        return b""

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = _READ.unpack_from(body)
        inodes = self._disk.inodes
        entries = [(".", node), ("..", node), *inodes[node].names.items()]
        answer = b""
        for place, (name, child) in enumerate(entries[offset:], offset + 1):
            encoded = name.encode()
            kind = stat.S_IFDIR if inodes[child].is_directory else stat.S_IFREG
            entry = _DIRENT.pack(child, place, len(encoded), kind >> 12) + encoded
            entry += bytes(-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def _setxattr(self, node: int, body: bytes) -> bytes:
        size, _ = struct.unpack_from("<2I", body)
        label, _, value = body[8:].partition(b"\0")
        if not label.startswith(b"user."):
            raise _error(errno.EOPNOTSUPP)
        self._do("setxattr", node, name=label.decode(), value=value[:size])
        return b""

    def _getxattr(self, node: int, body: bytes) -> bytes:
        return _fitting(self._label(node, _names(body[8:])[0]), body)

    def _listxattr(self, node: int, body: bytes) -> bytes:
        return _fitting(b"".join(label.encode() + b"\0" for label in self._disk.inodes[node].labels), body)

    def _removexattr(self, node: int, body: bytes) -> bytes:
        [label] = _names(body)
        self._label(node, label)
        self._do("removexattr", node, name=label)
        return b""

    def _label(self, node: int, label: str) -> bytes:
        try:
            return self._disk.inodes[node].labels[label]
        except KeyError:
            raise _error(errno.ENODATA) from None


def _fitting(value: bytes, body: bytes) -> bytes:
    """An attribute's value, or its size where the request has room for none."""
    room, _ = struct.unpack_from("<2I", body)
    if room == 0:
        return struct.pack("<2I", len(value), 0)
    if room < len(value):
        raise _error(errno.ERANGE)
    return value


def _nothing(_: int, __: bytes) -> bytes:
    return b""


def _names(body: bytes) -> list[str]:
    return [name.decode() for name in body.split(b"\0")[:-1]]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _mount(device: int, point: str) -> None:
    options = f"fd={device},rootmode=40700,user_id={os.getuid()},group_id={os.getgid()}"
    if _libc.mount(b"strictfs", point.encode(), b"fuse.strictfs", 0, options.encode()):
        raise _error(ctypes.get_errno())


def main(point: str, record: str, clock: str, *flags: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    with Path(clock).open("r+b") as file:
        system = FileSystem(_load(Path(record)), mmap.mmap(file.fileno(), 8), nameless="--named" not in flags)
    system.tell()
    _mount(device, point)

    def unmount_at_the_end() -> None:
        sys.stdin.read()
        _libc.umount2(point.encode(), _DETACH)

    threading.Thread(target=unmount_at_the_end, daemon=True).start()
    system.serve(device)
    _save(Path(record), system.record)


def _load(record: Path) -> list[Operation]:
    return [Operation(*fields) for fields in pickle.loads(record.read_bytes())] if record.exists() else []


def _save(record: Path, operations: Sequence[Operation]) -> None:
    record.write_bytes(pickle.dumps([tuple(operation) for operation in operations]))


class Clock(NamedTuple):
    """How many operations a running strict file system has recorded."""

    memory: mmap.mmap

    def __call__(self) -> int:
        (now,) = struct.unpack_from("<Q", self.memory)
        return int(now)


@dataclass
class Recording:
    """A strict file system that is mounted at `point`. `operations` are all of them once it is no longer."""

    point: Path
    clock: Clock
    operations: list[Operation]


@contextmanager
def recorded(directory: Path, *flags: str, before: Sequence[Operation] = ()) -> Iterator[Recording]:
    """A strict file system, mounted in `directory` until the end. `before` is what has been done to it already."""
    point, record, clock = (directory / name for name in ("mount", "record", "clock"))
    point.mkdir()
    clock.write_bytes(bytes(8))
    _save(record, before)
    with clock.open("r+b") as file:
        recording = Recording(point, Clock(mmap.mmap(file.fileno(), 8)), [])
    command = [sys.executable, "-m", "tests.crash.strictfs", str(point), str(record), str(clock), *flags]
    root = Path(__file__).parents[2]
    daemon = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        eventually(lambda: point.is_mount() or daemon.poll() is not None, 30)
        if daemon.poll() is not None:
            lacking(f"cannot mount a FUSE file system here: {daemon.communicate()[1].decode().strip()[-200:]}")
        yield recording
    finally:
        try:
            _, errors = daemon.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.communicate()
            _libc.umount2(str(point).encode(), _DETACH)
            raise
    assert daemon.returncode == 0, errors.decode()
    recording.operations += _load(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
