"""Clients that use all of a server at once, and a history of what each asked for and was told, on one clock.

The clock counts what the disk has done. A cut at `n` leaves the first `n` operations: what a client was told at `n` or
before must hold after the cut, and what it asked for at `n` or after cannot have happened.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from random import Random
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.process import Server

CLIENTS: Final = 6
SIZES: Final = (0, 1, 5_000, 60_000, 400_000)
LARGE: Final = 3_000_000
NOISE: Final = Random(6).randbytes(4_000_000)
TUS: Final = {"Tus-Resumable": "1.0.0"}


class Gone(Exception):
    """The server does not answer, or its disk is gone: what was asked for is unknown."""


@dataclass
class Deed:
    """When it was asked for, all of it, and when the answer came; None for never."""

    began: int | None = None
    told: int | None = None

    def possible(self, cut: int) -> bool:
        return self.began is not None and self.began < cut

    def certain(self, cut: int) -> bool:
        return self.told is not None and self.told <= cut


@dataclass
class Content:
    """Bytes under a name that nobody else uses. Only those of a few bytes are not unique."""

    name: str
    data: bytes = field(repr=False)

    @classmethod
    def make(cls, name: str, size: int, random: Random) -> Content:
        start = random.randrange(len(NOISE) - LARGE)
        return cls(name, (name.encode() + NOISE[start : start + size])[:size])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Stored:
    """A file, and what became of it."""

    content: Content
    id: str | None = None
    removal: Deed = field(default_factory=Deed)
    titles: list[tuple[str, Deed]] = field(default_factory=list)


@dataclass
class Request:
    """One that stores files, all or none."""

    files: list[Stored]
    deed: Deed = field(default_factory=Deed)
    key: str | None = None

    @property
    def changeable(self) -> bool:
        return self.deed.told is not None and self.key is None


@dataclass
class Resumable:
    """An upload in several requests. It becomes `request`'s one file, unless it is a part for others."""

    request: Request
    dialect: str
    partial: bool = False
    path: str = ""
    creation: Deed = field(default_factory=Deed)
    removal: Deed = field(default_factory=Deed)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    """When which offset was told."""

    @property
    def data(self) -> bytes:
        return self.request.files[0].content.data

    @property
    def offset(self) -> int:
        """The last that was told."""
        return self.offsets[-1][1] if self.offsets else 0


@dataclass
class Listing:
    began: int
    told: int
    names: frozenset[str]


