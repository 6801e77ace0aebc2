from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spool.web.crowd import Crowd
from tests.web.conftest import PATIENCE, PNG, TEXT, Tap

if TYPE_CHECKING:
    from tests.web.conftest import Ear, Serve, Spool


async def scraped(spool: Spool) -> dict[str, float]:
    """Each sample by its name and the values of its labels, whose names are in order."""
    answer = await spool.get("/metrics")
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def counted(spool: Spool, *names: str) -> list[float]:
    samples = await scraped(spool)
    return [samples.get(name, 0) for name in names]


async def by_tus(spool: Spool, data: bytes = TEXT, length: int | None = None) -> dict[str, Any]:
    """A tus upload by one request, which may leave bytes to be sent."""
    name = base64.b64encode(b"a.txt").decode()
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(data) if length is None else length),
        "Upload-Metadata": f"filename {name}",
        "Content-Type": "application/offset+octet-stream",
    }
    answer = await spool.request("POST", "/tus", headers=headers, data=data)
    assert answer.status == 201, answer.body
    return dict(answer.headers)


async def by_draft(spool: Spool) -> None:
    headers = {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"}
    answer = await spool.request("POST", "/files", headers={**headers, "Content-Type": "text/plain"}, data=TEXT)
    assert answer.status in (200, 201), answer.body


class TestWhoMay:
    async def test_read_is_for_tokens_with_the_scope(self, spool: Spool) -> None:
        other, token = await spool.new_token("read", "upload", "delete"), await spool.new_token("metrics")
        assert (await spool.get("/metrics")).status == 401
        assert (await spool.get("/metrics", token=other)).status == 403
        assert (await spool.get("/metrics", token=token)).status == 200

    async def test_scope_opens_nothing_else(self, spool: Spool) -> None:
        token = await spool.new_token("metrics")
        assert (await spool.get("/files", token=token)).status == 403

    async def test_read_is_for_everybody_where_it_is_public(self, serve: Serve) -> None:
        spool = await serve({"server.metrics": "public"})
        await spool.new_token("admin")
        assert (await spool.get("/metrics")).status == 200
        assert (await spool.get("/files")).status == 401

    async def test_read_is_for_the_machine_in_open_mode(self, spool: Spool) -> None:
        assert (await spool.get("/metrics")).status == 200
        assert (await spool.get("/metrics", headers={"X-Forwarded-For": "198.51.100.7"})).status == 401


class TestText:
    async def test_is_that_of_prometheus(self, spool: Spool) -> None:
        answer = await spool.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert answer.headers["Cache-Control"] == "no-store"
        assert b"# TYPE spool_sync_seconds histogram" in answer.body

    async def test_is_that_of_openmetrics_if_asked_for(self, spool: Spool) -> None:
        answer = await spool.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.body.endswith(b"# EOF\n")

    async def test_has_no_label_of_a_client(self, spool: Spool) -> None:
        await spool.stored("secretname.txt", token=await spool.new_token("upload", name="secretperson"))
        spool.token = await spool.new_token("admin")
        assert (await spool.request("PROPFIND", "/files/secretpath")).status in (404, 405)
        text = (await spool.get("/metrics")).body
        assert b"secret" not in text.lower()
        assert b'spool_requests_total{code="405",method="other"} 1.0' in text


class TestUploads:
    async def test_are_counted_by_protocol(self, spool: Spool) -> None:
        await spool.stored()
        await spool.post(("a", "a.txt", TEXT), ("b", "b.txt", TEXT))
        await by_tus(spool)
        await by_draft(spool)
        names = [f"spool_uploads_total stored {protocol}" for protocol in ("put", "form", "tus", "draft")]
        assert await counted(spool, *names) == [1, 1, 1, 1]
        assert await counted(spool, "spool_committed_files_total", "spool_committed_bytes_total") == [5, 5 * len(TEXT)]

    async def test_that_are_refused_are_counted_with_their_problem(self, serve: Serve) -> None:
        spool = await serve({"policy.deny_types": ["image/*"], "limits.max_file_size": "1 KiB"})
        assert (await spool.put("a.png", PNG)).status == 415
        assert (await spool.post(("a", "a.png", PNG))).status == 415
        assert (await spool.put("a.txt", bytes(2**11))).status == 413
        names = "spool_uploads_total refused put", "spool_uploads_total refused form"
        problems = "spool_problems_total bad-type", "spool_problems_total too-large"
        assert await counted(spool, *names, *problems, "spool_committed_files_total") == [2, 1, 2, 1, 0]

    async def test_that_are_over_a_quota_are_counted_as_such(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 5})
        assert (await spool.put()).status == 413
        names = "spool_uploads_total refused put", "spool_problems_total quota-exceeded"
        assert await counted(spool, *names) == [1, 1]

    async def test_refusal_in_the_words_of_a_dialect_is_counted_too(self, spool: Spool) -> None:
        assert (await spool.request("PATCH", "/tus/nothing", headers={"Tus-Resumable": "1.0.0"})).status >= 400
        samples = await scraped(spool)
        assert sum(value for name, value in samples.items() if name.startswith("spool_problems_total")) == 1

    async def test_whose_client_vanished_are_cut_off(self, ear: Ear, spool: Spool) -> None:
        tap = Tap()
        headers = {"Content-Length": str(len(tap.whole))}
        upload = asyncio.ensure_future(spool.put("a", tap, expect100=True, headers=headers))
        await tap.started.wait()
        upload.cancel()
        await ear.event("upload.refused")
        assert await counted(spool, "spool_uploads_total cut_off put", "spool_active_uploads") == [1, 0]

    async def test_that_the_storage_cannot_take_have_failed(self, serve: Serve) -> None:
        spool = await serve({"limits.min_free_space": 10**17})
        assert (await spool.put()).status == 507
        assert await counted(spool, "spool_uploads_total failed put", "spool_ready") == [1, 0]

    async def test_retry_that_stores_nothing_is_none(self, spool: Spool) -> None:
        for _ in range(2):
            await spool.stored(headers={"Idempotency-Key": '"once"'})
        assert await counted(spool, "spool_uploads_total stored put", "spool_files") == [1, 1]

    async def test_that_run_are_there_while_they_run(self, spool: Spool) -> None:
        tap = Tap()
        headers = {"Content-Length": str(len(tap.whole))}
        upload = asyncio.ensure_future(spool.put("a", tap, expect100=True, headers=headers))
        await tap.started.wait()
        assert await counted(spool, "spool_active_uploads") == [1]
        tap.opened.set()
        assert (await upload).status == 201
        assert await counted(spool, "spool_active_uploads") == [0]

    async def test_that_are_resumable_are_there_until_they_are_finished(self, spool: Spool) -> None:
        uploaded = await by_tus(spool, b"four", length=6)
        names = "spool_unfinished_uploads", "spool_staged_bytes", "spool_kept_bytes", "spool_files"
        assert await counted(spool, *names) == [1, 4, 6, 0]
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "4",
            "Content-Type": "application/offset+octet-stream",
        }
        path = "/tus/" + uploaded["Location"].rpartition("/")[2]
        assert (await spool.request("PATCH", path, headers=headers, data=b"56")).status == 204
        assert await counted(spool, *names) == [0, 0, 6, 1]


