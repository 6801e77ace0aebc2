"""The directories of the local store, held open, so that everything is reached relative to them.

blobs/00 .. blobs/ff    live blobs, spread by the first two digits of their key
incoming/               staged blobs where there are no nameless files
lock                    held by the one server that owns the directory
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from spool.model import Key

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_SHARDS: Final = tuple(f"{shard:02x}" for shard in range(256))


class Layout:
    """The spool directory's open directories."""

    def __init__(self, root: Path, *, nameless: bool) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = os.open(root, DIRECTORY & ~os.O_NOFOLLOW)
        blobs = _directory("blobs", self.root)
        self.incoming = _directory("incoming", self.root)
        self.shards = {shard: _directory(shard, blobs) for shard in _SHARDS}
        os.fsync(blobs)
        os.fsync(self.root)
        os.close(blobs)
        self.nameless = nameless and _has_nameless_files(self.incoming)
        self._lock: int | None = None

    def shards_of(self, name: str) -> list[int]:
        """The directory of the shard that a name belongs to; none for a name that a stranger left."""
        return [self.shards[name[:2]]] if name[:2] in self.shards else []

    def stage(self, key: Key) -> int:
        """A new file, without a name where there are nameless files."""
        if self.nameless:
            return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self.incoming)
        return os.open(key, NEW, 0o600, dir_fd=self.incoming)

    def has(self, key: Key) -> bool:
        try:
            os.stat(key, dir_fd=self.shards[key[:2]], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def lock(self) -> bool:
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self.root)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        for fd in (*self.shards.values(), self.incoming, self.root):
            os.close(fd)
        if self._lock is not None:
            os.close(self._lock)


def _directory(name: str, parent: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, DIRECTORY, dir_fd=parent)


def _has_nameless_files(directory: int) -> bool:
    """Whether O_TMPFILE and linkat through /proc work here, as one try tells."""
    name = f"probe-{secrets.token_hex(8)}"
    try:
        fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except (AttributeError, OSError):
        return False
    try:
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
