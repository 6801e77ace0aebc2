from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.conftest import PATIENCE, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Ear, Serve, Spool

GET = b"GET /files HTTP/1.1\r\nHost: localhost\r\n\r\n"
PUT = b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n"

UNREADABLE = [
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"BREW /files HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00B: c\r\n\r\n",
    b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551617\r\n\r\na",
]
"""Heads that are refused before there is a request."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # what aiohttp does inside has no event
            await asyncio.sleep(0.001)


class TestUnreadableHead:
    @pytest.mark.parametrize("head", UNREADABLE, ids=lambda head: repr(head[:60]))
    async def test_is_answered_with_a_problem(self, spool: Spool, head: bytes) -> None:
        answer = await spool.raw(head)
        assert answer.split()[1] == b"400"
        fields, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in fields
        document = json.loads(body)
        assert (document["type"], document["status"]) == ("/problems/bad-request", 400)
        assert await spool.nothing_is_left()

    async def test_is_logged_as_a_request_that_was_refused(self, ear: Ear, spool: Spool) -> None:
        for head in UNREADABLE:
            await spool.raw(head)
        assert (await ear.event("request.finished", len(UNREADABLE)))["status"] == 400
        assert not ear.tracebacks

    async def test_is_not_quoted(self, spool: Spool) -> None:
        answer = await spool.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: <script>swordfish</script>\x00\r\n\r\n")
        assert answer.split()[1] == b"400"
        assert b"swordfish" not in answer


class TestHalfClose:
    """A client that closes its side has said all it has to say, and waits."""

    async def test_right_after_a_request_gets_the_answer(self, spool: Spool) -> None:
        answer = await spool.raw(GET, half_close=True)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b'{"files": [], "next": null}')

    async def test_right_after_a_body_gets_the_answer(self, spool: Spool) -> None:
        answer = await spool.raw(PUT + TEXT, half_close=True)
        assert answer.startswith(b"HTTP/1.1 201")
        assert await spool.listed() == ["a"]

    async def test_while_the_body_is_taken_gets_the_answer(self, spool: Spool) -> None:
        reader, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        writer.write(PUT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(TEXT)
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 201")
        writer.close()

    async def test_during_a_download_gets_all_of_it(self, spool: Spool) -> None:
        record = await spool.stored("a.bin", bytes(500_000))
        request = f"GET /media/{record['id']}/a HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        assert (await spool.raw(request, half_close=True)).endswith(bytes(500_000))

    async def test_without_a_request_ends_the_connection(self, spool: Spool) -> None:
        assert await spool.raw(b"", half_close=True) == b""

    async def test_in_the_middle_of_a_head_ends_the_connection(self, spool: Spool) -> None:
        assert await spool.raw(GET[:-4], half_close=True) == b""

    async def test_in_the_middle_of_a_body_ends_the_upload(self, spool: Spool) -> None:
        assert b"201" not in await spool.raw(PUT + TEXT[:-1], half_close=True)
        assert await spool.site.traffic.drain(5)
        spool.site.traffic.draining = False
        assert await spool.nothing_is_left()

    async def test_after_several_requests_gets_all_answers(self, spool: Spool) -> None:
        answer = await spool.raw(GET * 3 + PUT + TEXT + GET, half_close=True)
        assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"] * 3 + [b"201", b"200"]

    async def test_after_more_requests_than_are_queued_gets_all_answers(self, spool: Spool) -> None:
        answer = await spool.raw(GET * 200, half_close=True)
        assert len(re.findall(rb"HTTP/1.1 200 ", answer)) == 200

    async def test_after_a_request_and_a_part_of_one_ends(self, spool: Spool) -> None:
        await spool.raw(GET + GET[:-4], half_close=True)


class TestHead:
    """Whoever takes too long over one, or makes it too large, is told so and let go."""

    @pytest.fixture
    async def quick(self, serve: Serve) -> Spool:
        return await serve({"limits.head_timeout": "1s"})

    async def test_that_is_not_complete_in_time_is_refused(self, quick: Spool) -> None:
        answer = await quick.raw(GET[:-4])
        assert answer.split()[1] == b"408"
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems/request-timeout"

    async def test_that_never_begins_is_given_up_without_a_word(self, quick: Spool) -> None:
        assert await quick.raw(b"") == b""

    async def test_that_follows_a_request_has_its_own_time(self, quick: Spool) -> None:
        reader, writer = await asyncio.open_connection(quick.client.host, quick.client.port)
        writer.write(GET)
        assert await reader.readuntil(b'"next": null}')
        writer.write(GET[:-4])
        assert (await reader.read()).split()[1] == b"408"
        writer.close()

    async def test_that_comes_in_pieces_in_time_is_served(self, quick: Spool) -> None:
        reader, writer = await asyncio.open_connection(quick.client.host, quick.client.port)
        for piece in (GET[:1], GET[1:20], GET[20:]):
            writer.write(piece)
            assert (await quick.get("/healthz")).status == 200  # by then it has been read
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    async def test_that_is_complete_leaves_the_body_its_own_time(self, quick: Spool) -> None:
        reader, writer = await asyncio.open_connection(quick.client.host, quick.client.port)
        writer.write(PUT)
        reading = asyncio.ensure_future(reader.read(12))
        assert await asyncio.wait([reading], timeout=1.5) == (set(), {reading})
        writer.write(TEXT)
        assert await reading == b"HTTP/1.1 201"
        writer.close()

    async def test_that_is_too_large_is_refused(self, spool: Spool) -> None:
        answer = await spool.raw(GET[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8000) for n in range(20)))
        assert answer.split()[1] == b"400"
        assert b"larger than 131072 bytes" in answer


class TestAnswer:
    async def test_of_which_little_is_left_to_take_is_given_up_too(self, serve: Serve) -> None:
        """aiohttp is done with such an answer, and asyncio by itself waits for ever until it can close."""
        spool = await serve({"limits.idle_timeout": "1s"})
        for turn in range(4):
            await spool.stored(f"{turn}?m={'x' * 4000}")
        server: Any = spool.client.server.runner.server
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((spool.client.host, spool.client.port))
        await until(lambda: len(server.connections) == 2)
        connection = server.connections[-1]
        for served in range(server.requests_count, 1000):
            client.send(GET)
            await until(lambda served=served: server.requests_count > served and not connection._current_request)
            if connection.transport.get_write_buffer_size():
                break
        assert 0 < connection.transport.get_write_buffer_size() < 64 * 1024
        await until(lambda: connection not in server.connections)
        client.close()


class TestCrowd:
    """Connections beyond `limits.max_connections`."""

    async def test_is_refused_with_a_problem_and_let_in_later(self, serve: Serve, ear: Ear) -> None:
        spool = await serve({"limits.max_connections": 2})
        connections = [await asyncio.open_connection(spool.client.host, spool.client.port) for _ in range(2)]
        answer = await spool.raw(GET)
        fields, _, body = answer.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert {b"Connection: close", b"Retry-After: 5"} <= set(fields.split(b"\r\n"))
        assert json.loads(body)["type"] == "/problems/unavailable"
        assert (await ear.event("connections.refused"))["limit"] == 2
        for reader, writer in connections:
            writer.close()
            assert await reader.read() == b""
        assert (await spool.get("/healthz")).status == 200

    async def test_is_answered_however_many_were_before(self, serve: Serve) -> None:
        spool = await serve({"limits.max_connections": 1})
        _, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        for _ in range(40):  # more than are answered at the same time
            assert (await spool.raw(GET)).startswith(b"HTTP/1.1 503 ")
        writer.close()


async def test_connection_serves_one_request_after_another(spool: Spool) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = await spool.raw(GET + PUT + TEXT + last)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"201", b"200"]
