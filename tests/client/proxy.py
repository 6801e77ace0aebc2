"""A proxy between a client and a server that counts, holds and cuts what passes, request by request."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_READ = 64 * 1024


@dataclass
class Request:
    """One request as it passed, and what was answered."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int
    sent: int = 0
    """Bytes of its body that the client sent."""
    status: int | None = None
    answer: dict[str, str] = field(default_factory=dict)
    received: int = 0
    """Bytes of the answer's body that the server sent."""

    @property
    def running(self) -> bool:
        return self.status is None


class _Frames:
    """Tells heads from bodies in one direction of a connection. Every body here has a Content-Length."""

    def __init__(self, on_head: Callable[[str, dict[str, str]], int], on_body: Callable[[int], None]) -> None:
        self._on_head = on_head
        self._on_body = on_body
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> None:
        while data:
            if self._left:
                size = min(self._left, len(data))
                self._left -= size
                self._on_body(size)
                data = data[size:]
                continue
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._left = self._on_head(first, headers)


class Proxy:
    """Listens on the loopback interface for connections to `port`."""

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.cut_up: list[int] = []
        """After so many bytes of bodies in all, each connection is cut, once."""
        self.cut_down: list[int] = []
        self.cut_answer_to: set[str] = set()
        """The answer to the next request of such a method is lost."""
        self.hold_at: int | None = None
        """Once so many bytes of bodies came from clients, no more are read."""
        self.sent = 0
        self.received = 0
        self.ends: set[socket.socket] = set()
        """Of connections that still pass something on."""
        self._port = port
        self._lock = threading.Lock()
        self._go_on = threading.Condition(self._lock)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def held(self) -> bool:
        return self.hold_at is not None and self.sent >= self.hold_at

    def of(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def release(self, hold_at: int | None = None) -> None:
        with self._lock:
            self.hold_at = hold_at
            self._go_on.notify_all()

    def cut(self) -> None:
        """Resets every connection, to both sides."""
        with self._lock:
            connections, self._sockets = self._sockets, []
        for connection in connections:
            _reset(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._port), 60)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets += [client, server]
            pending: list[Request] = []
            up, down = self._upward(pending, number), self._downward(pending)
            for source, sink, frames, is_up in ((client, server, up, True), (server, client, down, False)):
                threading.Thread(target=self._pump, args=(source, sink, frames, is_up), daemon=True).start()

    def _upward(self, pending: list[Request], number: int) -> _Frames:
        last: list[Request] = []

        def head(first: str, headers: dict[str, str]) -> int:
            method, path, _ = first.split(" ")
            last[:] = [Request(method, path, headers, number)]
            pending.append(last[0])
            self.requests.append(last[0])
            return int(headers.get("content-length", 0))

        def body(size: int) -> None:
            last[0].sent += size
            self.sent += size

        return _Frames(head, body)

    def _downward(self, pending: list[Request]) -> _Frames:
        last: list[Request] = []

        def head(first: str, headers: dict[str, str]) -> int:
            status = int(first.split(" ")[1])
            if status < 200:
                return 0
            request = pending.pop(0)
            last[:] = [request]
            request.status, request.answer = status, headers
            if request.method in self.cut_answer_to:
                self.cut_answer_to.discard(request.method)
                raise ConnectionResetError
            bodiless = request.method == "HEAD" or status in (204, 304)
            return 0 if bodiless else int(headers.get("content-length", 0))

        def body(size: int) -> None:
            last[0].received += size
            self.received += size

        return _Frames(head, body)

    def _pump(self, source: socket.socket, sink: socket.socket, frames: _Frames, is_up: bool) -> None:  # noqa: FBT001
        self.ends.add(source)
        try:
            while data := source.recv(_READ):
                with self._lock:
                    frames.feed(data)
                    self._note(is_up)
                    while is_up and self.held:
                        self._go_on.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                _reset(end)
        finally:
            self.ends.discard(source)

    def _note(self, is_up: bool) -> None:  # noqa: FBT001
        """Raises ConnectionResetError where the connection is to be cut."""
        passed, cuts = (self.sent, self.cut_up) if is_up else (self.received, self.cut_down)
        if cuts and passed >= cuts[0]:
            cuts.pop(0)
            raise ConnectionResetError


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