@dataclass
class History:
    requests: list[Request] = field(default_factory=list)
    resumables: list[Resumable] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)

    def answers(self) -> list[int]:
        """When anybody was told anything."""
        deeds = [request.deed for request in self.requests]
        deeds += [deed for upload in self.resumables for deed in (upload.creation, upload.removal)]
        for request in self.requests:
            for file in request.files:
                deeds += [file.removal, *(deed for _, deed in file.titles)]
        told = [deed.told for deed in deeds if deed.told is not None]
        return told + [at for upload in self.resumables for at, _ in upload.offsets]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    deed: Deed

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One to the server, that is made anew when the server has closed it."""

    def __init__(self, port: int, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._connection = HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(self, method: str, path: str, body: bytes = b"", deed: Deed | None = None, **headers: str) -> Answer:
        """The answer, and in `deed` when the last byte was sent, and when the answer had come. Raises Gone."""
        deed = deed or Deed()
        try:
            self._send(method, path, body, deed, headers)
            response = self._connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, found, response.read(), deed)
        except (OSError, HTTPException) as error:
            raise Gone from error
        if answer.status >= 500:
            raise Gone(answer.body)
        deed.told = self._clock()
        return answer

    def _send(self, method: str, path: str, body: bytes, deed: Deed, headers: dict[str, str]) -> None:
        self._start(method, path, len(body), headers)
        if not body:
            deed.began = self._clock()
        self._connection.endheaders(body[:-1] or None)
        if body:
            deed.began = self._clock()
            self._connection.send(body[-1:])

    def _start(self, method: str, path: str, size: int, headers: dict[str, str]) -> None:
        self._connection.putrequest(method, path)
        for name, value in headers.items():
            self._connection.putheader(name.replace("_", "-"), value)
        if method not in ("GET", "HEAD", "DELETE"):
            self._connection.putheader("Content-Length", str(size))

    def abandon(self, path: str, body: bytes) -> None:
        """Sends a PUT without its end."""
        try:
            self._start("PUT", path, len(body) + 1, {})
            self._connection.endheaders(body)
        except OSError as error:
            raise Gone from error
        self.close()

    def close(self) -> None:
        self._connection.close()


class Client:
    """Does `steps` things, one after the other, and notes them in the history."""

    def __init__(self, server: Server, clock: Callable[[], int], history: History, name: str) -> None:
        self.name = name
        self._random = Random(name)
        self._history = history
        self._connection = Connection(server.port, clock)
        self._mine: list[Request] = []
        self._number = 0

    def run(self, steps: int) -> bool:
        """Whether it came to its end: not if the server went away."""
        kinds = [self._put, self._form, self._form, self._retriable, self._abandon, self._tus, self._tus]
        kinds += [self._draft, self._draft, self._concatenate, self._remove, self._remove, self._retitle, self._retitle]
        try:
            for _ in range(steps):
                self._random.choice(kinds)()
        except Gone:
            return False
        finally:
            self._connection.close()
        return True

    def _request(self, amount: int = 1, key: str | None = None, *, note: bool = True) -> Request:
        files = []
        for _ in range(amount):
            self._number += 1
            size = LARGE if self._random.random() < 0.04 else self._random.randint(0, self._random.choice(SIZES))
            files.append(Stored(Content.make(f"{self.name}-{self._number}", size, self._random)))
        request = Request(files, key=key)
        if note:
            self._mine.append(request)
            self._history.requests.append(request)
        return request

    def _put(self) -> None:
        send(self._connection, self._request())

    def _retriable(self) -> None:
        send(self._connection, self._request(key=f"key-{self.name}-{self._number}"))

    def _form(self) -> None:
        send(self._connection, self._request(self._random.randint(2, 4)))

    def _abandon(self) -> None:
        [file] = self._request().files
        self._connection.abandon(f"/files/{file.content.name}", file.content.data)

    def _tus(self, *, partial: bool = False) -> Resumable:
        request = self._request(note=not partial)
        [file] = request.files
        upload = Resumable(request, "tus", partial)
        self._history.resumables.append(upload)
        headers = {"Upload-Length": str(len(upload.data)), **({"Upload-Concat": "partial"} if partial else {})}
        headers["Upload-Metadata"] = f"filename {base64.b64encode(file.content.name.encode()).decode()}"
        deed = upload.creation if upload.data or partial else request.deed
        answer = self._connection.ask("POST", "/tus", b"", deed, **TUS, **headers)
        assert answer.status == 201, answer
        if not self._enter(upload, answer):
            self._continue(upload)
        return upload

    def _draft(self) -> None:
        request = self._request()
        upload = Resumable(request, "draft")
        self._history.resumables.append(upload)
        first = upload.data[: self._piece(upload)]
        path = f"/files/{request.files[0].content.name}"
        answer = self._connection.ask("PUT", path, first, upload.creation, Upload_Complete="?0")
        assert answer.status == 201, answer
        self._enter(upload, answer)
        self._continue(upload)

    def _enter(self, upload: Resumable, answer: Answer) -> bool:
        """The upload has been created: the answer says where. Whether it is complete already."""
        upload.creation = answer.deed
        upload.path = urlsplit(answer.headers["location"]).path
        return self._hear(upload, answer)

    def _hear(self, upload: Resumable, answer: Answer) -> bool:
        """Notes what the answer tells; whether the upload is complete."""
        assert answer.deed.told is not None
        if "upload-offset" in answer.headers:
            upload.offsets.append((answer.deed.told, int(answer.headers["upload-offset"])))
        complete = is_complete(upload, answer)
        if complete:
            upload.request.deed.told = answer.deed.told
            upload.request.files[0].id = upload.path.rpartition("/")[2]
        return complete

    def _continue(self, upload: Resumable) -> None:
        """Brings the rest in pieces, or gives up on the way, or deletes it. Parts are brought whole."""
        end = "whole" if upload.partial else self._random.choices(["whole", "left", "deleted"], [6, 3, 1])[0]
        while not (upload.partial and upload.offset == len(upload.data)):
            piece = upload.data[upload.offset : upload.offset + self._piece(upload)]
            last = upload.offset + len(piece) == len(upload.data)
            if end != "whole" and last:
                break
            deed = upload.request.deed if last else Deed()
            if self._hear(upload, bring(self._connection, upload, upload.offset, piece, deed)):
                return
            if self._random.random() < 0.3 and self._hear(upload, ask_offset(self._connection, upload)):
                return
        if end == "deleted":
            answer = self._connection.ask("DELETE", upload.path, b"", upload.removal, **_own(upload))
            assert answer.status == 204, answer

    def _piece(self, upload: Resumable) -> int:
        return len(upload.data) // self._random.randint(2, 5) + 1

    def _concatenate(self) -> None:
        parts = [self._tus(partial=True) for _ in range(2)]
        self._number += 1
        content = Content(f"{self.name}-{self._number}", b"".join(part.data for part in parts))
        request = Request([Stored(content)])
        self._mine.append(request)
        self._history.requests.append(request)
        concatenate(self._connection, request, [part.path for part in parts])

    def _changeable(self) -> Stored | None:
        files = [file for request in self._mine if request.changeable for file in request.files]
        files = [file for file in files if file.removal.began is None]
        return self._random.choice(files) if files else None

    def _remove(self) -> None:
        if file := self._changeable():
            answer = self._connection.ask("DELETE", f"/files/{file.id}", b"", file.removal)
            assert answer.status == 204, answer

    def _retitle(self) -> None:
        if file := self._changeable():
            self._number += 1
            title, deed = f"{self.name} {self._number}", Deed()
            file.titles.append((title, deed))
            patch = json.dumps({"metadata": {"title": title}}).encode()
            answer = self._connection.ask("PATCH", f"/files/{file.id}", patch, deed, Content_Type="application/json")
            assert answer.status == 200, answer


def send(connection: Connection, request: Request) -> Answer:
    """Sends the whole request, for the first time or again."""
    deed = request.deed if request.deed.began is None else Deed()
    headers = {} if request.key is None else {"Idempotency-Key": f'"{request.key}"'}
    if len(request.files) == 1:
        [file] = request.files
        answer = connection.ask("PUT", f"/files/{file.content.name}", file.content.data, deed, **headers)
    else:
        headers["Content-Type"] = "multipart/form-data; boundary=B"
        answer = connection.ask("POST", "/files", _form([file.content for file in request.files]), deed, **headers)
    assert answer.status == 201, answer
    records = answer.json.get("files", [answer.json])
    assert [record["sha256"] for record in records] == [file.content.sha256 for file in request.files]
    if deed is request.deed:
        for file, record in zip(request.files, records, strict=True):
            file.id = record["id"]
    return answer


def _form(contents: Sequence[Content]) -> bytes:
    head = '--B\r\nContent-Disposition: form-data; name="f"; filename="{}"\r\n\r\n'
    parts = [head.format(content.name).encode() + content.data + b"\r\n" for content in contents]
    return b"".join([*parts, b"--B--\r\n"])


def bring(connection: Connection, upload: Resumable, offset: int, data: bytes, deed: Deed | None = None) -> Answer:
    """A PATCH at `offset`. With the last byte the upload is complete."""
    headers = {"Upload-Offset": str(offset), **_own(upload)}
    if upload.dialect == "tus":
        headers["Content-Type"] = "application/offset+octet-stream"
    else:
        last = offset + len(data) == len(upload.data)
        headers |= {"Content-Type": "application/partial-upload", "Upload-Complete": "?1" if last else "?0"}
    answer = connection.ask("PATCH", upload.path, data, deed, **headers)
    assert answer.status in (201, 204), answer
    return answer


def ask_offset(connection: Connection, upload: Resumable) -> Answer:
    return connection.ask("HEAD", upload.path, **_own(upload))


def concatenate(connection: Connection, request: Request, paths: Sequence[str]) -> None:
    """The file is made of these parts."""
    [file] = request.files
    name = base64.b64encode(file.content.name.encode()).decode()
    headers = {"Upload-Concat": f"final;{' '.join(paths)}", "Upload-Metadata": f"filename {name}"}
    # Without a body there is no last byte: the request may have been understood before the clock is read.
    answer = connection.ask("POST", "/tus", b"", request.deed, **TUS, **headers)
    assert answer.status == 201, answer
    file.id = answer.headers["content-location"].rpartition("/")[2]


def is_complete(upload: Resumable, answer: Answer) -> bool:
    """Whether the answer says that the upload has become a file."""
    if upload.dialect == "tus":
        return "content-location" in answer.headers
    return answer.headers.get("upload-complete") == "?1"


def _own(upload: Resumable) -> dict[str, str]:
    return TUS if upload.dialect == "tus" else {}


def work(server: Server, clock: Callable[[], int], history: History, *, steps: int, prefix: str = "") -> list[bool]:
    """All clients, and an observer that lists the files again and again; whether each client came to its end."""
    clients = [Client(server, clock, history, f"{prefix}{letter}") for letter in "abcdefghij"[:CLIENTS]]
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = deque(pool.submit(client.run, steps) for client in clients)
        while not all(future.done() for future in running):
            began = clock()
            try:
                names = frozenset(file["filename"] for file in server.files())
            except (OSError, HTTPException):
                break
            history.listings.append(Listing(began, clock(), names))
        return [future.result(60) for future in running]
