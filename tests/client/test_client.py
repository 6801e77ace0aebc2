"""`spool.client` from Python: what its methods give, raise and survive, with a real server and with strange ones."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from collections import deque
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from spool.client import Busy, Changed, Client, Mismatch, StrangeAnswer, Unreachable
from spool.client.problems import is_passing, parse_problem
from spool.client.state import Note
from spool.errors import (
    BadType,
    CutOff,
    Forbidden,
    Internal,
    NotFound,
    OffsetMismatch,
    RateLimited,
    SpoolError,
    StorageFull,
    Unauthenticated,
    Unavailable,
)
from tests.client.proxy import Proxy
from tests.process import Server, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("client") / "spool") as running:
        yield running


@pytest.fixture
async def client(server: Server, tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(server.url, state=tmp_path / "state") as client:
        yield client


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


# against a real server


async def test_file_has_all_that_its_record_says(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"la la la")
    before = datetime.now(UTC)
    file = await client.put(path, metadata={"tag": ["a", "b"]}, media_type="text/x-song", expires=timedelta(hours=1))
    assert (file.filename, file.size, file.owner) == ("a.txt", 8, "local")
    assert (file.media_type, file.declared_type) == ("text/plain", "text/x-song")
    assert file.metadata == {"tag": ["a", "b"]}
    assert file.sha256 == hashlib.sha256(b"la la la").hexdigest()
    assert file.expires_at is not None
    assert before + timedelta(minutes=50) < file.expires_at < before + timedelta(minutes=70)
    assert await client.info(file.id) == await client.info(file.url) == file


@pytest.mark.parametrize("size", [0, 1, MIB, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 33 * MIB])
async def test_stream_of_any_length_arrives(client: Client, size: int) -> None:
    data = os.urandom(size)
    pieces = [data[start : start + 300_000] for start in range(0, size, 300_000)]
    file = await client.put(stream(*pieces), filename="stream")
    assert (file.size, file.sha256) == (size, hashlib.sha256(data).hexdigest())


async def test_file_object_is_sent_from_where_it_stands(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"head and body")
    with (tmp_path / "a.txt").open("rb") as file:
        file.seek(5)
        stored = await client.put(file)
    assert (stored.filename, stored.sha256) == ("a.txt", hashlib.sha256(b"and body").hexdigest())


async def test_bytes_in_memory_are_sent(client: Client) -> None:
    assert (await client.put(io.BytesIO(b"la la la"), filename="a.txt")).size == 8


async def test_progress_tells_what_was_sent_and_ends_with_all_of_it(client: Client, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    (tmp_path / "a.bin").write_bytes(bytes(MIB))
    file = await client.put(tmp_path / "a.bin", progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert told[-1] == (MIB, MIB)
    told.clear()
    await client.get(file.id, tmp_path / "copy", progress=lambda *step: told.append(step))
    assert told[-1] == (MIB, MIB)


async def test_list_gives_every_file_over_many_pages(client: Client) -> None:
    slots = asyncio.Semaphore(16)

    async def put(number: int) -> str:
        async with slots:
            return (await client.put(io.BytesIO(b"x"), filename=f"page {number}.txt")).id

    ids = await asyncio.gather(*map(put, range(130)))
    found = [file async for file in client.list(filename="page *.txt")]
    assert {file.id for file in found} == set(ids)
    assert [file.created_at for file in found] == sorted((file.created_at for file in found), reverse=True)
    names = [file.filename async for file in client.list(filename="page 1?.txt", sort="filename", order="asc")]
    assert names == [f"page 1{n}.txt" for n in range(10)]
    assert [file async for file in client.list(filename="page *", until=datetime(2020, 1, 1, tzinfo=UTC))] == []


async def test_deleted_file_is_not_found(client: Client) -> None:
    file = await client.put(io.BytesIO(b"x"))
    await client.delete(file.id)
    for question in (client.info(file.id), client.delete(file.id), client.get(file.id, ".")):
        with pytest.raises(NotFound) as refused:
            await question
        assert refused.value.members["request_id"]


async def test_get_into_a_directory_replaces_nothing(client: Client, tmp_path: Path) -> None:
    file = await client.put(io.BytesIO(b"new"), filename="a.txt")
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        await client.get(file.id, tmp_path)
    assert not (tmp_path / "nowhere").exists()
    assert await client.get(file.id, tmp_path / "b.txt") == tmp_path / "b.txt"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b.txt"]


async def test_file_that_came_while_another_was_fetched_is_not_replaced(client: Client, tmp_path: Path) -> None:
    file = await client.put(io.BytesIO(b"new"), filename="a.txt")
    with pytest.raises(FileExistsError):
        await client.get(file.id, tmp_path, progress=lambda *_: (tmp_path / "a.txt").touch())
    assert (tmp_path / "a.txt").read_bytes() == b""


async def test_two_do_not_fetch_the_same_bytes_into_one_directory(server: Server, tmp_path: Path) -> None:
    data = os.urandom(64 * MIB)
    record = server.put("a.bin", data)
    async with Client(server.url) as client:
        copies = [client.get(record["id"], tmp_path / name) for name in "ab"]
        outcomes = await asyncio.gather(*copies, return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 1
    [copy] = [path for path in tmp_path.iterdir() if path.is_file()]
    assert copy.read_bytes() == data


async def test_cancelled_put_goes_on_with_the_next_one(server: Server, tmp_path: Path) -> None:
    data = os.urandom(8 * MIB)
    (tmp_path / "a.bin").write_bytes(data)
    with Proxy(server.port) as proxy:
        async with Client(proxy.url, state=tmp_path / "state") as client:
            proxy.hold_at = MIB
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as deadline:
                    await asyncio.gather(
                        client.put(tmp_path / "a.bin"), asyncio.to_thread(_then_expire, proxy, deadline)
                    )
            proxy.release()
            assert (await client.put(tmp_path / "a.bin")).sha256 == hashlib.sha256(data).hexdigest()
        assert len(proxy.of("POST")) == 1


def _then_expire(proxy: Proxy, deadline: asyncio.Timeout) -> None:
    eventually(lambda: proxy.held)
    deadline._task.get_loop().call_soon_threadsafe(deadline.reschedule, 0)  # type: ignore[union-attr]


# against one that says what it is told to

Reply = tuple[int, dict[str, str], bytes]


class Stub:
    """Answers requests in turn, and remembers them."""

    def __init__(self, *replies: Reply | None) -> None:
        """None closes the connection without an answer."""
        self.replies = deque(replies)
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        size = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")), 0)
        await reader.readexactly(size)
        reply = self.replies.popleft()
        if reply is not None:
            status, headers, body = reply
            lines = {"Content-Length": str(len(body)), "Connection": "close", **headers}
            text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{text}\r\n".encode() + body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def stubbed(*replies: Reply | None, tries: int = 3) -> AsyncIterator[tuple[Client, Stub]]:
    stub = Stub(*replies)
    listener = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, Client(stub.url, "secret", tries=tries) as client:
        yield client, stub


def problem(slug: str, status: int, retry_after: str | None = None, **members: object) -> Reply:
    document = {"type": f"/problems/{slug}", "title": "", "status": status, "detail": "So it is.", **members}
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return status, headers, json.dumps(document).encode()


def record(data: bytes, **members: object) -> bytes:
    known = {"id": "x", "filename": "a", "size": len(data), "media_type": "text/plain", "declared_type": None}
    known |= {"sha256": hashlib.sha256(data).hexdigest(), "created_at": "2026-01-01T00:00:00.000000Z"}
    known |= {"expires_at": None, "owner": "o", "metadata": {}, "damage": None, "grant": None}
    known |= {"url": "", "content_url": "", "new": 1}
    return json.dumps(known | members).encode()


CREATED: Reply = 201, {"Location": "https://other.example/base/uploads/abc", "Upload-Complete": "?0"}, b""


def at(offset: int) -> Reply:
    return 204, {"Upload-Offset": str(offset), "Upload-Complete": "?0"}, b""


def done(data: bytes, **members: object) -> Reply:
    return 201, {"Upload-Complete": "?1"}, record(data, **members)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (problem("not-found", 404), NotFound),
        (problem("rate-limited", 429, "7"), RateLimited),
        (problem("bad-type", 415, media_type="a/b"), BadType),
        (problem("something-newer", 418), StrangeAnswer),
        (
            (
                409,
                {},
                json.dumps(
                    {
                        "type": "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
                        "detail": "",
                        "expected-offset": 7,
                    }
                ).encode(),
            ),
            OffsetMismatch,
        ),
        ((502, {"Content-Type": "text/html"}, b"<html>"), Unavailable),
        ((404, {"Content-Type": "text/html"}, b"<html>"), StrangeAnswer),
        ((401, {}, b""), Unauthenticated),
        ((403, {}, b"[]"), StrangeAnswer),
        ((403, {}, b""), Forbidden),
    ],
)
def test_answer_becomes_the_error_that_it_stands_for(reply: Reply, kind: type[Exception]) -> None:
    assert type(parse_problem(*reply)) is kind


def test_problem_keeps_its_members_and_the_time_to_wait() -> None:
    error = parse_problem(*problem("rate-limited", 429, "7", limit=3, request_id="abc"))
    assert isinstance(error, RateLimited)
    assert (error.detail, error.retry_after) == ("So it is.", 7)
    assert error.members == {"limit": 3, "request_id": "abc"}


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (Unavailable(""), True),
        (RateLimited(""), True),
        (Internal(""), True),
        (CutOff(""), True),
        (StorageFull(""), False),
        (NotFound(""), False),
        (Unauthenticated(""), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: SpoolError, passing: bool) -> None:  # noqa: FBT001
    assert is_passing(error) == passing


async def test_question_is_asked_again_until_the_tries_are_used_up() -> None:
    async with stubbed(None, None, (200, {}, record(b"x"))) as (client, _):
        assert (await client.info("x")).size == 1
    async with stubbed(None, None, None) as (client, stub):
        with pytest.raises(Unreachable):
            await client.info("x")
    assert len(stub.asked) == 3


async def test_server_that_asks_to_wait_is_given_the_time() -> None:
    loop = asyncio.get_running_loop()
    async with stubbed(problem("unavailable", 503, "2"), (200, {}, record(b"x"))) as (client, _):
        start = loop.time()
        await client.info("x")
        assert loop.time() - start >= 2


async def test_refusal_is_not_asked_again() -> None:
    async with stubbed(problem("forbidden", 403)) as (client, stub):
        with pytest.raises(Forbidden):
            await client.info("x")
    assert len(stub.asked) == 1


async def test_delete_whose_answer_was_lost_is_done() -> None:
    async with stubbed(None, problem("not-found", 404)) as (client, _):
        await client.delete("x")


async def test_address_of_an_upload_is_taken_on_the_server_that_was_named() -> None:
    async with stubbed(CREATED, done(b"la")) as (client, stub):
        await client.put(io.BytesIO(b"la"), filename="a")
    assert stub.asked[1].startswith("PATCH /uploads/abc HTTP/1.1\r\n")


async def test_server_that_says_it_stored_other_bytes_is_not_believed() -> None:
    async with stubbed(CREATED, done(b"lo")) as (client, _):
        with pytest.raises(Mismatch):
            await client.put(io.BytesIO(b"la"))


async def test_rest_of_a_body_that_was_refused_is_not_sent(tmp_path: Path) -> None:
    received, ended = 0, asyncio.Event()
    size = 64 * MIB
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(size)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers, body = CREATED if head.startswith(b"POST") else problem("bad-type", 415)
        lines = "".join(f"{k}: {v}\r\n" for k, v in {**headers, "Content-Length": len(body)}.items())
        writer.write(f"HTTP/1.1 {status} X\r\nConnection: close\r\n{lines}\r\n".encode() + body)
        if head.startswith(b"PATCH"):
            with suppress(ConnectionError):
                while piece := await reader.read(MIB):
                    received += len(piece)
            ended.set()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, Client(f"http://127.0.0.1:{port}", tries=2) as client:
        with pytest.raises(BadType):
            await client.put(tmp_path / "a.bin")
        async with asyncio.timeout(60):
            await ended.wait()
    assert received < size


async def test_stream_that_the_server_lost_cannot_be_sent_again() -> None:
    large = bytes(16 * MIB)
    async with stubbed(CREATED, at(16 * MIB), None, at(5)) as (client, _):
        with pytest.raises(Changed):
            await client.put(stream(large, large))


async def test_stream_whose_upload_is_gone_cannot_be_sent_again() -> None:
    async with stubbed(CREATED, None, problem("gone", 410)) as (client, _):
        with pytest.raises(SpoolError):
            await client.put(stream(b"la"))


async def test_answer_without_an_offset_is_not_taken_for_one() -> None:
    async with stubbed(CREATED, (204, {}, b"")) as (client, _):
        with pytest.raises(StrangeAnswer):
            await client.put(stream(b"la"))


@pytest.mark.parametrize("answer", [at(1), at(2), at(3)])
async def test_server_that_took_less_or_more_than_was_sent_is_not_believed(answer: Reply, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"la")
    async with stubbed(CREATED, answer) as (client, _):
        with pytest.raises(StrangeAnswer):
            await client.put(tmp_path / "a")


async def test_server_that_forgets_every_upload_is_given_up_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"la")
    gone = problem("not-found", 404)
    async with stubbed(CREATED, gone, CREATED, gone) as (client, stub):
        with pytest.raises(NotFound):
            await client.put(tmp_path / "a")
    assert len(stub.asked) == 4


@pytest.mark.parametrize("status", [200, 204, 302])
async def test_answer_that_ends_early_is_not_asked_for_for_ever(tmp_path: Path, status: int) -> None:
    short = (status, {}, b"" if status == 204 else b"l")
    async with stubbed((200, {}, record(b"la la")), *[short] * 3) as (client, stub):
        with pytest.raises((Unreachable, StrangeAnswer)):
            await client.get("x", tmp_path / "a")
    assert len(stub.asked) <= 4


async def test_part_that_was_not_asked_for_is_not_taken(tmp_path: Path) -> None:
    first = (200, {"Content-Length": "5"}, b"la")
    other = (206, {"Content-Range": "bytes 1-4/5"}, b"a la")
    async with stubbed((200, {}, record(b"la la")), first, other) as (client, _):
        with pytest.raises(StrangeAnswer):
            await client.get("x", tmp_path / "a")


async def test_more_bytes_than_the_file_has_are_not_taken(tmp_path: Path) -> None:
    async with stubbed((200, {}, record(b"la")), (200, {}, bytes(MIB))) as (client, _):
        with pytest.raises(StrangeAnswer):
            await client.get("x", tmp_path / "a")


@pytest.mark.parametrize("url", ["", "spool.example.org", "ftp://spool.example.org"])
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\A"):
        Client(url)


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", ""])
def test_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Client("http://127.0.0.1", token)


async def test_reserved_names_are_no_metadata(client: Client) -> None:
    with pytest.raises(ValueError, match="sha256"):
        await client.put(io.BytesIO(b"x"), metadata={"sha256": "0" * 64})


async def test_address_of_another_server_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="another server"):
        await client.delete("https://spool.example.org/files/abc")


def test_note_that_nobody_can_read_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"upload": 7}', '{"upload": "//elsewhere"}'):
        note = Note.open(tmp_path, {"a": 1})
        os.pwrite(note._descriptor, text.encode(), 0)
        assert note.read() is None
        note.remove()
        note.close()


def test_note_that_is_too_old_for_any_server_is_forgotten(tmp_path: Path) -> None:
    old = Note.open(tmp_path, {"a": 1})
    old.write("/uploads/abc", "a")
    old.close()
    [path] = tmp_path.iterdir()
    os.utime(path, (0, 0))
    Note.open(tmp_path, {"a": 2}).close()
    assert list(tmp_path.iterdir()) == []
