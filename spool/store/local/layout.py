"""The directories of a local store, all open, and the names in them. Every function here blocks."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound, Unavailable
from spool.model import Key
from spool.store.local.labels import set_label

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spool.model import Label

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_RESUMED: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_BLOB: Final = (errno.ENOENT, errno.ELOOP)
"""Nothing is there, or a symbolic link."""
_SHARDS: Final = tuple(f"{shard:02x}" for shard in range(256))

Entry = tuple[Key, int, datetime]


class Layout:
    """The spool directory's open directories."""

    def __init__(self, root: Path, *, nameless: bool) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_way(root)
        self.root = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
        self._lock = os.open("lock", _LOCK, 0o600, dir_fd=self.root)  # fails on a read-only disk
        blobs = _directory("blobs", self.root)
        self.incoming = _directory("incoming", self.root)
        self.shards = {shard: _directory(shard, blobs) for shard in _SHARDS}
        os.fsync(blobs)
        os.fsync(self.root)
        os.close(blobs)
        self.nameless = nameless and _has_nameless_files(self.incoming)

    def shard(self, key: Key) -> int:
        """The directory of the live blob."""
        try:
            return self.shards[key[:2]]
        except KeyError:  # what a stranger left belongs to no shard
            raise NotFound("no blob has such a key") from None

    def size(self, key: Key) -> int | None:
        """Bytes of the live blob; None if there is none, or something that is no file."""
        try:
            status = _stat(key, self.shard(key))
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def directories(self, prefix: str, *, live: bool) -> list[int]:
        """Those in which keys that begin with `prefix` may lie."""
        shards = [fd for name, fd in self.shards.items() if name.startswith(prefix[:2])]
        return shards if live else [self.incoming, *shards]

    def path(self, key: Key) -> str:
        """A path of the live blob, through its open directory, for the calls that take no descriptor of one."""
        return f"/proc/self/fd/{self.shard(key)}/{key}"

    def read(self, key: Key, *, staged: bool) -> int:
        """The live blob, or first of all the staged one, open for reading. Raises NotFound."""
        # In this order, for a commit gives the second name before it takes the first.
        for directory in (self.incoming, self.shards.get(key[:2])) if staged else (self.shards.get(key[:2]),):
            try:
                if directory is not None:  # a record that is damaged may name anything
                    return os.open(key, _READ, dir_fd=directory)
            except OSError as error:
                if error.errno not in _NO_BLOB:
                    raise
        raise NotFound("the bytes of this file are gone")

    def settle(self, key: Key, size: int, label: Label | None) -> None:
        """The staged file of this name, if there is one, is durable, labelled, and holds `size` bytes and no more."""
        with suppress(FileNotFoundError):
            fd = open_staged(key, self.incoming, size)
            try:
                if label is not None:
                    set_label(fd, label.file_id, label.text)
                os.utime(fd)
                os.fsync(fd)
            finally:
                os.close(fd)

    def link(self, key: Key, size: int) -> bool:
        """The staged file of this name, if there is one, is live too; whether that is new. Never replaces another.

        Raises Unavailable if it is not of this size.
        """
        try:
            staged = _stat(key, self.incoming)
        except FileNotFoundError:
            return False
        if staged.st_size != size:
            raise Unavailable("the staged bytes are not those that were synced")
        shard = self.shard(key)
        try:
            os.link(key, key, src_dir_fd=self.incoming, dst_dir_fd=shard, follow_symlinks=False)
        except FileExistsError:
            if not os.path.samestat(staged, _stat(key, shard)):
                raise
            return False  # a crash came between the two steps of a commit
        return True

    def require(self, key: Key, size: int) -> None:
        """Raises Unavailable unless the blob is live and of that size."""
        if self.size(key) != size:
            raise Unavailable("the staged bytes are gone")

    def unstage(self, key: Key) -> bool:
        """Nothing of this name is staged; whether something was."""
        return _unlink(key, self.incoming)

    def unlink(self, key: Key) -> bool:
        """The blob is not live; whether it was."""
        try:
            return _unlink(key, self.shard(key))
        except NotFound:
            return False

    def lock(self) -> bool:
        """Whether this process now owns the directory."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def owned_by(self) -> int:
        """The descriptor that owns the directory: so does whoever inherits it, until it ends."""
        return self._lock

    def close(self) -> None:
        """The directories are closed, and another process may own them."""
        for fd in (*self.shards.values(), self.incoming, self.root, self._lock):
            os.close(fd)


def open_staged(key: Key, incoming: int, size: int, *, create: bool = False) -> int:
    """The file of this name in `incoming`, open, and cut to `size`.

    Raises Unavailable if it holds less, or would have to be cut while it is live as well.
    """
    fd = os.open(key, _RESUMED | (os.O_CREAT if create else 0), 0o600, dir_fd=incoming)
    try:
        _cut(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _cut(fd: int, size: int) -> None:
    status = os.fstat(fd)
    if status.st_size < size:
        raise Unavailable("fewer bytes are staged than were synced")
    if status.st_size > size:
        if status.st_nlink > 1:
            raise Unavailable("more bytes are live than were synced")
        os.ftruncate(fd, size)


def scan(directory: int, prefix: str) -> list[Entry]:
    """The files that lie in a directory under names that begin with `prefix`."""
    found = []
    with _entries(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append(to_entry(Key(entry.name), status))
    return found


def strays(directory: int, shard: str) -> list[str]:
    """The names in a shard's directory that belong elsewhere, or to something that is no file."""
    with _entries(directory) as entries:
        return [e.name for e in entries if not (e.name.startswith(shard) and e.is_file(follow_symlinks=False))]


@contextmanager
def _entries(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    # Opened anew: an open directory has one place to read on from, whoever reads, and on btrfs it does not show what
    # came after it was opened.
    own = os.open(".", _DIRECTORY, dir_fd=directory)
    try:
        with os.scandir(own) as entries:
            yield entries
    finally:
        os.close(own)


def to_entry(key: Key, status: os.stat_result) -> Entry:
    """What `BlobStore.keys` says of a file."""
    return key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)


def probe_key() -> Key:
    """A name that nothing else has, and that a sweep can reclaim if a crash leaves it."""
    return Key(f"00{secrets.token_hex(15)}")


def _stat(name: str, directory: int) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _unlink(name: str, directory: int) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _directory(name: str, parent: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _sync_way(root: Path) -> None:
    """The names that lead to `root` are durable as far as its file system goes, whichever process made them."""
    device = root.stat().st_dev
    for parent in root.resolve().parents:
        if parent.stat().st_dev != device:
            return
        with suppress(PermissionError):  # a directory that may not be read was hardly made for us
            fd = os.open(parent, _DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _has_nameless_files(directory: int) -> bool:
    """Whether O_TMPFILE and linkat through /proc work here, as one try tells."""
    name = probe_key()
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
