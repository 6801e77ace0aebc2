"""kill -9 at any moment: what was acknowledged is there and whole, and nothing else is but what may be."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 50 * EFFORT
UPLOADERS = 8
LATEST = 0.3  # seconds after the uploads have begun
SIZES = (0, 1, 5_000, 60_000, 400_000, 3_000_000)
NOISE = Random(4).randbytes(2 * SIZES[-1])


@dataclass(frozen=True)
class Content:
    """A file as its client knows it; no two have the same bytes, but those of a few bytes."""

    name: str
    data: bytes = field(repr=False)
    sha256: str


@dataclass
class Upload:
    """One request: its files, and how far it came."""

    files: list[Content]
    sent: bool = False
    answered: bool = False


@dataclass
class Client:
    """Uploads one after the other until the server is gone."""

    port: int
    prefix: str
    random: Random
    uploads: list[Upload] = field(default_factory=list)

    def run(self) -> None:
        """Returns when the server was killed; anything else that goes wrong it raises."""
        try:
            self._upload_for_ever()
        except (OSError, HTTPException):
            return

    def _upload_for_ever(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            for number in count():
                kind = self.random.choice(["form", "put", "chunked"])
                amount = self.random.randint(1, 3) if kind == "form" else 1
                upload = Upload([self._content(f"{self.prefix}-{number}-{index}") for index in range(amount)])
                self.uploads.append(upload)
                _send(connection, kind, upload)
                _read_answer(connection, upload)
        finally:
            connection.close()

    def _content(self, name: str) -> Content:
        size = self.random.randint(0, self.random.choice(SIZES))
        start = self.random.randrange(SIZES[-1])
        data = (name.encode() + NOISE[start : start + size])[:size]
        return Content(name, data, hashlib.sha256(data).hexdigest())


def _send(connection: HTTPConnection, kind: str, upload: Upload) -> None:
    [first, *_] = upload.files
    if kind == "form":
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        connection.request("POST", "/files", _form(upload.files), headers)
    elif kind == "put":
        connection.request("PUT", f"/files/{first.name}", first.data)
    else:
        connection.request("PUT", f"/files/{first.name}", _pieces(first.data), encode_chunked=True)
    upload.sent = True


def _form(files: list[Content]) -> bytes:
    head = '--B\r\nContent-Disposition: form-data; name="f"; filename="{}"\r\n\r\n'
    return b"".join([*(head.format(file.name).encode() + file.data + b"\r\n" for file in files), b"--B--\r\n"])


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


def _read_answer(connection: HTTPConnection, upload: Upload) -> None:
    response = connection.getresponse()
    assert response.status == 201, response.read()
    upload.answered = True
    body = json.loads(response.read())
    records = body.get("files", [body])
    assert [record["sha256"] for record in records] == [file.sha256 for file in upload.files]


class Book:
    """What the server must have, may have, and must not have."""

    def __init__(self) -> None:
        self.kept: dict[str, Content] = {}
        self.acknowledged = 0
        self.unknown = 0
        self.unknown_kept = 0

    def enter(self, uploads: list[Upload], listed: dict[str, dict[str, Any]]) -> list[Content]:
        """Settles these uploads by what is listed; the files that are new."""
        new = []
        for upload in uploads:
            there = [file.name in listed for file in upload.files]
            self.acknowledged += upload.answered
            self.unknown += upload.sent and not upload.answered
            if upload.answered:
                assert all(there), f"acknowledged, but lost: {[file.name for file in upload.files]}"
            assert all(there) or not any(there), f"half a request is there: {[file.name for file in upload.files]}"
            if any(there):
                assert upload.sent, f"not even sent, but there: {[file.name for file in upload.files]}"
                self.unknown_kept += not upload.answered
                new += upload.files
        self.kept |= {file.name: file for file in new}
        return new

    def check(self, listed: dict[str, dict[str, Any]]) -> None:
        """Exactly what was ever settled as kept is listed, and under the right digest."""
        expected = {name: (len(file.data), file.sha256) for name, file in self.kept.items()}
        assert {name: (record["size"], record["sha256"]) for name, record in listed.items()} == expected


def listing(server: Server) -> dict[str, dict[str, Any]]:
    files = server.files()
    found = {file["filename"]: file for file in files}
    assert len(found) == len(files), f"listed twice: {Counter(file['filename'] for file in files).most_common(3)}"
    return found


def check_bytes(server: Server, files: list[Content], listed: dict[str, dict[str, Any]]) -> None:
    """A full download of each is identical."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    for file in files:
        connection.request("GET", f"/media/{listed[file.name]['id']}/x")
        response = connection.getresponse()
        assert response.status == 200
        assert response.read() == file.data, f"not the bytes that were sent: {file.name}"
    connection.close()


def settle(server: Server, book: Book, uploads: list[Upload]) -> None:
    """Holds what the server has after a crash against what its clients know."""
    listed = listing(server)
    new = book.enter(uploads, listed)
    book.check(listed)
    check_bytes(server, new, listed)
    sizes = sorted({record["sha256"]: record["size"] for record in listed.values()}.values())
    eventually(lambda: sorted(server.blobs().values()) == sizes)


def upload_until_killed(server: Server, pool: ThreadPoolExecutor, turn: int) -> list[Upload]:
    """The uploads of one life of the server."""
    random = Random(turn)
    clients = [Client(server.port, f"{turn}-{number}", Random(f"{turn} {number}")) for number in range(UPLOADERS)]
    running = [pool.submit(client.run) for client in clients]
    time.sleep(random.uniform(0, LATEST))
    server.kill()
    for future in running:
        future.result(30)
    return [upload for client in clients for upload in client.uploads]


def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    book = Book()
    with Server(tmp_path / "spool") as server, ThreadPoolExecutor(UPLOADERS) as pool:
        for turn in range(KILLS):
            uploads = upload_until_killed(server, pool, turn)
            server.start()
            settle(server, book, uploads)
        listed = listing(server)
        check_bytes(server, list(book.kept.values()), listed)
        digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in server.dir.glob("blobs/*/*"))
        assert digests == sorted({record["sha256"] for record in listed.values()})
    print(  # noqa: T201  # the numbers are worth reading
        f"\n{KILLS} kills, {book.acknowledged} uploads acknowledged, 0 lost, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept, {len(book.kept)} files"
    )
    assert book.acknowledged >= KILLS
    assert book.unknown > 0


def test_start_that_was_killed_can_be_tried_again(tmp_path: Path) -> None:
    server = Server(tmp_path / "spool")
    for delay in range(0, 600, 30):
        server.spawn()
        time.sleep(delay / 1000)
        server.kill()
    with server:
        assert server.files() == []
        eventually(lambda: server.blobs() == {})
