"""A hundred uploads at once against the real server: together they pass no limit, and as many as fit are taken."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest

from tests.process import EFFORT, Server, curl, eventually, lacking, slowed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
MANY = 100
FIT = 10
SIZE = 3000
"""One batch, so that of uploads of unknown length none holds a part of what another one needs."""
DATA = b"x" * SIZE

Send = Callable[[aiohttp.ClientSession, str, int], Awaitable[tuple[int, str]]]
"""Sends one of many uploads; the status, and the slug of the problem if there is one."""


@contextmanager
def limited(directory: Path, **limits: object) -> Iterator[Server]:
    with Server(directory, env={f"SPOOL_LIMITS_{key}".upper(): str(value) for key, value in limits.items()}) as server:
        yield server


async def outcome(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    if answer.content_type != "application/problem+json":
        return answer.status, ""
    document: dict[str, Any] = await answer.json(content_type=None)
    return answer.status, document["type"].rpartition("/")[2]


async def chunked(data: bytes = DATA) -> AsyncIterator[bytes]:
    yield data[: len(data) // 2]
    await asyncio.sleep(0)
    yield data[len(data) // 2 :]


async def put(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
    async with session.put(f"{url}/files/{number}", data=DATA) as answer:
        return await outcome(answer)


async def put_chunked(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
    async with session.put(f"{url}/files/{number}", data=chunked()) as answer:
        return await outcome(answer)


async def post(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
    form = aiohttp.FormData()
    form.add_field("file", DATA, filename=str(number))
    async with session.post(f"{url}/files", data=form) as answer:
        return await outcome(answer)


async def create_tus(session: aiohttp.ClientSession, url: str, _number: int) -> tuple[int, str]:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE)}
    async with session.post(f"{url}/tus", headers=headers) as answer:
        return await outcome(answer)


async def create_rufh(session: aiohttp.ClientSession, url: str, _number: int) -> tuple[int, str]:
    headers = {"Upload-Draft-Interop-Version": "8", "Upload-Complete": "?0", "Upload-Length": str(SIZE)}
    async with session.post(f"{url}/files", headers=headers) as answer:
        return await outcome(answer)


SENDERS = [put, put_chunked, post, create_tus, create_rufh]


async def all_at_once(url: str, *sends: Send) -> Counter[tuple[int, str]]:
    """What a hundred uploads, of each kind as many, were answered."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(60):
        jobs = (sends[number % len(sends)](session, url, number) for number in range(MANY))
        return Counter(await asyncio.gather(*jobs))


BYTES = {"quota": FIT * SIZE + SIZE - 1}
"""So much that the framing of ten forms, which they reserve as their Content-Length has it, fits in too."""
FILES = {"quota_files": FIT}


@pytest.mark.parametrize(
    ("send", "limits"),
    [*((send, BYTES) for send in SENDERS), *((send, FILES) for send in (put_chunked, post, create_tus))],
    ids=lambda value: value.__name__ if callable(value) else next(iter(value)),
)
async def test_hundred_uploads_at_once_fill_a_quota_exactly(tmp_path: Path, send: Send, limits: dict[str, int]) -> None:
    with limited(tmp_path / "spool", **limits) as server:
        answers = await all_at_once(server.url, send)
        assert answers == {(201, ""): FIT, (413, "quota-exceeded"): MANY - FIT}
        server.kill()
        server.start()
        async with aiohttp.ClientSession() as session:
            assert await send(session, server.url, 0) == (413, "quota-exceeded")


@pytest.mark.parametrize("limits", [{"quota": FIT * SIZE}, {"quota_files": FIT}], ids=["bytes", "files"])
async def test_hundred_uploads_of_every_kind_pass_no_quota(tmp_path: Path, limits: dict[str, int]) -> None:
    for run in range(EFFORT):
        with limited(tmp_path / f"spool-{run}", **limits) as server:
            answers = await all_at_once(server.url, *SENDERS)
            assert set(answers) == {(201, ""), (413, "quota-exceeded")}
            assert answers[201, ""] <= FIT


