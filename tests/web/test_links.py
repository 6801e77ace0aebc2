"""Downloads by people without an account: a link's time, its number of downloads, its end."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.web.site import SITE
from tests.store.gates import Gated, Gatekeeper
from tests.web.conftest import PNG, Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from tests.web.conftest import Ear, Serve, Spool

DATA = bytes(range(200)) * 5


async def made(spool: Spool, record: Mapping[str, Any], token: str | None = None, **members: object) -> Answer:
    headers = {"Content-Type": "application/json"}
    path = f"/files/{record['id']}/links"
    return await spool.request("POST", path, data=json.dumps(members), headers=headers, token=token)


async def linked(spool: Spool, record: Mapping[str, Any], **members: object) -> str:
    """The path of a new link's address."""
    answer = await made(spool, record, **members)
    assert answer.status == 201, answer.body
    return "/l/" + answer.json["url"].rpartition("/")[2]


async def ask(spool: Spool, path: str, spans: str = "") -> Answer:
    return await spool.get(path, headers={"Range": f"bytes={spans}"} if spans else {})


async def count(spool: Spool, record: Mapping[str, Any]) -> int:
    (link,) = (await spool.get(f"/files/{record['id']}/links")).json["links"]
    downloads: int = link["downloads"]
    return downloads


class TestMaking:
    async def test_address_is_told_once(self, spool: Spool) -> None:
        record = await spool.stored()
        answer = await made(spool, record, max_downloads=2, expires_at="2026-03-02")
        link = answer.json
        assert len(link.pop("url").rpartition("/")[2]) == 43
        assert link == {
            "id": link["id"],
            "file_id": record["id"],
            "created_by": "local",
            "created_at": link["created_at"],
            "expires_at": "2026-03-02T00:00:00.000000Z",
            "revoked_at": None,
            "max_downloads": 2,
            "downloads": 0,
        }
        assert (await spool.get(f"/files/{record['id']}/links")).json == {"links": [link]}

    async def test_says_nothing_and_lasts_a_week(self, spool: Spool) -> None:
        link = (await made(spool, await spool.stored())).json
        assert link["expires_at"].startswith("2026-03-08T12:00:00")
        assert (link["max_downloads"], link["downloads"]) == (None, None)

    @pytest.mark.parametrize(
        "members",
        [
            {"max_downloads": 0},
            {"max_downloads": True},
            {"max_downloads": "1"},
            {"max_downloads": 1.5},
            {"expires_at": "2026-02-01"},
            {"expires_at": 7},
            {"file_id": "x"},
        ],
    )
    async def test_what_cannot_be_meant_is_refused(self, spool: Spool, members: dict[str, object]) -> None:
        answer = await made(spool, await spool.stored(), **members)
        assert (answer.status, answer.slug) == (400, "bad-request")

    async def test_is_of_a_file_that_there_is(self, spool: Spool) -> None:
        assert (await made(spool, {"id": "x"})).status == 404

    async def test_is_for_whoever_may_read_and_ended_by_who_made_it(self, spool: Spool) -> None:
        owner = await spool.new_token("upload", "read", name="owner")
        maker, other = [await spool.new_token("read", name=name) for name in ("maker", "other")]
        record = await spool.stored(token=owner)
        assert (await made(spool, record, await spool.new_token("upload"))).status == 403
        for remover, status in ((other, 403), (maker, 204), (owner, 204)):
            link = (await made(spool, record, maker)).json
            path = f"/files/{record['id']}/links/{link['id']}"
            assert (await spool.request("DELETE", path, token=remover)).status == status
        elsewhere = await spool.stored(token=owner)
        path = f"/files/{elsewhere['id']}/links/{link['id']}"
        assert (await spool.request("DELETE", path, token=owner)).status == 404


