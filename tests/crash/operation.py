"""What a client asks of a server while it is being hurt, and what must hold afterwards."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tests.crash.book import FORM, Upload, check_bytes, content, form, listing
from tests.crash.uploader import tus_creation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.crash.book import Content
    from tests.process import Server

Listed = dict[str, dict[str, Any]]

LARGE: Final = 9_000_000  # more than what starts write-back
DRAFT: Final = {"Upload-Draft-Interop-Version": "8"}


@dataclass(frozen=True)
class Reply:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def check_problem(self) -> None:
        """It is a problem document with this status."""
        assert self.headers["Content-Type"] == "application/problem+json", (self.status, self.body)
        assert json.loads(self.body)["status"] == self.status


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    """One request on a connection of its own. Raises OSError or HTTPException if no answer comes."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


class Operation(ABC):
    """Some requests, one after the other as long as they succeed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.replies: list[Reply] = []
        self.lost = False

    def prepare(self, server: Server) -> None:  # noqa: B027  # most need nothing
        """What it needs is there."""

    def run(self, server: Server) -> None:
        """Asks until something fails; whatever that is, `check` knows."""
        try:
            self._run(server)
        except (OSError, HTTPException):
            self.lost = True

    @abstractmethod
    def _run(self, server: Server) -> None: ...

    @abstractmethod
    def check(self, server: Server, listed: Listed) -> None:
        """What is listed is what this client may, and must, expect."""

    def go_on(self, server: Server) -> None:  # noqa: B027  # most cannot
        """A client that can resume does; then its file is there."""

    @property
    def failed(self) -> bool:
        """It did not come to its end."""
        return self.lost or (bool(self.replies) and self.replies[-1].status >= 400)

    def _ask(self, server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        reply = ask(server, method, path, body, **headers)
        self.replies.append(reply)
        return reply


class OneShot(Operation):
    """A PUT, or a form."""

    def __init__(self, name: str, *sizes: int) -> None:
        super().__init__(name)
        self.upload = Upload([content(f"{name}-{index}", size, index) for index, size in enumerate(sizes)])

    def _run(self, server: Server) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        try:
            [first, *more] = self.upload.files
            if more:
                connection.request("POST", "/files", form(self.upload.files), FORM)
            else:
                connection.request("PUT", f"/files/{first.name}", first.data)
            self.upload.sent = True
            response = connection.getresponse()
            self.replies.append(Reply(response.status, response.headers, response.read()))
            self.upload.answered = response.status == 201
        finally:
            connection.close()

    def check(self, server: Server, listed: Listed) -> None:
        there = [file.name in listed for file in self.upload.files]
        assert all(there) or not any(there), f"half a request is there: {self.name}"
        assert all(there) or not self.upload.answered, f"acknowledged, but lost: {self.name}"
        if any(there):
            assert self.upload.sent, f"not even sent, but there: {self.name}"
            check_record(server, self.upload.files, listed)


class Resumable(Operation):
    """An upload in three requests: one without bytes and two PATCHes."""

    def __init__(self, name: str, dialect: str) -> None:
        super().__init__(name)
        self.file = content(name, 300_000)
        self.dialect = dialect
        self.path = ""
        self.told = 0
        self.complete = False

    def _run(self, server: Server) -> None:
        if self.create(server):
            half = self.file.size // 2
            if self.append(server, self.file.data[:half]) and self.told == half:
                self.append(server, self.file.data[half:])

    def create(self, server: Server) -> bool:
        """Whether there is an upload now."""
        if self.dialect == "tus":
            head = {k: v for k, v in tus_creation(self.file).items() if k != "Content-Type"}
            reply = self._ask(server, "POST", "/tus", b"", **head)
        else:
            disposition = f'attachment; filename="{self.name}"'
            head = {**DRAFT, "Upload-Complete": "?0", "Content-Disposition": disposition}
            reply = self._ask(server, "POST", "/files", b"", **head)
        if reply.status == 201:
            self.path = urlsplit(reply.headers["Location"]).path
        return reply.status == 201

    def append(self, server: Server, piece: bytes) -> bool:
        """Whether the upload goes on behind `piece` now."""
        last = self.told + len(piece) == self.file.size
        head = {**self._own(), "Upload-Offset": str(self.told)}
        if self.dialect == "tus":
            head["Content-Type"] = "application/offset+octet-stream"
        else:
            head |= {"Content-Type": "application/partial-upload", "Upload-Complete": f"?{int(last)}"}
        reply = self._ask(server, "PATCH", self.path, piece, **head)
        if reply.status < 300:
            self.hear(int(reply.headers["Upload-Offset"]) if "Upload-Offset" in reply.headers else self.file.size)
            self.complete = last
        return reply.status < 300

    def hear(self, offset: int) -> None:
        """An offset that the server tells is never less than one that it told before."""
        assert self.told <= offset <= self.file.size, f"{self.name} was told {self.told}, and now {offset}"
        self.told = offset

    def _own(self) -> dict[str, str]:
        return {"Tus-Resumable": "1.0.0"} if self.dialect == "tus" else dict(DRAFT)

    def check(self, server: Server, listed: Listed) -> None:
        if self.complete:
            assert self.name in listed, f"acknowledged, but lost: {self.name}"
        if self.name in listed:
            assert self.path, f"never created, but there: {self.name}"
            check_record(server, [self.file], listed)

    def go_on(self, server: Server) -> None:
        if not self.path:
            return
        reply = ask(server, "HEAD", self.path, **self._own())
        assert reply.status in (200, 204), (self.name, reply)
        self.hear(int(reply.headers["Upload-Offset"]))
        if self.told < self.file.size:
            assert self.append(server, self.file.data[self.told :]), (self.name, self.replies[-1])
        elif self.dialect == "rufh":
            assert reply.headers["Upload-Complete"] == "?1"
        self.complete = True


class Removal(Operation):
    """A DELETE of a file."""

    def __init__(self, name: str, size: int = 70_000) -> None:
        super().__init__(name)
        self.file = content(name, size)

    def prepare(self, server: Server) -> None:
        reply = ask(server, "PUT", f"/files/{self.name}", self.file.data)
        assert reply.status == 201
        self.id = json.loads(reply.body)["id"]

    def _run(self, server: Server) -> None:
        self._ask(server, "DELETE", f"/files/{self.id}")

    def check(self, server: Server, listed: Listed) -> None:
        if self.replies and self.replies[0].status == 204:
            assert self.name not in listed, f"deleted, but there: {self.name}"
        if self.name in listed:
            check_record(server, [self.file], listed)


class Hiding(Removal):
    """A DELETE of a file that can be undone, and is."""

    def _run(self, server: Server) -> None:
        self._ask(server, "DELETE", f"/files/{self.id}?undo")

    def check(self, server: Server, listed: Listed) -> None:
        if self.replies and self.replies[-1].status == 202:
            assert self.name not in listed, f"deleted, but there: {self.name}"
        if self.name in listed:
            check_record(server, [self.file], listed)

    def go_on(self, server: Server) -> None:
        """It is there or can be brought back, whatever happened."""
        there = self.name in listing(server)
        assert ask(server, "POST", f"/files/{self.id}/undo").status == (404 if there else 204), self.name
        check_record(server, [self.file], listing(server))
        self.replies.clear()


class Undoing(Hiding):
    """What undoes that."""

    def prepare(self, server: Server) -> None:
        super().prepare(server)
        assert ask(server, "DELETE", f"/files/{self.id}?undo").status == 202

    def _run(self, server: Server) -> None:
        self._ask(server, "POST", f"/files/{self.id}/undo")

    def check(self, server: Server, listed: Listed) -> None:
        if self.replies and self.replies[0].status == 204:
            assert self.name in listed, f"brought back, but not there: {self.name}"
        if self.name in listed:
            check_record(server, [self.file], listed)


class Renaming(Removal):
    """A PATCH of a file's record."""

    def _run(self, server: Server) -> None:
        change = json.dumps({"filename": f"{self.name}-new"}).encode()
        self._ask(server, "PATCH", f"/files/{self.id}", change, Content_Type="application/merge-patch+json")

    def check(self, server: Server, listed: Listed) -> None:
        new = f"{self.name}-new"
        assert (self.name in listed) != (new in listed), f"lost, or twice: {self.name}"
        if self.replies and self.replies[0].status == 200:
            assert new in listed, f"changed, but not there: {self.name}"
        if new in listed:
            listed = {**listed, self.name: listed[new]}
        check_record(server, [self.file], listed)


