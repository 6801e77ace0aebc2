"""Where several processes write, each waits for its turn in the kernel.

SQLite's own way is to look again after 1, 2, 5, 10 and more milliseconds, in which others come first again and again.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Queue:
    """A file that whoever writes has locked. Its verbs block; one thread at a time may use them."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """No other process of this server writes meanwhile."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """The file is closed."""
        os.close(self._fd)