class TestDownload:
    async def test_needs_no_token(self, spool: Spool) -> None:
        record = await spool.stored("x.png", PNG)
        path = await linked(spool, record)
        await spool.new_token("admin")
        answer = await ask(spool, path)
        assert (answer.status, answer.body) == (200, PNG)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert answer.headers["Content-Disposition"] == 'inline; filename="x.png"'
        assert (await spool.get(path + "?download")).headers["Content-Disposition"].startswith("attachment")

    async def test_has_ranges_and_conditions(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(data=DATA), max_downloads=1)
        answer = await ask(spool, path, "10-19")
        assert (answer.status, answer.body) == (206, DATA[10:20])
        assert answer.headers["Content-Range"] == "bytes 10-19/1000"
        assert (await ask(spool, path, "1000-")).status == 416
        etag = answer.headers["ETag"]
        assert (await spool.get(path, headers={"If-None-Match": etag})).status == 304
        assert (await spool.request("HEAD", path)).headers["Content-Length"] == "1000"

    async def test_ends_with_its_time_and_is_forgotten_later(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(), expires_at="2026-03-01T13:00:00Z")
        assert (await ask(spool, path)).status == 200
        spool.clock.time += timedelta(hours=1)
        answer = await ask(spool, path)
        assert (answer.status, answer.slug) == (410, "gone")

    async def test_browser_is_told_in_a_page_that_it_does_not_work(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(), expires_at="2026-03-01T13:00:00Z")
        spool.clock.time += timedelta(hours=1)
        await spool.new_token("admin")
        for address, status in ((path, 410), ("/l/unknown", 404)):
            answer = await spool.get(address, headers={"Accept": "text/html,*/*;q=0.8"})
            assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
            assert b"This link does not work" in answer.body
            assert b'href="/"' not in answer.body

    async def test_ends_when_it_is_revoked(self, spool: Spool) -> None:
        record = await spool.stored()
        link = (await made(spool, record)).json
        path = "/l/" + link["url"].rpartition("/")[2]
        for _ in range(2):
            revoked = await spool.request("DELETE", f"/files/{record['id']}/links/{link['id']}")
            assert revoked.status == 204
            assert (await ask(spool, path)).status == 410

    async def test_goes_with_its_file(self, spool: Spool) -> None:
        record = await spool.stored()
        path = await linked(spool, record)
        assert (await spool.request("DELETE", f"/files/{record['id']}")).status == 204
        assert (await ask(spool, path)).status == 404
        assert await spool.nothing_is_left()

    async def test_secret_that_nobody_has_is_not_found(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored())
        for wrong in (path[:-1], path + "x", "/l/x", "/l/%00"):
            assert (await ask(spool, wrong)).status == 404

    async def test_is_on_the_origin_of_all_content(self, serve: Serve) -> None:
        spool = await serve({"server.media_base_url": "https://media.example"})
        token = await spool.new_token("admin")
        record = await spool.stored(token=token)
        assert (await made(spool, record, token)).json["url"].startswith("https://media.example/l/")


