"""What clients know of their uploads, and how that is held against what a server has."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING, Any

from tests.process import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.process import Server

NOISE = Random(4).randbytes(12_000_000)
WAYS: tuple[dict[str, str], ...] = ({}, {"SPOOL_STORAGE_INLINE_MAX": "4096"})
"""The settings of servers that keep all bytes in blobs, and of those that keep a few in the index."""


@dataclass(frozen=True)
class Content:
    """A file as its client knows it; no two have the same bytes, but those of a few bytes. Made by `content`."""

    name: str
    size: int
    start: int = field(repr=False)
    """Where in the noise its bytes are."""
    sha256: str

    @property
    def data(self) -> bytes:
        """Its bytes, made anew each time: those of thousands of files together are more than a machine has room for."""
        return (self.name.encode() + NOISE[self.start : self.start + self.size])[: self.size]


@dataclass
class Upload:
    """One request: its files, and how far it came."""

    files: list[Content]
    sent: bool = False
    answered: bool = False
    """With success."""
    refused: bool = False
    """With a problem document."""


class Book:
    """What the server must have, may have, and must not have."""

    def __init__(self) -> None:
        self.kept: dict[str, Content] = {}
        self.acknowledged = 0
        self.refused = 0
        self.unknown = 0
        self.unknown_kept = 0

    def enter(self, uploads: list[Upload], listed: dict[str, dict[str, Any]]) -> list[Content]:
        """Settles these uploads by what is listed; the files that are new."""
        new = []
        for upload in uploads:
            there = [file.name in listed for file in upload.files]
            self.acknowledged += upload.answered
            self.refused += upload.refused
            self.unknown += upload.sent and not upload.answered and not upload.refused
            if upload.answered:
                assert all(there), f"acknowledged, but lost: {[file.name for file in upload.files]}"
            assert all(there) or not any(there), f"half a request is there: {[file.name for file in upload.files]}"
            if any(there):
                assert not upload.refused, f"refused, but there: {[file.name for file in upload.files]}"
                assert upload.sent, f"not even sent, but there: {[file.name for file in upload.files]}"
                self.unknown_kept += not upload.answered
                new += upload.files
        self.kept |= {file.name: file for file in new}
        return new

    def check(self, listed: dict[str, dict[str, Any]]) -> None:
        """Exactly what was ever settled as kept is listed, and under the right digest."""
        expected = {name: (file.size, file.sha256) for name, file in self.kept.items()}
        found = {name: (record["size"], record["sha256"]) for name, record in listed.items()}
        assert found == expected, f"not both listed and expected: {dict(found.items() ^ expected.items())}"


def listing(server: Server) -> dict[str, dict[str, Any]]:
    files = server.files()
    found = {file["filename"]: file for file in files}
    assert len(found) == len(files), f"listed twice: {Counter(file['filename'] for file in files).most_common(3)}"
    return found


def check_bytes(server: Server, files: Iterable[Content], listed: dict[str, dict[str, Any]]) -> None:
    """A full download of each is identical."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    for file in files:
        connection.request("GET", f"/media/{listed[file.name]['id']}/x")
        response = connection.getresponse()
        assert response.status == 200
        assert response.read() == file.data, f"not the bytes that were sent: {file.name}"
    connection.close()


def unaccounted(server: Server) -> set[str]:
    """The names on the disk that belong to no file and no open upload, and those that are missing there.

    Those too of uploads that are complete: the next sweep makes files of them, however long after their client left.
    """
    with closing(sqlite3.connect(f"{(server.dir / 'index.db').as_uri()}?mode=ro", uri=True)) as index:
        rows = index.execute(
            "SELECT key, size, 'file' FROM files WHERE body IS NULL UNION ALL "
            "SELECT key, size, 'file' FROM hidden WHERE body IS NULL UNION ALL "
            "SELECT key, offset, state FROM uploads WHERE state <> 'finished' AND offset > 0"
        ).fetchall()
        complete = {key for [key] in index.execute("SELECT key FROM uploads WHERE state = 'complete' AND partial = 0")}
        empty = {key for [key] in index.execute("SELECT key FROM uploads WHERE state = 'open' AND offset = 0")}
    blobs = server.blobs()
    kept = {key: (size, state) for key, size, state in rows}
    missing = {key for key, (size, state) in kept.items() if not _is_there(blobs.get(key), size, state)}
    return missing | complete | (blobs.keys() - kept.keys() - empty)


def _is_there(found: int | None, size: int, state: str) -> bool:
    """What lies beyond an open upload's offset is cut off by its next request."""
    return found == size or (state != "file" and found is not None and found > size)


def wait_for_accounts(server: Server) -> None:
    """Until nothing is unaccounted for."""
    try:
        eventually(lambda: not unaccounted(server), 30)
    except AssertionError:
        raise AssertionError(f"unaccounted for: {sorted(unaccounted(server))}") from None


def settle(server: Server, book: Book, uploads: list[Upload]) -> None:
    """Holds what the server has after a crash against what its clients know."""
    wait_for_accounts(server)
    listed = listing(server)
    new = book.enter(uploads, listed)
    book.check(listed)
    check_bytes(server, new, listed)


def content(name: str, size: int, start: int = 0) -> Content:
    """A file that begins with its own name, if there is room."""
    unhashed = Content(name, size, start, "")
    return replace(unhashed, sha256=hashlib.sha256(unhashed.data).hexdigest())


def form(files: Iterable[Content]) -> bytes:
    """The body of a form with the boundary B."""
    head = '--B\r\nContent-Disposition: form-data; name="f"; filename="{}"\r\n\r\n'
    return b"".join([*(head.format(file.name).encode() + file.data + b"\r\n" for file in files), b"--B--\r\n"])


FORM = {"Content-Type": "multipart/form-data; boundary=B"}