def check_record(server: Server, files: list[Content], listed: Listed) -> None:
    """These are listed with their size and digest, and downloads are identical."""
    for file in files:
        record = listed[file.name]
        assert (record["size"], record["sha256"]) == (file.size, file.sha256), file.name
    check_bytes(server, files, listed)


UPLOADS: dict[str, Callable[[str], Operation]] = {
    "put": lambda name: OneShot(name, LARGE),
    "form": lambda name: OneShot(name, 0, 5_000, 70_000),
    "tus": lambda name: Resumable(name, "tus"),
    "draft": lambda name: Resumable(name, "rufh"),
}
OPERATIONS: dict[str, Callable[[str], Operation]] = {
    **UPLOADS,
    "delete": Removal,
    "hide": Hiding,
    "undo": Undoing,
    "patch": Renaming,
}
INLINE_UPLOADS: dict[str, Callable[[str], Operation]] = {
    "put": lambda name: OneShot(name, 1_000),
    "form": lambda name: OneShot(name, 0, 5_000, 4_000, 70_000),
}
"""The same where the index keeps up to 4096 bytes."""
INLINE_OPERATIONS: dict[str, Callable[[str], Operation]] = {
    **INLINE_UPLOADS,
    "delete": lambda name: Removal(name, 1_000),
    "hide": lambda name: Hiding(name, 1_000),
    "undo": lambda name: Undoing(name, 1_000),
    "patch": lambda name: Renaming(name, 1_000),
}


@dataclass(frozen=True)
class Way:
    """A setting of the servers, what is asked of them, and how many points each sweep over a store tries."""

    env: dict[str, str]
    operations: Mapping[str, Callable[[str], Operation]]
    points: int