async def test_hundred_uploads_at_once_get_the_slots_that_there_are(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield DATA
        await gate.wait()
        yield DATA

    refused = 0

    async def held(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
        nonlocal refused
        async with session.put(f"{url}/files/{number}", data=body(), expect100=True) as answer:
            refused += answer.status == 429
            if refused == MANY - FIT:
                gate.set()
            return await outcome(answer)

    with limited(tmp_path / "spool", uploads_per_principal=FIT) as server:
        assert await all_at_once(server.url, held) == {(201, ""): FIT, (429, "too-many"): MANY - FIT}


# the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, on which nobody else writes."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        lacking("a file system cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def free(disk: Path) -> int:
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


def index_size(disk: Path) -> int:
    return sum(path.stat().st_size for path in disk.glob("spool/index.db*"))


class Watch:
    """The least that was free while it watched, but for what the index has grown by: no reservation speaks of that."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._index = index_size(disk)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.least = free(disk)

    def _run(self) -> None:
        while not self._over.is_set():
            size = index_size(self._disk)
            self.least = min(self.least, free(self._disk) + size - self._index)
            time.sleep(0.0005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def with_room_for(disk: Path, size: int) -> Server:
    """A server on this disk whose limits leave room for so many bytes, and for its index."""
    with Server(disk / "spool") as server:
        server.stop()
    keep = free(disk) - size
    return Server(disk / "spool", env={"SPOOL_LIMITS_MIN_FREE_SPACE": str(keep)})


async def put_mib(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
    data = number.to_bytes(4) + bytes(MIB - 4)  # files with equal bytes would share a blob, and leave room for more
    async with session.put(f"{url}/files/{number}", data=data) as answer:
        return await outcome(answer)


async def create_mib(session: aiohttp.ClientSession, url: str, _number: int) -> tuple[int, str]:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(MIB)}
    async with session.post(f"{url}/tus", headers=headers) as answer:
        return await outcome(answer)


@pytest.mark.parametrize("send", [put_mib, create_mib], ids=lambda send: send.__name__)
async def test_hundred_uploads_at_once_leave_the_free_space(disk: Path, send: Send) -> None:
    room = FIT * MIB + MIB * 9 // 10
    with with_room_for(disk, room) as server:
        keep = free(disk) - room
        with Watch(disk) as watch:
            answers = await all_at_once(server.url, send)
    assert answers == {(201, ""): FIT, (507, "storage-full"): MANY - FIT}
    assert watch.least >= keep


def test_bytes_that_the_disk_does_not_show_yet_are_not_given_away(disk: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(bytes(40 * MIB))
    second.write_bytes(bytes(21 * MIB))
    with with_room_for(disk, 60 * MIB) as server, slowed(server, "writev", "delay_enter=100000"):
        with subprocess.Popen(
            ["curl", "-sS", "-T", str(first), f"{server.url}/files/"], stdout=subprocess.DEVNULL
        ) as put:
            eventually(server.staged)
            statuses = Counter([curl("-T", str(second), f"{server.url}/files/").status])
            while put.poll() is None:
                statuses[curl("-T", str(second), f"{server.url}/files/").status] += 1
                assert statuses.total() < 1000
        assert set(statuses) == {507}, statuses
        assert [file["filename"] for file in server.files()] == ["first"]


# what crashes and restarts leave


def spool(server: Server, *arguments: str) -> str:
    command = [sys.executable, "-m", "spool", *arguments, "--dir", str(server.dir)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_requests_are_counted_over_a_restart(tmp_path: Path) -> None:
    with limited(tmp_path / "spool", requests_per_minute=3) as server:
        for _ in range(2):
            assert curl(f"{server.url}/files").status == 200
        server.restart()
        assert curl(f"{server.url}/files").headers["ratelimit"].startswith('"requests";r=0;t=')
        answer = curl(f"{server.url}/files")
        assert (answer.status, answer.json["type"]) == (429, "/problems/rate-limited")
        assert 0 < int(answer.headers["retry-after"]) <= 60


def test_requests_that_were_written_are_counted_after_a_crash(tmp_path: Path) -> None:
    with limited(tmp_path / "spool", requests_per_minute=2) as server:
        assert curl(f"{server.url}/files").status == 200
        wal = server.dir / "index.db-wal"
        size = wal.stat().st_size
        eventually(lambda: wal.stat().st_size > size or None)
        server.signal(signal.SIGKILL)
        server.wait()
        server.start()
        assert [curl(f"{server.url}/files").status for _ in range(2)] == [200, 429]


def test_operator_limits_a_running_server(tmp_path: Path) -> None:
    with limited(tmp_path / "spool", quota="1 MiB") as server:
        assert spool(server, "limit", "set", "local", "--quota-files", "1", "--requests-per-minute", "4") == ""
        (tmp_path / "a.txt").write_bytes(DATA)
        answers = [curl("-T", str(tmp_path / "a.txt"), f"{server.url}/files/") for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 413]
        assert answers[1].headers["ratelimit-policy"] == '"requests";q=4;w=60'
        assert spool(server, "limit", "clear", "local") == ""
        assert "ratelimit" not in curl(f"{server.url}/files").headers


def test_upload_of_unknown_length_counts_until_its_row_does(tmp_path: Path) -> None:
    with limited(tmp_path / "spool", quota=2 * SIZE - 1) as server:
        tus = ("-H", "Tus-Resumable: 1.0.0")
        upload = curl("-X", "POST", *tus, "-H", "Upload-Defer-Length: 1", f"{server.url}/tus").headers["location"]
        append = (*tus, "-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream")
        with slowed(server, "fsync,fdatasync", "delay_enter=1500000"):
            command = ["curl", "-sS", "-X", "PATCH", *append, "--data-binary", DATA.decode(), upload]
            with subprocess.Popen(command) as patch:
                eventually(lambda: any("/incoming/" in target for target in server.descriptors()))
                eventually(lambda: sum(server.blobs().values()) > 0)
                assert patch.poll() is None
                assert curl("-X", "PUT", "--data-binary", DATA.decode(), f"{server.url}/files/a").status == 413
