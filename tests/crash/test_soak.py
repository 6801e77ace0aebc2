"""Resumable uploads through a network that cuts, stalls and duplicates, to a server that is killed again and again."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UPLOADS = 40 * EFFORT
AT_ONCE = max(10, UPLOADS // 6)
LONGEST = 90.0  # seconds that the uploads may take together
KILL_EVERY = 2.0
TTL = 15  # seconds; a client is never away for as long
SIZES = (0, 1, 5_000, 300_000, 2_000_000, 6_000_000)
NOISE = Random(7).randbytes(2 * SIZES[-1])
PATIENCE = 3.0  # of a client with a connection on which nothing happens
PIECE = 32 * 1024
BUFFER = 32 * 1024  # of each socket, so that little is lost in the network itself

Address = tuple[str, int]


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that holds little on its way."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    end.setblocking(False)  # noqa: FBT003
    try:
        await asyncio.get_running_loop().sock_connect(end, address)
        reader, writer = await asyncio.open_connection(sock=end, limit=BUFFER)
    except BaseException:
        end.close()
        raise
    writer.transport.set_write_buffer_limits(BUFFER)
    return reader, writer


class Lost(Exception):
    """This connection is of no use any more."""


# The network


@dataclass
class Network:
    """A proxy. What it does to a connection it decides when the connection is made."""

    server: Server
    random: Random
    cuts: int = 0
    stalls: int = 0
    duplicates: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> asyncio.Server:
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        return await asyncio.start_server(self._accept, sock=listener, limit=BUFFER)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        ways: list[asyncio.StreamWriter] = [writer]
        try:
            await self._connect(reader, writer, ways)
        except OSError:
            pass
        finally:
            self.tasks.discard(task)
            for way in ways:
                if self.random.random() < 0.5:
                    way.close()
                else:
                    way.transport.abort()  # a reset

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ways: list[asyncio.StreamWriter]
    ) -> None:
        fate = self.random.choices(["pass", "cut", "stall", "double"], [4, 4, 2, 1])[0]
        budget = int(self.random.expovariate(1 / 300_000))
        answer, up = await connect(("127.0.0.1", self.server.port))
        ways.append(up)
        ends = [up]
        if fate == "double":
            self.duplicates += 1
            ignored, second = await connect(("127.0.0.1", self.server.port))
            ways.append(second)
            ends.append(second)
            drain = asyncio.create_task(_swallow(ignored))
            self.tasks.add(drain)
            drain.add_done_callback(self.tasks.discard)
        forth = asyncio.create_task(self._carry(reader, ends, fate, budget))
        back = asyncio.create_task(self._carry(answer, [writer], fate, budget))
        _, pending = await asyncio.wait([forth, back], return_when=asyncio.FIRST_COMPLETED)
        if fate == "double":
            await asyncio.sleep(0.05)  # the copy may go on when the first one is answered
        for task in pending:
            task.cancel()
        await asyncio.gather(forth, back, return_exceptions=True)

    async def _carry(
        self, reader: asyncio.StreamReader, ends: Sequence[asyncio.StreamWriter], fate: str, budget: int
    ) -> None:
        while piece := await reader.read(PIECE):
            budget -= len(piece)
            if budget < 0 and fate == "cut":
                self.cuts += 1
                ends[0].write(piece[: len(piece) // 2])
                return
            if budget < 0 and fate == "stall":
                self.stalls += 1
                await asyncio.sleep(self.random.uniform(0.2, 1.5 * PATIENCE))
                fate = "pass"
            for end in ends:
                end.write(piece)
                with suppress(OSError):
                    await end.drain()
            await asyncio.sleep(0.015)  # a network is slower than this machine


async def _swallow(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(PIECE):
            pass


# The clients


@dataclass
class Client:
    """One upload, and what its client was told."""

    name: str
    dialect: str
    data: bytes = field(repr=False)
    address: Address
    random: Random
    path: str | None = None
    told: int = 0
    sent: int = 0
    resent: int = 0
    attempts: int = 0
    creations: int = 0
    complete: bool = False
    high: int = 0
    """One past the last byte that was ever handed to the network for this upload."""

    async def run(self) -> None:
        while not self.complete:
            self.attempts += 1
            with suppress(Lost, OSError, TimeoutError):
                if self.path is None:
                    await self._create()
                else:
                    await self._resume()
            if not self.complete:
                await asyncio.sleep(self.random.uniform(0.02, 0.25))

    async def _create(self) -> None:
        self.creations += 1
        self.high = self.told = 0
        if self.dialect == "tus":
            value = base64.b64encode(self.name.encode()).decode()
            lines = ["Tus-Resumable: 1.0.0", f"Upload-Length: {len(self.data)}", f"Upload-Metadata: filename {value}"]
            if self.random.random() < 0.5:
                await self._ask("POST", "/tus", [*lines, "Content-Length: 0"])
            else:
                await self._ask("POST", "/tus", [*lines, "Content-Type: application/offset+octet-stream"], 0)
            return
        lines = [
            "Upload-Draft-Interop-Version: 8",
            "Upload-Complete: ?1",
            f'Content-Disposition: attachment; filename="{self.name}"',
            "Content-Type: application/x-noise",
        ]
        await self._ask("POST", "/files", lines, 0)

    async def _resume(self) -> None:
        assert self.path is not None
        own = "Tus-Resumable: 1.0.0" if self.dialect == "tus" else "Upload-Draft-Interop-Version: 8"
        status = await self._ask("HEAD", self.path, [own])
        if status >= 500 or status == 409:  # a doubled connection was faster: asked again
            return
        assert status in (200, 204), f"{self}: HEAD answered {status}"
        if self.complete:
            return
        lines = [own, f"Upload-Offset: {self.told}"]
        if self.dialect == "tus":
            lines.append("Content-Type: application/offset+octet-stream")
        else:
            lines += ["Content-Type: application/partial-upload", "Upload-Complete: ?1"]
        status = await self._ask("PATCH", self.path, lines, self.told)
        assert status in (200, 201, 204, 409) or status >= 500, f"{self}: PATCH answered {status}"

    async def _ask(self, method: str, path: str, lines: Sequence[str], start: int | None = None) -> int:
        """The status of the final answer. Raises Lost, OSError or TimeoutError."""
        body = b"" if start is None else self.data[start:]
        more = [] if start is None else [f"Content-Length: {len(body)}"]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, *more, "", ""]).encode()
        reader, writer = await connect(self.address)
        try:
            sending = asyncio.create_task(self._send(writer, head, body, start or 0))
            try:
                return await self._answers(reader, method)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter, head: bytes, body: bytes, start: int) -> None:
        writer.write(head)
        for place in range(0, len(body), PIECE):
            piece = body[place : place + PIECE]
            writer.write(piece)
            end = start + place + len(piece)
            self.resent += max(0, min(self.high, end) - (start + place))
            self.high = max(self.high, end)
            self.sent += len(piece)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, method: str) -> int:
        while True:
            async with asyncio.timeout(PATIENCE + len(self.data) / 2_000_000):
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                    raise Lost from error
            first, *lines = head.split("\r\n")
            status = int(first.split()[1])
            pairs = (line.partition(":") for line in lines if line)
            self._hear(status, {name.lower(): value.strip() for name, _, value in pairs}, method)
            if status >= 200:
                return status

    def _hear(self, status: int, headers: dict[str, str], method: str) -> None:
        if method == "POST" and self.path is None and "location" in headers and status in (104, 201):
            path = urlsplit(headers["location"]).path
            if path.startswith(("/tus/", "/uploads/")):
                self.path = path
            else:
                self.complete = True  # the final answer of the draft names the file
        if "upload-offset" in headers and (status < 300 or status == 409):
            told = int(headers["upload-offset"])
            assert self.told <= told <= len(self.data), f"{self}: was told {self.told}, and now {told}"
            self.told = told
        if self.dialect == "tus":
            self.complete |= status < 300 and "content-location" in headers and self.told == len(self.data)
        else:
            self.complete |= status in (200, 201, 204) and headers.get("upload-complete") == "?1"


def make_clients(address: Address) -> list[Client]:
    random = Random(11)
    clients = []
    for number in range(UPLOADS):
        name, size = f"noise-{number}", random.randint(0, random.choice(SIZES))
        start = random.randrange(SIZES[-1])
        data = (name.encode() + NOISE[start : start + size])[:size]
        clients.append(Client(name, ("tus", "rufh")[number % 2], data, address, Random(f"client {number}")))
    return clients


# The soak


async def kill_for_ever(server: Server, kills: list[float]) -> None:
    random = Random(13)
    while True:
        await asyncio.sleep(KILL_EVERY * random.uniform(0.6, 1.4))
        server.kill()
        kills.append(time.monotonic())
        await asyncio.shield(asyncio.to_thread(server.start))


async def soak(server: Server) -> tuple[list[Client], Network, int]:
    network = Network(server, Random(12))
    kills: list[float] = []
    async with await network.start() as proxy:
        clients = make_clients(proxy.sockets[0].getsockname())
        slots = asyncio.Semaphore(AT_ONCE)

        async def run(client: Client) -> None:
            async with slots:
                await client.run()

        killer = asyncio.create_task(kill_for_ever(server, kills))
        try:
            async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(run(client))
        except TimeoutError:
            late = [client for client in clients if not client.complete]
            raise AssertionError(f"not complete within {LONGEST:g} seconds: {late}") from None
        finally:
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
            for task in list(network.tasks):
                task.cancel()
            await asyncio.gather(*network.tasks, return_exceptions=True)
    return clients, network, len(kills)


def check_files(server: Server, clients: Sequence[Client]) -> int:
    """Every upload is there as it was sent; so is every other one that a lost answer has made its client repeat."""
    wanted = {client.name: client for client in clients}
    files = server.files()
    assert {file["filename"] for file in files} == set(wanted)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    for file in files:
        data = wanted[file["filename"]].data
        connection.request("GET", f"/media/{file['id']}/x")
        answer = connection.getresponse()
        assert answer.read() == data, f"not the bytes that were sent: {file}"
        assert file["sha256"] == hashlib.sha256(data).hexdigest(), f"not the digest of its bytes: {file}"
    connection.close()
    return len(files)


def test_all_uploads_arrive_whole(tmp_path: Path) -> None:
    env = {
        "SPOOL_LIMITS_UPLOAD_TTL": f"{TTL}s",
        "SPOOL_STORAGE_SWEEP_INTERVAL": "1s",
        "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
    }
    with Server(tmp_path / "spool", env=env) as server:
        start = time.monotonic()
        clients, network, kills = asyncio.run(soak(server))
        took = time.monotonic() - start
        if not server.running:
            server.start()
        eventually(lambda: {file["filename"] for file in server.files()} == {client.name for client in clients}, 30)
        sizes = {client.name: len(client.data) for client in clients}

        def swept() -> bool:
            blobs = sorted(server.blobs().values())
            staged = list(server.dir.glob("incoming/*"))
            contents = {file["sha256"]: sizes[file["filename"]] for file in server.files()}
            return not staged and blobs == sorted(contents.values())

        eventually(swept, TTL + 45)
        files = check_files(server, clients)
        broken = [line for line in server.log().splitlines() if '"level": "error"' in line or "Traceback" in line]
    total, sent = sum(sizes.values()), sum(client.sent for client in clients)
    summary = {
        "uploads": len(clients),
        "seconds": round(took, 1),
        "kills": kills,
        "cuts": network.cuts,
        "stalls": network.stalls,
        "duplicated": network.duplicates,
        "attempts": sum(client.attempts for client in clients),
        "creations": sum(client.creations for client in clients),
        "files": files,
        "bytes": total,
        "sent": sent,
        "sent again": sum(client.resent for client in clients),
    }
    print(f"\n{json.dumps(summary)}")  # noqa: T201  # the numbers are worth reading
    assert not broken, broken[:3]
    assert kills or took < KILL_EVERY * 1.4
    assert all(client.told in (0, len(client.data)) or client.complete for client in clients)
