"""Room on the disk that is kept for deleting: SQLite writes before it removes, and a full disk would stay full."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SIZE: Final = 8 * 1024 * 1024
"""Bytes: twice what the log grows to before it is carried over, so that there is room for both."""


class Reserve:
    """A file of zeros that takes up room until that is needed. Its verbs block; one thread at a time may use them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.owed = 0
        """Bytes that are free now and are to be set aside again; nothing else should take them."""

    def keep(self) -> None:
        """The room is set aside, if the disk has that much, and the system knows how."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            self._allocate()
        except OSError:
            self.release()

    def _allocate(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < SIZE:
                os.posix_fallocate(fd, 0, SIZE)
            self.owed = 0
        finally:
            os.close(fd)

    def missing(self) -> int:
        """As `owed`, also where it was another process that needed the room."""
        if not hasattr(os, "posix_fallocate"):
            return self.owed
        with suppress(OSError):
            return 0 if self._path.stat().st_size >= SIZE else SIZE
        return SIZE

    def release(self) -> None:
        """The room is free."""
        with suppress(OSError):
            self._path.unlink()
        self.owed = SIZE
