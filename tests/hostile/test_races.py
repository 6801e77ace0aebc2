"""Many requests at the same upload, key or file at once, and requests at the wrong time."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.hostile.malformed import build, form_of, part
from tests.hostile.wire import BOUND, Reply, parse_replies
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 3 * EFFORT
MANY = 24
SIZE = 20_000
TUS = ((b"Tus-Resumable", b"1.0.0"),)
BYTES = (*TUS, (b"Content-Type", b"application/offset+octet-stream"))
LIMITS = {"SPOOL_LIMITS_IDLE_TIMEOUT": "5s", "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB", "SPOOL_LIMITS_MAX_UPLOADS": "1000"}


class Client:
    """Sends raw requests, each on its own connection, and keeps what was refused with a 5xx."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def send(
        self, method: bytes, target: bytes, *fields: tuple[bytes, bytes], body: bytes = b"", pieces: int = 1
    ) -> Reply:
        """The answer; status 0 where the connection ended without one."""
        async with asyncio.timeout(BOUND):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            data = build(method, target, [*fields, (b"Connection", b"close")], body)
            received = b""
            with suppress(ConnectionError):
                for at in range(pieces):
                    writer.write(data[len(data) * at // pieces : len(data) * (at + 1) // pieces])
                    await writer.drain()
                    await asyncio.sleep(0)
                received = await reader.read()
            writer.close()
        replies = parse_replies(received, method)
        assert len(replies) <= 1
        assert not replies or replies[0].status < 500, replies
        return replies[0] if replies else Reply(0, {}, b"")

    async def create(self, length: int, *fields: tuple[bytes, bytes]) -> bytes:
        """A tus upload; its path."""
        reply = await self.send(b"POST", b"/tus", *TUS, (b"Upload-Length", b"%d" % length), *fields)
        assert reply.status == 201, reply
        return b"/tus/" + reply.headers["location"].rpartition("/")[2].encode()

    async def patch(self, path: bytes, offset: int, body: bytes, pieces: int = 1) -> Reply:
        return await self.send(b"PATCH", path, *BYTES, (b"Upload-Offset", b"%d" % offset), body=body, pieces=pieces)

    async def partial(self, body: bytes) -> bytes:
        path = await self.create(len(body), (b"Upload-Concat", b"partial"))
        assert (await self.patch(path, 0, body)).status == 204
        return path

    async def concatenate(self, *paths: bytes) -> Reply:
        return await self.send(b"POST", b"/tus", *TUS, (b"Upload-Concat", b"final;" + b" ".join(paths)))


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """At the end every file is whole, and nothing else is left but what an unfinished upload may keep."""
    with Server(tmp_path_factory.mktemp("races") / "spool", env=LIMITS) as server:
        yield Client(server)
        eventually(lambda: server.staged() == 0)
        assert server.events("request.failed") == []
        assert contents(server).keys() == set(stored(server))
        assert len(list(server.dir.glob("blobs/*/*"))) == len(set(stored(server)))


def contents(server: Server) -> dict[str, bytes]:
    """Every blob by its digest."""
    return {sha256(content): content for path in server.dir.glob("blobs/*/*") for content in [path.read_bytes()]}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(server: Server) -> list[str]:
    return sorted(file["sha256"] for file in server.files())


async def test_of_many_patches_at_one_offset_one_is_the_file(client: Client) -> None:
    for round_ in range(ROUNDS):
        before = [file["id"] for file in client.server.files()]
        path = await client.create(SIZE)
        bodies = [bytes([65 + at]) * SIZE for at in range(MANY)]
        rng = random.Random(round_)
        heads = [client.send(b"HEAD", path, *TUS) for _ in range(MANY)]
        tasks = [client.patch(path, 0, body, rng.randrange(1, 9)) for body in bodies] + heads
        rng.shuffle(tasks)
        await asyncio.gather(*tasks)
        for _ in range(MANY):  # whoever comes last goes on where the others left it
            head = await client.send(b"HEAD", path, *TUS)
            offset = int(head.headers["upload-offset"])
            if offset == SIZE:
                break
            await client.patch(path, offset, b"z" * (SIZE - offset))
        (new,) = [file for file in client.server.files() if file["id"] not in before]
        content = contents(client.server)[new["sha256"]]  # which may be that of a round before
        assert len(content) == SIZE
        assert len(set(content.rstrip(b"z"))) <= 1  # the others' bytes are nowhere in it


async def test_delete_during_patches_leaves_the_file_or_nothing(client: Client) -> None:
    for round_ in range(ROUNDS * 3):
        before = len(client.server.files())
        path = await client.create(SIZE)
        rng = random.Random(round_)
        tasks = [client.patch(path, 0, b"x" * SIZE, rng.randrange(1, 40)) for _ in range(3)]
        tasks += [client.send(b"DELETE", path, *TUS) for _ in range(2)]
        rng.shuffle(tasks)
        await asyncio.gather(*tasks)
        assert (await client.send(b"DELETE", path, *TUS)).status in (204, 404, 410)
        assert (await client.send(b"HEAD", path, *TUS)).status in (404, 410)
        assert len(client.server.files()) in (before, before + 1)
    eventually(lambda: not list(client.server.dir.glob("incoming/*")))


async def test_patch_after_the_end_changes_nothing(client: Client) -> None:
    path = await client.create(5)
    assert (await client.patch(path, 0, b"hello")).status == 204
    before = stored(client.server)
    for offset, body in ((5, b"more"), (0, b"HELLO"), (5, b""), (4, b"o"), (10**17, b"x")):
        assert (await client.patch(path, offset, body)).status in (204, 400, 403, 409, 413)
    assert stored(client.server) == before == [sha256(b"hello")]


async def test_concatenation_of_what_is_not_whole_is_refused(client: Client) -> None:
    running = await client.create(SIZE, (b"Upload-Concat", b"partial"))
    assert (await client.patch(running, 0, b"half")).status == 204
    whole = await client.partial(b"whole")
    assert (await client.concatenate(whole, running)).status == 400
    final = await client.concatenate(whole)
    assert final.status == 201
    place = b"/tus/" + final.headers["location"].rpartition("/")[2].encode()
    assert (await client.concatenate(place)).status == 400
    assert (await client.concatenate(place, whole)).status == 400
    assert (await client.patch(place, 0, b"x")).status == 403
    assert stored(client.server) == [sha256(b"whole")]


async def test_concatenation_takes_thousands_of_parts(client: Client) -> None:
    path = await client.partial(b"ab")
    most = 64 * 1024 // (len(path) + 1) - 1
    reply = await client.concatenate(*[path] * most)
    assert reply.status == 201
    assert sha256(b"ab" * most) in stored(client.server)
    assert (await client.concatenate(*[path] * 10_000)).status == 400


async def test_concatenations_and_deletes_of_the_same_parts_give_whole_files(client: Client) -> None:
    for round_ in range(ROUNDS * 2):
        parts = [bytes([97 + at]) * 3000 for at in range(4)]
        paths = [await client.partial(data) for data in parts]
        before = len(client.server.files())
        rng = random.Random(round_)
        tasks = [client.concatenate(*paths) for _ in range(4)] + [client.send(b"DELETE", paths[2], *TUS)]
        tasks += [client.patch(paths[1], 3000, b"x"), client.patch(paths[1], 0, b"x")]
        rng.shuffle(tasks)
        replies = await asyncio.gather(*tasks)
        made = sum(reply.status == 201 for reply in replies)
        assert len(client.server.files()) == before + made
    assert set(stored(client.server)) <= {sha256(b"".join(parts))}


async def test_key_that_is_raced_for_stores_one_file(client: Client) -> None:
    for round_ in range(ROUNDS):
        before = len(client.server.files())
        key = (b"Idempotency-Key", b'"race-%d"' % round_)
        tasks = [client.send(b"PUT", b"/files/r", key, body=b"raced", pieces=at % 5 + 1) for at in range(MANY)]
        tasks += [client.send(b"PUT", b"/files/other", key, body=b"other") for _ in range(3)]
        replies = await asyncio.gather(*tasks)
        assert {reply.status for reply in replies} <= {201, 409, 422}
        assert len({reply.headers["location"] for reply in replies if reply.status == 201}) == 1
        assert len(client.server.files()) == before + 1


async def test_form_cut_in_its_last_boundary_stores_none_of_its_files(client: Client) -> None:
    parts = [part(b'form-data; name="f"; filename="%d"' % at, [], b"%d" % at * 100) for at in range(100)]
    form = form_of(parts, b"boundary")
    kind = (b"Content-Type", b"multipart/form-data; boundary=boundary")
    for cut in range(3, len(b"\r\n--boundary--\r\n") + 1, 4):
        assert (await client.send(b"POST", b"/files", kind, body=form[:-cut])).status == 400
    assert client.server.files() == []
    assert (await client.send(b"POST", b"/files", kind, body=form)).status == 201
    assert len(client.server.files()) == 100


async def test_changes_and_deletes_of_one_file_leave_it_or_nothing(client: Client) -> None:
    for round_ in range(ROUNDS):
        reply = await client.send(b"PUT", b"/files/c", body=b"changed")
        path = b"/files/" + reply.headers["location"].rpartition("/")[2].encode()
        kind = (b"Content-Type", b"application/json")
        tasks: list[Any] = [
            client.send(b"PATCH", path, kind, body=b'{"metadata": {"k%d": "v"}}' % at) for at in range(MANY)
        ]
        tasks += [client.send(b"GET", path + b"/content") for _ in range(4)]
        if round_ % 2:
            tasks += [client.send(b"DELETE", path) for _ in range(3)]
        random.Random(round_).shuffle(tasks)
        replies = await asyncio.gather(*tasks)
        assert {reply.status for reply in replies} <= {200, 204, 302, 404}
        left = await client.send(b"GET", path)
        assert left.status == (404 if round_ % 2 else 200)
        if left.status == 200:
            assert len(left.problem["metadata"]) == MANY


@pytest.mark.parametrize("complete", [b"?1", b"?0"])
async def test_draft_appends_at_one_offset_leave_one_of_them(client: Client, complete: bytes) -> None:
    for round_ in range(ROUNDS):
        reply = await client.send(b"POST", b"/files", (b"Upload-Complete", b"?0"))
        path = b"/uploads/" + reply.headers["location"].rpartition("/")[2].encode()
        fields = (
            (b"Upload-Offset", b"0"),
            (b"Upload-Complete", complete),
            (b"Content-Type", b"application/partial-upload"),
        )
        tasks = [
            client.send(b"PATCH", path, *fields, body=bytes([65 + at]) * SIZE, pieces=at % 7 + 1) for at in range(MANY)
        ]
        random.Random(round_).shuffle(tasks)
        replies = await asyncio.gather(*tasks)
        assert {reply.status for reply in replies} <= {201, 204, 400, 409}
        head = await client.send(b"HEAD", path)
        offset = int(head.headers["upload-offset"])
        if head.headers["upload-complete"] == "?0":
            last = (b"Upload-Offset", b"%d" % offset), (b"Upload-Complete", b"?1"), fields[2]
            done = await client.send(b"PATCH", path, *last, body=b"!" * (SIZE - offset))
            assert done.status == 201
        assert client.server.files()[0]["size"] == SIZE