class TestDurations:
    @pytest.mark.parametrize("name", ["first_byte", "stage", "sync", "commit"])
    async def test_each_upload_has_one_of_each(self, spool: Spool, name: str) -> None:
        for _ in range(3):
            await spool.stored(data=bytes(100_000))
        samples = await scraped(spool)
        assert samples[f"spool_{name}_seconds_count"] == samples[f"spool_{name}_seconds_bucket +Inf"] == 3
        assert 0 <= samples[f"spool_{name}_seconds_sum"] < PATIENCE * 3
        buckets = [value for key, value in samples.items() if key.startswith(f"spool_{name}_seconds_bucket ")]
        assert buckets == sorted(buckets)

    async def test_body_of_which_nothing_comes_has_no_first_byte(self, serve: Serve) -> None:
        spool = await serve({"limits.idle_timeout": "1s"})
        told = await spool.raw(b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 408 ")
        assert await counted(spool, "spool_first_byte_seconds_count") == [0]


class TestBytes:
    async def test_in_are_those_of_bodies(self, spool: Spool) -> None:
        await spool.stored(data=bytes(100_000))
        assert await counted(spool, "spool_received_bytes_total") == [100_000]

    @pytest.mark.parametrize("inline_max", [0, 20_000])
    async def test_out_are_those_of_files(self, serve: Serve, inline_max: int) -> None:
        spool = await serve({"storage.inline_max": inline_max})
        record = await spool.stored(data=bytes(10_000))
        await spool.media(record)
        await spool.media(record, Range="bytes=0-9")
        await spool.media(record, "HEAD")
        assert await counted(spool, "spool_sent_bytes_total") == [10_010]


class TestServer:
    async def test_is_scraped_while_it_drains(self, spool: Spool) -> None:
        assert await counted(spool, "spool_ready") == [1]
        assert await spool.site.traffic.drain(0)
        assert await counted(spool, "spool_ready") == [0]

    async def test_whose_index_fails_still_tells_what_it_counted(self, serve: Serve) -> None:
        spool = await serve({"server.metrics": "public"})
        await spool.stored()
        await spool.index.aclose()
        samples = await scraped(spool)
        assert (samples["spool_uploads_total stored put"], samples["spool_ready"]) == (1, 0)
        assert "spool_files" not in samples

    async def test_damaged_file_is_there_until_it_is_whole(self, spool: Spool) -> None:
        await spool.stored()
        (file,) = await spool.index.by_key(None, 9)
        await spool.index.mark(file.key, "digest")
        assert await counted(spool, "spool_damaged_files") == [1]
        await spool.index.mark(file.key, None)
        assert await counted(spool, "spool_damaged_files") == [0]

    async def test_connection_that_is_refused_is_counted(self, spool: Spool) -> None:
        crowd = Crowd(0, 0, spool.site.metrics)
        for _ in range(2):
            crowd._note()
        assert await counted(spool, "spool_connections_refused_total") == [2]
