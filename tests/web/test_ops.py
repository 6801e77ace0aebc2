from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from spool.errors import Unavailable
from spool.web.site import Readiness
from tests.web.conftest import Tap

if TYPE_CHECKING:
    from tests.web.conftest import Serve, Spool


class TestHealthz:
    async def test_lives(self, spool: Spool) -> None:
        assert (await spool.get("/healthz")).json == {"status": "alive"}

    async def test_lives_while_draining(self, spool: Spool) -> None:
        assert await spool.site.traffic.drain(0)
        assert (await spool.get("/healthz")).status == 200

    async def test_lives_while_the_store_fails(self, spool: Spool) -> None:
        await spool.index.aclose()
        assert (await spool.get("/healthz")).status == 200


class TestReadyz:
    async def test_is_ready_when_an_upload_could_be_stored(self, spool: Spool) -> None:
        answer = await spool.get("/readyz")
        assert (answer.status, answer.json) == (200, {"status": "ready"})
        assert await spool.nothing_is_left()

    async def test_is_ready_for_several_who_ask_at_once(self, spool: Spool) -> None:
        answers = await asyncio.gather(*(spool.get("/readyz") for _ in range(8)))
        assert [answer.status for answer in answers] == [200] * 8

    async def test_is_not_ready_while_draining(self, spool: Spool) -> None:
        assert await spool.site.traffic.drain(0)
        answer = await spool.get("/readyz")
        assert (answer.status, answer.slug) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0

    async def test_is_not_ready_below_the_headroom(self, serve: Serve) -> None:
        spool = await serve({"limits.min_free_space": 10**17})
        answer = await spool.get("/readyz")
        assert (answer.status, answer.slug) == (507, "storage-full")

    async def test_is_not_ready_when_the_index_fails(self, spool: Spool) -> None:
        await spool.index.aclose()
        assert (await spool.get("/readyz")).slug == "unavailable"

    async def test_is_not_ready_when_the_blobs_fail(self, spool: Spool) -> None:
        shutil.rmtree(spool.dir / "incoming")
        assert (await spool.get("/readyz")).slug == "unavailable"

    async def test_tells_a_stranger_nothing_of_the_machine(self, spool: Spool) -> None:
        shutil.rmtree(spool.dir / "incoming")
        assert str(spool.dir) not in (await spool.get("/readyz")).body.decode()


class TestReadiness:
    async def test_is_probed_once_for_all_who_ask_at_once(self) -> None:
        asked, go = 0, asyncio.Event()

        async def probe() -> None:
            nonlocal asked
            asked += 1
            await go.wait()

        readiness = Readiness(probe)
        askers = [asyncio.ensure_future(readiness.require()) for _ in range(5)]
        await asyncio.sleep(0)
        askers[0].cancel()
        go.set()
        await asyncio.gather(*askers[1:], readiness.require())
        assert asked == 1

    async def test_is_refused_to_all_and_probed_again_after_a_second(self) -> None:
        asked = 0

        async def probe() -> None:
            nonlocal asked
            asked += 1
            raise Unavailable(str(asked))

        readiness = Readiness(probe)
        for _ in range(3):
            with pytest.raises(Unavailable, match="1"):
                await readiness.require()
        assert asked == 1
        async with asyncio.timeout(60):
            while asked == 1:
                await asyncio.sleep(0.05)
                with pytest.raises(Unavailable):
                    await readiness.require()


class TestDraining:
    async def test_request_that_runs_is_finished(self, spool: Spool) -> None:
        tap = Tap()
        headers = {"Content-Length": str(len(tap.whole))}
        upload = asyncio.create_task(spool.put("a", tap, expect100=True, headers=headers))
        await tap.started.wait()
        drained = asyncio.create_task(spool.site.traffic.drain(10))
        assert (await spool.get("/readyz")).status == 503
        tap.opened.set()
        answer = await upload
        assert (answer.status, answer.headers["Connection"]) == (201, "close")
        assert await drained

    async def test_new_request_is_sent_elsewhere(self, spool: Spool) -> None:
        assert await spool.site.traffic.drain(0)
        answer = await spool.get("/files")
        assert (answer.status, answer.slug) == (503, "unavailable")

    async def test_ends_without_a_request_that_takes_too_long(self, spool: Spool) -> None:
        tap = Tap()
        headers = {"Content-Length": str(len(tap.whole))}
        upload = asyncio.create_task(spool.put("a", tap, expect100=True, headers=headers))
        await tap.started.wait()
        assert not await spool.site.traffic.drain(0)
        tap.opened.set()
        assert (await upload).status == 201
