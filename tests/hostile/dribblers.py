"""Clients that dribble a byte a second, many at once, in a process of their own: `python -m tests.hostile.dribblers`.

Prints `ready` when all of them have begun; when all have ended, a JSON object of what became of them: for each way of
dribbling, how many got which status. A connection that ends without an answer has the status 0.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

HOST: Final = b"Host: localhost\r\n"
FORM: Final = b"POST /files HTTP/1.1\r\n" + HOST + b"Content-Type: multipart/form-data; boundary=b\r\n"
PART: Final = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
LONG: Final = b"Content-Length: 1000000\r\n"
PUT: Final = b"PUT /files/a HTTP/1.1\r\n" + HOST
CHUNKED: Final = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
TUS: Final = HOST + b"Tus-Resumable: 1.0.0\r\n"
DRAFT: Final = HOST + b"Upload-Draft-Interop-Version: 8\r\n"
OPENING: Final = 64
"""How many connect at the same time."""
PATIENCE: Final = 60
"""Seconds after which the server has failed to end a connection."""


@dataclass(frozen=True)
class Way:
    """How to dribble: what comes first, and then again and again, a byte a second."""

    first: bytes
    then: bytes
    create: bytes = b""
    """The request that makes the resumable upload whose address stands for LOCATION in `first`."""
    ends_as: tuple[int, ...] = (408,)
    """The statuses that it may end with."""


WAYS: Final = {
    "head": Way(b"GET /files HTTP/1.1\r\n" + HOST + b"X-Slow: ", b"a"),
    "request line": Way(b"GET /", b"a"),
    "empty lines": Way(b"", b"\r\n"),
    "part headers": Way(FORM + LONG + b"\r\n--b\r\nContent-Disposition: form-data; x=", b"a"),
    "preamble": Way(FORM + LONG + b"\r\n", b"a"),
    "form": Way(FORM + LONG + b"\r\n" + PART, b"a"),
    "epilogue": Way(FORM + LONG + b"\r\n" + PART + b"a\r\n--b--\r\n", b"a"),
    "PUT": Way(PUT + LONG + b"\r\n", b"a"),
    "chunked": Way(CHUNKED, b"1\r\na\r\n"),
    "chunk size": Way(CHUNKED, b"0"),
    "chunk extension": Way(CHUNKED + b"1;", b"a"),
    "trailers": Way(CHUNKED + b"1\r\na\r\n0\r\nX-Slow: ", b"a"),
    "tus": Way(
        b"PATCH LOCATION HTTP/1.1\r\n"
        + TUS
        + LONG
        + b"Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n\r\n",
        b"a",
        b"POST /tus HTTP/1.1\r\n" + TUS + b"Upload-Length: 1000000\r\nContent-Length: 0\r\n\r\n",
        (503,),  # tus clients take a 408 for final
    ),
    "draft": Way(
        b"PATCH LOCATION HTTP/1.1\r\n"
        + DRAFT
        + LONG
        + b"Upload-Offset: 0\r\nUpload-Complete: ?1\r\nContent-Type: application/partial-upload\r\n\r\n",
        b"a",
        b"POST /files HTTP/1.1\r\n" + DRAFT + b"Upload-Complete: ?0\r\nContent-Length: 0\r\n\r\n",
    ),
    "record": Way(
        b"PATCH /files/ID HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 1000\r\nContent-Type: application/merge-patch+json\r\n\r\n",
        b" ",
    ),
    "refused": Way(b"PUT /nowhere/a HTTP/1.1\r\n" + HOST + LONG + b"\r\n", b"a", ends_as=(404,)),
    "body of a GET": Way(b"GET /files HTTP/1.1\r\n" + HOST + LONG + b"\r\n", b"a", ends_as=(200,)),
    "silence": Way(b"", b"", ends_as=(0,)),
    "silent body": Way(PUT + b"Content-Length: 10\r\n\r\n", b""),
}


async def dribble(port: int, way: Way, gate: asyncio.Semaphore) -> int:
    """The status that the connection ends with."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        first = way.first
        if way.create:
            writer.write(way.create)
            made = await reader.readuntil(b"\r\n\r\n")
            location = re.search(rb"(?i)\r\nLocation: (\S+)", made)
            assert location, made
            first = first.replace(b"LOCATION", location[1])
        writer.write(first)
    answer = bytearray()
    reading = asyncio.ensure_future(read(reader, answer))
    for turn in range(PATIENCE):
        if way.then and not writer.is_closing():
            writer.write(way.then[turn % len(way.then) :][:1])
        if (await asyncio.wait([reading], timeout=1))[0]:
            break
    writer.transport.abort()
    await reading
    statuses = re.findall(rb"^HTTP/1.\d (\d+)", answer, re.MULTILINE)
    return int(statuses[-1]) if statuses else 0


async def read(reader: asyncio.StreamReader, answer: bytearray) -> None:
    """All that comes, also before a reset: a byte that was sent to a server that had just closed provokes one."""
    with suppress(ConnectionResetError):
        while data := await reader.read(65536):
            answer += data


async def main(port: int, each: int, id: str, names: list[str]) -> None:
    """`each` connections of each way, of those that are named or of all; `id` is that of a file."""
    ways = {name: WAYS[name] for name in names or WAYS}
    gate = asyncio.Semaphore(OPENING)
    runs: dict[asyncio.Task[int], str] = {}
    async with asyncio.TaskGroup() as group:
        for _ in range(each):
            for name, way in ways.items():
                started = Way(way.first.replace(b"/ID ", f"/{id} ".encode()), way.then, way.create)
                runs[group.create_task(dribble(port, started, gate))] = name
        await asyncio.sleep(0)  # the gate lets in one after another: whoever comes last is let in last
        async with gate:
            print("ready", flush=True)  # noqa: T201  # to who started it
    ended: dict[str, Counter[int]] = defaultdict(Counter)
    for run, name in runs.items():
        ended[name][run.result()] += 1
    print(json.dumps(ended))  # noqa: T201


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