class TestCount:
    async def test_whole_downloads_are_as_many_as_allowed(self, spool: Spool) -> None:
        record = await spool.stored(data=DATA)
        path = await linked(spool, record, max_downloads=2)
        assert [(await ask(spool, path)).status for _ in range(3)] == [200, 200, 410]
        assert await count(spool, record) == 2

    async def test_ranges_of_one_download_count_once(self, spool: Spool) -> None:
        record = await spool.stored(data=DATA)
        path = await linked(spool, record, max_downloads=1)
        spans = ["900-", *(f"{start}-{start + 99}" for start in range(0, 900, 100))]
        answers = await asyncio.gather(*(ask(spool, path, span) for span in spans))
        assert [answer.status for answer in answers] == [206] * 10
        assert await count(spool, record) == 1
        assert (await ask(spool, path)).status == 410

    async def test_many_at_once_get_no_more(self, spool: Spool) -> None:
        record = await spool.stored(data=DATA)
        path = await linked(spool, record, max_downloads=3)
        answers = await asyncio.gather(*(ask(spool, path) for _ in range(40)))
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(410)) == (3, 37)

    async def test_ranges_that_overlap_do_not_give_it_twice(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(data=DATA), max_downloads=1)
        answer = await ask(spool, path, "0-,-1000,-500")
        assert (answer.status, answer.body) == (200, DATA)  # such ranges are ignored
        assert (await ask(spool, path)).status == 410

    async def test_all_but_the_last_byte_is_not_for_ever(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(data=DATA), max_downloads=1)
        assert [(await ask(spool, path, "0-998")).status for _ in range(3)] == [206, 206, 410]

    async def test_empty_file_counts_too(self, spool: Spool) -> None:
        path = await linked(spool, await spool.stored(data=b""), max_downloads=2)
        assert [(await ask(spool, path)).status for _ in range(3)] == [200, 200, 410]

    async def test_head_costs_nothing(self, spool: Spool) -> None:
        record = await spool.stored()
        path = await linked(spool, record, max_downloads=1)
        for _ in range(3):
            assert (await spool.request("HEAD", path)).status == 200
        assert await count(spool, record) == 0

    async def test_download_that_breaks_off_is_given_back_and_can_go_on(self, spool: Spool) -> None:
        data = bytes(range(256)) * 2**16  # more than the buffers between us take
        record = await spool.stored(data=io.BytesIO(data))
        path = await linked(spool, record, max_downloads=1)
        reader, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        got = await reader.readexactly(100_000)
        assert await count(spool, record) == 1
        assert (await ask(spool, path)).status == 410
        writer.transport.abort()
        await given_back(spool, record)
        answer = await ask(spool, path, f"{len(got)}-")
        assert got + answer.body == data
        assert (await ask(spool, path)).status == 410

    async def test_client_that_vanishes_while_it_is_counted_costs_nothing(self, serve: Serve) -> None:
        gates = Gatekeeper()
        spool = await serve(prepare=lambda app: _answer_late(app, gates))
        record = await spool.stored()
        path = await linked(spool, record, max_downloads=1)
        gates.open = False
        _, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(60):
            await _waits(gates)  # the link is found
            await gates.let_through(0)
            await _waits(gates)  # the index has counted, and has not said so
            connections = len(spool.client.server.runner.server.connections)
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.transport.abort()
            while len(spool.client.server.runner.server.connections) == connections:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)
        await gates.settle()
        gates.open = True
        for gate in gates.waiting:
            if not gate.done():
                gate.set_result(None)
        await given_back(spool, record)


def _answer_late(app: web.Application, gates: Gatekeeper) -> None:
    app[SITE] = replace(app[SITE], index=_Late(app[SITE].index, gates))


class _Late(Gated):
    """What was asked is done, but its answer waits."""

    async def _call(self, verb: Any, values: Any, options: Any) -> Any:
        answer = await verb(*values, **options)
        await self._gates.enter()
        self._gates.leave()
        return answer


async def _waits(gates: Gatekeeper) -> None:
    while not gates.waiting:  # noqa: ASYNC110  # nobody else is told of it
        await asyncio.sleep(0)


async def given_back(spool: Spool, record: Mapping[str, Any]) -> None:
    async with asyncio.timeout(60):
        while await count(spool, record):  # noqa: ASYNC110  # nobody else is told of it
            await asyncio.sleep(0)


async def test_secrets_are_not_logged(ear: Ear, serve: Serve) -> None:
    spool = await serve()
    path = await linked(spool, await spool.stored())
    await ask(spool, path)
    await spool.get(path + "/nowhere")
    await ear.event("request.finished", 4)
    assert [event["path"] for event in ear.events("request.finished")][2:] == ["/l/...", "/l/.../nowhere"]
    assert path.removeprefix("/l/") not in repr([(record.msg, record.args) for record in ear.records])
    assert all(path.removeprefix("/l/").encode() not in p.read_bytes() for p in spool.dir.glob("index.db*"))


@pytest.mark.parametrize("path", ["/L/secret", "/l/./secret", "/files/" + "s" * 43])
async def test_address_that_is_not_quite_that_of_a_link_is_withheld_too(spool: Spool, path: str) -> None:
    assert (await ask(spool, path)).headers["Referrer-Policy"] == "no-referrer"
