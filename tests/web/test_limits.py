"""Limits of principals, through the real router: how many requests, uploads at once, files and bytes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import http_sf
import pytest

from spool.model import Override
from tests.web.conftest import TEXT, Tap
from tests.web.test_resumable import DIALECTS, append, cancel, concatenate, create, created, partial, statuses
from tests.web.test_upload import chunks, held

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Serve, Spool

MIB = 1024 * 1024
MINUTE = timedelta(minutes=1)


def rate(answer: Answer) -> tuple[int, int, int, int]:
    """The policy's requests and seconds, and how many of each are left."""
    [(name, policy)] = parsed(answer, "RateLimit-Policy")
    [(same_name, state)] = parsed(answer, "RateLimit")
    assert name == same_name == "requests"
    assert (set(policy), set(state)) == ({"q", "w"}, {"r", "t"})
    return policy["q"], policy["w"], state["r"], state["t"]


def parsed(answer: Answer, field: str) -> Any:
    return http_sf.parse(answer.headers[field].encode(), tltype="list")


def has_no_rate(answer: Answer) -> bool:
    return not {"RateLimit", "RateLimit-Policy"} & set(answer.headers)


async def restarted(serve: Serve, spool: Spool, settings: dict[str, object]) -> Spool:
    """The site anew, at the same time; the old one stays open beside it."""
    await spool.site.rates.save()
    new = await serve(settings)
    new.clock.time = spool.clock.time
    new.token = spool.token
    return new


