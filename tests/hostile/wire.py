"""Raw requests over TCP, and a strict reader of what comes back."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal

BOUND = 60.0
"""Seconds in which every connection has to end. The server's own patience is set to two."""
PATIENCE = 0.25
"""Seconds after which a client that was told nothing closes its side."""
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ALIVE = b'{"status": "alive"}'

_STATUS_LINE = re.compile(rb"HTTP/(?:0\.9|1\.[01]|2\.0) ([1-5][0-9]{2}) [\t\x20-\x7e]*")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*)|)")

Ending = Literal["wait", "half", "reset"]


@dataclass(frozen=True)
class Message:
    """A request as it goes over the wire, and what is known of it."""

    data: bytes
    ending: Ending = "wait"
    """Reads to the end; closes its own side at once; or resets the connection."""
    answers: int = 1
    """The most requests that anybody could take it for."""
    bodies: tuple[bytes, ...] = ()
    """What it may rightly leave as files."""
    refused: bool = False
    """It must not succeed."""
    final: bool = False
    """Nothing that follows it on the connection may be answered."""

    @property
    def method(self) -> bytes:
        return self.data.lstrip(b"\r\n").partition(b" ")[0]


@dataclass(frozen=True)
class Reply:
    """One final answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


async def exchange(port: int, message: Message) -> bytes:
    """What the server sent until the connection's end, when the message is followed by a probe."""
    async with asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received = bytearray()
        with suppress(ConnectionError):  # a reset ends it as well, and comes where we sent more than was read
            if message.ending == "reset":
                _reset(writer, message.data)
            else:
                writer.write(message.data + PROBE)
                await _read_to_end(reader, writer, received, half_closes=message.ending == "half")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return bytes(received)


def _reset(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_to_end(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: bytearray, *, half_closes: bool
) -> None:
    """A client that waited for ever would only find the server's time limits, which other tests look at."""
    if half_closes:
        writer.write_eof()
    while True:
        try:
            async with asyncio.timeout(None if half_closes else PATIENCE):
                chunk = await reader.read(65536)
        except TimeoutError:
            chunk = None
        if chunk == b"":
            return
        received += chunk or b""
        if not half_closes and (chunk is None or b"connection: close" in received.lower()):
            writer.write_eof()
            half_closes = True


def parse_replies(data: bytes, *methods: bytes) -> list[Reply]:
    """The final answers to requests of these methods. Raises AssertionError for whatever is not strictly HTTP/1.1."""
    replies: list[Reply] = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"an answer's head is cut off: {head[:200]!r}"
        status, headers = _parse_head(head)
        if status < 200:
            assert status in (100, 104), head
            continue
        method = methods[len(replies)] if len(replies) < len(methods) else b""
        size = _body_size(status, headers, method, data)
        assert len(data) >= size, f"an answer's body is cut off: {head!r}"
        replies.append(Reply(status, headers, data[:size]))
        data = data[size:]
    return replies


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    assert status, f"not a status line: {first[:200]!r}"
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD_LINE.fullmatch(line)
        assert field, f"not a field line: {line[:200]!r}"
        name = field[1].decode("ascii").lower()
        assert name not in headers, f"{name} comes twice: {head!r}"
        headers[name] = field[2].decode("latin-1")
    return int(status[1]), headers


def _body_size(status: int, headers: dict[str, str], method: bytes, data: bytes) -> int:
    assert "transfer-encoding" not in headers, headers  # every answer's length is known before it is sent
    if status in (204, 304) or (method == b"HEAD" and "content-length" not in headers):
        return 0
    assert re.fullmatch("[0-9]+", headers.get("content-length", "")), headers
    # a head that could not be read has no method, and so its answer has a body
    if method == b"HEAD" and not (status == 400 and data.startswith(b"{")):
        return 0
    return int(headers["content-length"])
