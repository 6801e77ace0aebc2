"""Where an upload was going to, kept on disk until it is a file, so that it goes on in another process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from threading import Lock
from typing import TYPE_CHECKING, Final, Self

from spool.client.failures import Busy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEPT: Final = 30 * 86400.0
"""Seconds after which no server still has the upload."""
_TRIES: Final = 100


class Note:
    """What is known of one upload, in a file of its own that this process holds locked. Its calls wait for the disk."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = Lock()
        """A write whose caller was cancelled may still run while the note is being closed."""

    @classmethod
    def open(cls, directory: Path, subject: Mapping[str, object]) -> Self:
        """The note about `subject`, which is what has to be the same for an upload to go on. Raises Busy, OSError."""
        directory.mkdir(0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:32]
        path = directory / f"{name}.json"
        for _ in range(_TRIES):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                raise Busy("another process is sending this file to this server") from error
            if os.fstat(descriptor).st_nlink:
                _forget_old(directory, os.fstat(descriptor).st_mtime)
                return cls(path, descriptor)
            os.close(descriptor)  # whoever had it was done with it between our open and our lock
        raise Busy("other processes are sending this file to this server")

    def read(self) -> str | None:
        """The upload that was written last; None if there is none."""
        try:
            content = json.loads(os.pread(self._descriptor, 1 << 16, 0))
        except ValueError:
            return None
        upload = content.get("upload") if isinstance(content, dict) else None
        return upload if isinstance(upload, str) and upload.startswith("/uploads/") else None

    def write(self, upload: str, filename: str) -> None:
        """The upload is there, for the file of this name."""
        text = json.dumps({"upload": upload, "filename": filename}).encode()
        with self._lock:
            if self._descriptor >= 0:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, text, 0)

    def remove(self) -> None:
        """There is nothing to go on with."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unlocks it. What was never written leaves nothing behind."""
        with self._lock:
            if not os.fstat(self._descriptor).st_size:
                self.remove()
            os.close(self._descriptor)
            self._descriptor = -1


def _forget_old(directory: Path, now: float) -> None:
    for path in directory.glob("*.json"):
        try:
            if path.stat().st_mtime < now - _KEPT:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