class TestRequests:
    async def test_each_answer_says_what_is_left(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 5})
        record = await spool.stored()
        answers = [await spool.get("/files"), await spool.media(record), await spool.get("/files/none")]
        assert [(answer.status, *rate(answer)) for answer in answers] == [
            (200, 5, 60, 3, 60),
            (200, 5, 60, 2, 60),
            (404, 5, 60, 1, 60),
        ]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        assert answers[0].headers["RateLimit"] == '"requests";r=3;t=60'

    async def test_one_too_many_is_refused_until_the_minute_is_over(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 2})
        await spool.stored()
        spool.clock.time += timedelta(seconds=20)
        await spool.get("/files")
        for _ in range(2):
            answer = await spool.put("b.txt")
            assert (answer.status, answer.slug) == (429, "rate-limited")
            assert (answer.json["limit"], answer.json["window"]) == (2, 60)
            assert rate(answer) == (2, 60, 0, 40)
            assert answer.headers["Retry-After"] == "40"
        spool.clock.time += timedelta(seconds=40)
        assert await spool.listed() == ["a.txt"]

    async def test_no_limit_says_nothing(self, spool: Spool) -> None:
        assert has_no_rate(await spool.put())

    async def test_what_needs_no_token_is_not_counted(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 1})
        assert (await spool.get("/files")).status == 200
        assert (await spool.get("/files")).status == 429
        for path in ("/healthz", "/readyz", "/problems/rate-limited"):
            answer = await spool.get(path)
            assert answer.status == 200
            assert has_no_rate(answer)

    async def test_signed_address_is_not_counted(self, serve: Serve) -> None:
        settings: dict[str, object] = {"limits.requests_per_minute": 2, "server.media_base_url": "https://m.example"}
        spool = await serve(settings)
        spool.token = await spool.new_token("admin")
        record = await spool.stored()
        address = (await spool.get(f"/files/{record['id']}/content")).headers["Location"]
        spool.token = None
        for _ in range(3):
            assert (await spool.get(address.removeprefix("https://m.example"))).status == 200

    async def test_tokens_of_one_name_are_counted_together(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 2})
        first, second = await spool.new_token("read"), await spool.new_token("upload")
        other = await spool.new_token("read", name="bob")
        statuses = [(await spool.get("/files", token=token)).status for token in (first, second, first, other)]
        assert statuses == [200, 403, 429, 200]

    async def test_unknown_token_counts_against_nobody(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 1})
        token = await spool.new_token("read")
        answer = await spool.get("/files", token="unknown")
        assert answer.status == 401
        assert has_no_rate(answer)
        assert (await spool.get("/files", token=token)).status == 200

    async def test_restart_gives_no_fresh_allowance(self, serve: Serve) -> None:
        settings: dict[str, object] = {"limits.requests_per_minute": 3}
        spool = await serve(settings)
        for _ in range(2):
            await spool.get("/files")
        spool.clock.time += timedelta(seconds=30)
        spool = await restarted(serve, spool, settings)
        assert rate(await spool.get("/files")) == (3, 60, 0, 30)
        assert (await spool.get("/files")).status == 429

    async def test_operator_is_obeyed_at_the_next_request(self, serve: Serve) -> None:
        spool = await serve({"limits.requests_per_minute": 100})
        spool.token = await spool.new_token("read")
        limits = []
        for override in (Override("ada", requests_per_minute=7), Override("ada", requests_per_minute=0), None):
            if override is None:
                await spool.index.clear_override("ada")
            else:
                await spool.index.set_override(override)
            answer = await spool.get("/files")
            limits.append(None if has_no_rate(answer) else rate(answer)[0])
        assert limits == [7, None, 100]

    async def test_operator_may_limit_whoever_asks_without_a_token(self, spool: Spool) -> None:
        await spool.index.set_override(Override("local", requests_per_minute=1))
        assert [(await spool.get("/files")).status for _ in range(2)] == [200, 429]

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_resumable_uploads_are_told_too(self, serve: Serve, dialect: str) -> None:
        spool = await serve({"limits.requests_per_minute": 2})
        upload = await created(spool, dialect, 10)
        assert rate(await append(spool, upload, 0, b"x" * 5)) == (2, 60, 0, 60)
        answer = await append(spool, upload, 5, b"x" * 5)
        assert (answer.status, answer.slug, answer.headers["Retry-After"]) == (429, "rate-limited", "60")

    async def test_page_of_another_origin_may_read_the_fields(self, serve: Serve) -> None:
        spool = await serve({"server.cors_origins": ["*"], "server.trusted_proxies": "127.0.0.1"})
        answer = await spool.get("/healthz", headers={"Origin": "https://app.example"})
        assert {"RateLimit", "RateLimit-Policy"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


class TestUploadsAtOnce:
    async def test_are_limited_for_each_principal(self, serve: Serve) -> None:
        spool = await serve({"limits.uploads_per_principal": 1})
        ada, bob = await spool.new_token("upload"), await spool.new_token("upload", name="bob")
        tap = Tap()
        running = await held(spool, tap, token=ada)
        answer = await spool.put(token=ada)
        assert (answer.status, answer.slug, answer.json["limit"]) == (429, "too-many", 1)
        assert answer.headers["Retry-After"] == "5"
        assert (await spool.post(("f", "a", TEXT), token=ada)).status == 429
        assert (await spool.put(token=bob)).status == 201
        tap.opened.set()
        assert (await running).status == 201
        assert (await spool.put(token=ada)).status == 201

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_of_resumable_uploads_only_those_that_are_sent_bytes(self, serve: Serve, dialect: str) -> None:
        spool = await serve({"limits.uploads_per_principal": 1})
        upload, other = await created(spool, dialect, 10), await created(spool, dialect, 10)
        tap = Tap()
        running = await held(spool, tap)
        assert (await append(spool, upload, 0, b"x" * 5)).status == statuses(dialect, 503, 429)
        tap.opened.set()
        await running
        for each in (upload, other):
            assert (await append(spool, each, 0, b"x" * 5)).status == 204


class TestFiles:
    async def test_are_limited(self, serve: Serve) -> None:
        spool = await serve({"limits.quota_files": 2})
        records = [await spool.stored() for _ in range(2)]
        for answer in (await spool.put(), await spool.put(data=b""), await spool.put(data=chunks(b"x"))):
            assert (answer.status, answer.slug) == (413, "quota-exceeded")
            assert [answer.json[member] for member in ("unit", "limit", "used")] == ["files", 2, 3]
        await spool.request("DELETE", f"/files/{records[0]['id']}")
        assert (await spool.put()).status == 201

    async def test_each_file_of_a_form_counts(self, serve: Serve) -> None:
        spool = await serve({"limits.quota_files": 3})
        answer = await spool.post(*(("f", str(n), TEXT) for n in range(4)))
        assert (answer.status, answer.slug, answer.json["used"]) == (413, "quota-exceeded", 4)
        assert await spool.nothing_is_left()
        assert (await spool.post(*(("f", str(n), TEXT) for n in range(3)))).status == 201

    async def test_form_that_is_running_counts_with_the_files_it_has(self, serve: Serve) -> None:
        spool = await serve({"limits.quota_files": 1})
        tap = Tap()
        running = await held(spool, tap)
        assert (await spool.post(("f", "a", TEXT))).slug == "quota-exceeded"
        tap.opened.set()
        assert (await running).status == 201

    @pytest.mark.parametrize("dialect", DIALECTS)
    async def test_resumable_upload_counts_from_its_creation(self, serve: Serve, dialect: str) -> None:
        spool = await serve({"limits.quota_files": 2})
        upload, other = await created(spool, dialect, 4), await created(spool, dialect, None)
        for answer in (await create(spool, dialect, 4), await spool.put()):
            assert (answer.status, answer.slug, answer.json["unit"]) == (413, "quota-exceeded", "files")
        assert (await append(spool, upload, 0, b"data", last=True)).status < 300
        assert (await create(spool, dialect, 4)).status == 413
        await cancel(spool, other)
        assert (await create(spool, dialect, 4)).status == 201

    async def test_concatenation_counts_beside_its_parts(self, serve: Serve) -> None:
        spool = await serve({"limits.quota_files": 2})
        parts = [await partial(spool, b"x"), await partial(spool, b"y")]
        assert (await concatenate(spool, *parts)).status == 413
        await spool.index.set_override(Override("local", quota_files=3))
        assert (await concatenate(spool, *parts)).status == 201

    async def test_quota_holds_over_a_restart(self, serve: Serve) -> None:
        settings: dict[str, object] = {"limits.quota": 100, "limits.quota_files": 9}
        spool = await serve(settings)
        await spool.index.set_override(Override("local", quota_files=2))
        await spool.stored()
        await created(spool, "tus", 80)
        spool = await restarted(serve, spool, settings)
        assert (await spool.put()).json["unit"] == "bytes"
        await spool.index.set_override(Override("local", quota=0))
        assert (await spool.put()).json["unit"] == "files"


class TestBytes:
    async def test_resumable_upload_may_be_finished_under_a_quota_that_was_lowered(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 100})
        upload = await created(spool, "tus", 100)
        await spool.index.set_override(Override("local", quota=10, quota_files=1))
        assert (await append(spool, upload, 0, bytes(100))).status == 204
        assert (await spool.put(data=b"")).status == 413

    async def test_upload_of_unknown_length_counts_once_while_its_row_advances(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": "100 MiB"})
        upload = await created(spool, "tus", None)
        body = chunks(*[bytes(MIB)] * 90)  # longer than to the first checkpoint
        assert (await append(spool, upload, 0, body)).status == 204
        assert (await spool.index.usage("local")).size == 90 * MIB
