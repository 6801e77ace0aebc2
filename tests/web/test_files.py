from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.web.conftest import PNG, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.conftest import Answer, Ear, Serve, Spool

HOUR: Final = timedelta(hours=1)
FOUR: Final = {"banana.txt": b"x" * 30, "Apple.png": PNG, "cherry.txt": b"y" * 10, "50%_off.txt": b"z" * 20}
"""Files in the order they are stored, of different sizes."""


@pytest.fixture
async def four(spool: Spool) -> list[dict[str, Any]]:
    """Their records, an hour apart."""
    records = []
    for name, data in FOUR.items():
        records.append(await spool.stored(quote(name), data))
        spool.clock.time += HOUR
    return records


def later(spool: Spool, delta: timedelta) -> str:
    return quote((spool.clock.time + delta).isoformat())


class TestListing:
    async def test_of_nothing_is_empty(self, spool: Spool) -> None:
        assert (await spool.get("/files")).json == {"files": [], "next": None}

    async def test_holds_the_records_newest_first(self, spool: Spool, four: list[dict[str, Any]]) -> None:
        answer = await spool.get("/files")
        assert answer.json == {"files": four[::-1], "next": None}
        assert "Link" not in answer.headers

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("q=APPLE", ["Apple.png"]),
            ("q=%25", ["50%_off.txt"]),
            ("q=_", ["50%_off.txt"]),
            ("q=", ["50%_off.txt", "cherry.txt", "Apple.png", "banana.txt"]),
            ("filename=*.txt", ["50%_off.txt", "cherry.txt", "banana.txt"]),
            ("filename=[bc]*", ["cherry.txt", "banana.txt"]),
            ("filename=apple.png", []),
            ("filename=cherry.tx?", ["cherry.txt"]),
            ("media_type=image/*", ["Apple.png"]),
            ("media_type=text/plain&q=an", ["banana.txt"]),
            ("media_type=video/*", []),
        ],
    )
    async def test_filter_lets_through_what_it_says(
        self, spool: Spool, four: list[dict[str, Any]], query: str, names: list[str]
    ) -> None:
        assert len(four) == 4
        assert await spool.listed(f"?{query}") == names

    @pytest.mark.parametrize("sort", ["created_at", "size", "filename"])
    async def test_since_includes_and_until_excludes_in_every_sort(
        self, spool: Spool, four: list[dict[str, Any]], sort: str
    ) -> None:
        times = [quote(record["created_at"]) for record in four]
        assert set(await spool.listed(f"?since={times[1]}&until={times[3]}&sort={sort}")) == {"Apple.png", "cherry.txt"}
        assert len(await spool.listed(f"?since={times[3]}&sort={sort}")) == 1
        assert await spool.listed(f"?until={times[0]}&sort={sort}") == []

    async def test_times_may_be_written_in_several_ways(self, spool: Spool, four: list[dict[str, Any]]) -> None:
        moment = datetime.fromisoformat(four[2]["created_at"])
        elsewhere = moment.isoformat().replace("+00:00", "") + "%2B00:00"
        blank = moment.isoformat().replace("+", " ")
        for time in (elsewhere, quote(blank), moment.isoformat().replace("+00:00", "Z")):
            assert len(await spool.listed(f"?since={time}")) == 2, time
        assert len(await spool.listed("?since=2026-03-01")) == 4
        assert await spool.listed("?since=2026-03-02") == []

    @pytest.mark.parametrize(
        ("sort", "ascending"),
        [
            ("created_at", ["banana.txt", "Apple.png", "cherry.txt", "50%_off.txt"]),
            ("size", ["cherry.txt", "50%_off.txt", "banana.txt", "Apple.png"]),
            ("filename", ["50%_off.txt", "Apple.png", "banana.txt", "cherry.txt"]),
        ],
    )
    async def test_is_sorted_as_asked(
        self, spool: Spool, four: list[dict[str, Any]], sort: str, ascending: list[str]
    ) -> None:
        assert len(four) == 4
        assert await spool.listed(f"?sort={sort}&order=asc") == ascending
        assert await spool.listed(f"?sort={sort}&order=desc") == ascending[::-1]
        assert await spool.listed(f"?sort={sort}") == ascending[::-1]

    @pytest.mark.parametrize("sort", ["created_at", "size", "filename"])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_walk_along_the_links_meets_every_file_once(
        self, spool: Spool, four: list[dict[str, Any]], sort: str, order: str
    ) -> None:
        expected = await spool.listed(f"?sort={sort}&order={order}")
        assert len(expected) == len(four)
        met, path = [], f"/files?sort={sort}&order={order}&limit=1"
        while path:
            answer = await spool.get(path)
            met += [record["filename"] for record in answer.json["files"]]
            path = self.next_path(spool, answer)
        assert met == expected

    def next_path(self, spool: Spool, answer: Answer) -> str:
        link = answer.headers.get("Link", "")
        assert bool(link) == (answer.json["next"] is not None)
        if not link:
            return ""
        assert link.startswith("<" + str(spool.client.make_url("/")))
        target, _, parameters = link[1:].partition(">")
        assert parameters == '; rel="next"'
        return urlsplit(target)._replace(scheme="", netloc="").geturl()

    async def test_link_keeps_every_filter(self, spool: Spool) -> None:
        for name in ("a&b 1.txt", "a&b 2.txt"):
            await spool.stored(quote(name))
        answer = await spool.get("/files?q=a%26b%20&media_type=text/*&since=2026-01-01T00:00:00%2B00:00&limit=1")
        query = parse_qs(urlsplit(answer.headers["Link"][1:].partition(">")[0]).query)
        del query["cursor"]
        assert query == {
            "q": ["a&b "], "media_type": ["text/*"], "since": ["2026-01-01T00:00:00+00:00"], "limit": ["1"],
        }  # fmt: skip

    async def test_file_that_came_meanwhile_does_not_shift_the_walk(
        self, spool: Spool, four: list[dict[str, Any]]
    ) -> None:
        first = (await spool.get("/files?limit=2")).json
        await spool.stored("new.txt")
        rest = (await spool.get(f"/files?limit=1000&cursor={first['next']}")).json
        assert first["files"] + rest["files"] == four[::-1]

    @pytest.mark.parametrize(
        "query",
        ["sort=created_at&order=asc", "sort=size", "filename=*.txt", "q=a", "media_type=text/*", "since=2026-01-01"],
    )
    async def test_cursor_of_another_listing_is_refused(
        self, spool: Spool, four: list[dict[str, Any]], query: str
    ) -> None:
        assert len(four) == 4
        cursor = (await spool.get("/files?limit=1")).json["next"]
        assert (await spool.get(f"/files?{query}&cursor={cursor}")).slug == "bad-request"

    async def test_parameter_that_cannot_be_meant_is_refused(self, spool: Spool) -> None:
        for query in (
            "sorted=size",
            "LIMIT=1",
            "=",
            "page=2",
            "limit=1&limit=2",
            "q=a&q=a",
            "limit=",
            "limit=0",
            "limit=-1",
            "limit=%2B1",
            "limit=1001",
            "limit=99999999999999999999",
            "limit=1.0",
            "limit=%D9%A1",
            "limit=1_0",
            "sort=owner",
            "sort=",
            "sort=CREATED_AT",
            "order=descending",
            "order=",
            "since=yesterday",
            "since=",
            "until=2026-13-01",
            "until=0001-01-01T00:00:00%2B14:00",
            "since=9999-12-31T23:59:59-14:00",
            "cursor=",
            "cursor=nonsense",
            "cursor=%00",
            "cursor=%C5%BC",
            "cursor=W10",
            "cursor=bnVsbA",
            "cursor=" + "A" * 4000,
            "q=" + "x" * 256,
            "filename=%00",
            "media_type=a%00b",
        ):
            for path in ("/files", "/files/latest"):
                answer = await spool.get(f"{path}?{query}")
                assert answer.status == 400, query
                assert answer.slug == "bad-request"

    async def test_refusal_names_what_is_known(self, spool: Spool) -> None:
        detail = (await spool.get("/files?typ=x")).json["detail"]
        assert "'typ'" in detail
        assert "media_type" in detail

    async def test_limit_is_a_hundred_by_default(self, spool: Spool) -> None:
        for number in range(101):
            await spool.stored(f"{number}.txt")
        answer = (await spool.get("/files")).json
        assert len(answer["files"]) == 100
        assert len((await spool.get(f"/files?cursor={answer['next']}")).json["files"]) == 1


class TestLatest:
    async def test_leads_to_the_newest_record(self, spool: Spool, four: list[dict[str, Any]]) -> None:
        answer = await spool.get("/files/latest")
        assert (answer.status, answer.headers["Location"]) == (302, four[-1]["url"])
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_takes_the_listing_s_parameters(self, spool: Spool, four: list[dict[str, Any]]) -> None:
        answer = await spool.get("/files/latest?media_type=image/*")
        assert answer.headers["Location"] == four[1]["url"]
        answer = await spool.get("/files/latest?sort=size&order=asc&limit=1000")
        assert answer.headers["Location"] == four[2]["url"]

    async def test_of_nothing_is_not_found(self, spool: Spool, four: list[dict[str, Any]]) -> None:
        assert len(four) == 4
        assert (await spool.get("/files/latest?q=nothing")).slug == "not-found"

    async def test_passes_over_what_has_expired(self, spool: Spool) -> None:
        record = await spool.stored("stays.txt")
        await spool.stored(f"goes.txt?expires_at={later(spool, HOUR)}")
        spool.clock.time += HOUR
        assert (await spool.get("/files/latest")).headers["Location"] == record["url"]


class TestRecord:
    async def test_says_what_is_known_of_a_file(self, spool: Spool) -> None:
        record = await spool.stored("x.png?title=Demo", PNG, headers={"Content-Type": "image/png"})
        shown = (await spool.get(f"/files/{record['id']}")).json
        assert shown == record
        base = str(spool.client.make_url(f"/files/{record['id']}"))
        assert record == {
            "id": record["id"],
            "filename": "x.png",
            "size": len(PNG),
            "media_type": "image/png",
            "declared_type": "image/png",
            "sha256": record["sha256"],
            "created_at": record["created_at"],
            "expires_at": None,
            "owner": "local",
            "metadata": {"title": "Demo"},
            "damage": None,
            "grant": None,
            "url": base,
            "content_url": f"{base}/content",
        }
        assert record["created_at"].endswith("Z")

    @pytest.mark.parametrize("suffix", ["", "/content"])
    async def test_of_an_unknown_id_is_not_found(self, spool: Spool, suffix: str) -> None:
        for id in ("0123", "%00", "..", "%2e%2e", "%F0%9F%90%A2", "x" * 5000, "'%20OR%20'1'='1"):  # noqa: A001
            head = f"GET /files/{id}{suffix} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            answer = await spool.raw(head.encode())
            assert answer.startswith(b"HTTP/1.1 404"), id
            assert b"/problems/not-found" in answer

    async def test_content_leads_to_the_bytes(self, spool: Spool) -> None:
        record = await spool.stored(quote("ż ó?.txt"))
        answer = await spool.get(f"/files/{record['id']}/content")
        assert answer.status == 302
        assert answer.headers["Location"] == str(spool.client.make_url("/")) + f"media/{record['id']}/" + quote(
            "ż ó?.txt"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        assert (await spool.get(answer.headers["Location"].partition(str(spool.client.port))[2])).body == TEXT


class TestPatch:
    @pytest.fixture
    async def record(self, spool: Spool) -> dict[str, Any]:
        return await spool.stored("a.txt?title=Demo&tag=x&tag=y")

    @pytest.mark.parametrize(
        ("change", "metadata"),
        [
            ({}, {"title": "Demo", "tag": ["x", "y"]}),
            ({"metadata": {}}, {"title": "Demo", "tag": ["x", "y"]}),
            ({"metadata": {"title": None}}, {"tag": ["x", "y"]}),
            ({"metadata": {"absent": None}}, {"title": "Demo", "tag": ["x", "y"]}),
            ({"metadata": None}, {}),
            ({"metadata": {"title": "New"}}, {"title": "New", "tag": ["x", "y"]}),
            ({"metadata": {"tag": ["z"]}}, {"title": "Demo", "tag": ["z"]}),
            ({"metadata": {"tag": "z", "title": ["a", "b"]}}, {"title": ["a", "b"], "tag": "z"}),
            ({"metadata": {"ż": "ó\n🐢", "": ""}}, {"title": "Demo", "tag": ["x", "y"], "ż": "ó\n🐢", "": ""}),
        ],
    )
    async def test_metadata_is_merged(
        self, spool: Spool, record: dict[str, Any], change: dict[str, Any], metadata: dict[str, Any]
    ) -> None:
        answer = await spool.patch(record, change)
        assert (answer.status, answer.json) == (200, {**record, "metadata": metadata})
        assert (await spool.get(f"/files/{record['id']}")).json == answer.json

    async def test_filename_is_cleaned(self, spool: Spool, record: dict[str, Any]) -> None:
        answer = await spool.patch(record, {"filename": "../../etc/b\u202e\u0000.txt"})
        assert (answer.status, answer.json) == (200, {**record, "filename": "b.txt"})

    async def test_expiry_is_set_and_lifted(self, spool: Spool, record: dict[str, Any]) -> None:
        answer = await spool.patch(record, {"expires_at": "2999-01-01T01:00:00+01:00"})
        assert answer.json["expires_at"] == "2999-01-01T00:00:00.000000Z"
        assert (await spool.patch(record, {"expires_at": None})).json["expires_at"] is None

    async def test_expiry_stays_within_policy(self, serve: Serve) -> None:
        spool = await serve({"policy.expire_after": "1d"})
        record = await spool.stored()
        assert record["expires_at"] is not None
        for wanted in ("2999-01-01T00:00:00Z", None):
            patched = (await spool.patch(record, {"expires_at": wanted})).json["expires_at"]
            kept_for = datetime.fromisoformat(patched) - datetime.fromisoformat(record["created_at"])
            assert kept_for <= timedelta(days=1)

    async def test_expiry_in_the_past_is_refused(self, spool: Spool, record: dict[str, Any]) -> None:
        assert (await spool.patch(record, {"expires_at": "2001-01-01T00:00:00Z"})).slug == "bad-request"
        assert (await spool.get(f"/files/{record['id']}")).json == record

    async def test_change_that_cannot_be_meant_is_refused_whole(self, spool: Spool, record: dict[str, Any]) -> None:
        changes: tuple[object, ...] = (
            {"metadata": {"a": {"b": "c"}}},
            {"metadata": {"a": [["b"]]}},
            {"metadata": {"a": ["b", None]}},
            {"metadata": {"a": ["b", 1]}},
            {"metadata": {"a": 1}},
            {"metadata": {"a": True}},
            {"metadata": ["a"]},
            {"metadata": "a"},
            {"filename": None},
            {"filename": ""},
            {"filename": "  "},
            {"filename": 1},
            {"filename": ["a"]},
            {"expires_at": 1},
            {"expires_at": "soon"},
            {"expires_at": ""},
            {"size": 1},
            {"sha256": "0" * 64},
            {"owner": "eve"},
            {"id": "x"},
            {"filename": "b.txt", "created_at": "2001-01-01"},
            {"filename": "b.txt", "metadata": {"title": 1}},
            [],
            "text",
            b"null",
            1,
            b"",
            b"{",
            b'{"filename": "b.txt"',
            b"\xff\xfe",
            b'{"filename": "\xff"}',
            b"filename=b.txt",
            b'{"metadata": {"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
            b'{"metadata": {"a": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}}",
            b'{"metadata": {"a": ' + b"1" * 60_000 + b"}}",
            b'{"metadata": {"a": NaN}}',
            b'{"expires_at": 1e999}',
        )
        for change in changes:
            answer = await spool.patch(record, change)
            assert answer.status == 400, change
            assert answer.slug == "bad-request"
        assert (await spool.get(f"/files/{record['id']}")).json == record

    @pytest.mark.parametrize(
        "change",
        [
            b'{"metadata": {"\\ud800": "x"}}',
            b'{"metadata": {"x": "\\ud800"}}',
            b'{"metadata": {"x": ["\\udfff"]}}',
            b'{"filename": "a\\ud800"}',
            b'{"\\ud800": "x"}',
            b'{"expires_at": "\\ud800"}',
        ],
    )
    async def test_half_a_character_does_no_harm(self, spool: Spool, record: dict[str, Any], change: bytes) -> None:
        answer = await spool.patch(record, change)
        assert answer.status in (200, 400)
        assert (await spool.get(f"/files/{record['id']}")).status == 200

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_large_document_is_refused(self, spool: Spool, record: dict[str, Any], *, chunked: bool) -> None:
        document = b'{"metadata": {"a": "' + b"x" * 64 * 1024 + b'"}}'

        async def chunks() -> AsyncIterator[bytes]:
            yield document

        headers = {"Content-Type": "application/merge-patch+json"}
        data = chunks() if chunked else document
        answer = await spool.request("PATCH", f"/files/{record['id']}", data=data, headers=headers)
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 64 * 1024)

    async def test_metadata_stays_within_the_limits_of_an_upload(self, serve: Serve) -> None:
        spool = await serve({"limits.max_fields": 2, "limits.max_fields_size": "1 KiB"})
        record = await spool.stored("a.txt?a=1&b=2")
        answer = await spool.patch(record, {"metadata": {"c": "3"}})
        assert (answer.slug, answer.json["limit"]) == ("too-large", 2)
        answer = await spool.patch(record, {"metadata": {"a": "x" * 1025}})
        assert (answer.slug, answer.json["limit"]) == ("too-large", 1024)
        assert (await spool.patch(record, {"metadata": {"a": None, "c": "3"}})).json["metadata"] == {"b": "2", "c": "3"}

    @pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/json5"])
    async def test_only_json_is_read(self, spool: Spool, record: dict[str, Any], media_type: str) -> None:
        path, headers = f"/files/{record['id']}", {"Content-Type": media_type}
        assert (await spool.request("PATCH", path, data=b"{}", headers=headers)).slug == "bad-type"

    @pytest.mark.parametrize(
        "media_type", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
    )
    async def test_json_under_any_of_its_names_is_read(
        self, spool: Spool, record: dict[str, Any], media_type: str
    ) -> None:
        path, headers = f"/files/{record['id']}", {"Content-Type": media_type}
        answer = await spool.request("PATCH", path, data=json.dumps({"filename": "b"}).encode(), headers=headers)
        assert answer.json["filename"] == "b"

    async def test_record_of_one_s_own_may_be_changed(self, spool: Spool) -> None:
        first, second = [await spool.new_token("upload", name="ada") for _ in range(2)]
        record = await spool.stored(token=first)
        assert (await spool.patch(record, {"filename": "b"}, token=second)).status == 200

    async def test_record_of_another_may_not_be_changed(self, spool: Spool) -> None:
        record = await spool.stored(token=await spool.new_token("upload", name="ada"))
        other = await spool.new_token("upload", "read", "delete", name="bob")
        answer = await spool.patch(record, {"filename": "b"}, token=other)
        assert (answer.status, answer.slug) == (403, "forbidden")
        assert await self.name(spool, record, other) == "a.txt"

    async def test_admin_may_change_any_record(self, spool: Spool) -> None:
        record = await spool.stored(token=await spool.new_token("upload", name="ada"))
        admin = await spool.new_token("admin", name="root")
        answer = await spool.patch(record, {"filename": "b"}, token=admin)
        assert (answer.status, answer.json["owner"]) == (200, "ada")

    async def name(self, spool: Spool, record: dict[str, Any], token: str) -> str:
        return str((await spool.get(f"/files/{record['id']}", token=token)).json["filename"])

    async def test_changes_neither_bytes_nor_tag(self, spool: Spool, record: dict[str, Any]) -> None:
        before = await spool.media(record)
        await spool.patch(record, {"filename": "b.txt", "metadata": None})
        after = await spool.media(record)
        assert (after.body, after.headers["ETag"]) == (before.body, before.headers["ETag"])

    async def test_of_an_unknown_file_is_not_found(self, spool: Spool) -> None:
        assert (await spool.patch({"id": "nothing"}, {"filename": "b"})).slug == "not-found"


class TestDelete:
    async def test_takes_the_record_and_the_bytes(self, spool: Spool) -> None:
        record, other = await spool.stored(), await spool.stored("other.txt")
        answer = await spool.request("DELETE", f"/files/{record['id']}")
        assert (answer.status, answer.body) == (204, b"")
        assert await spool.listed() == ["other.txt"]
        assert len(spool.kept()) == 1
        assert (await spool.media(other)).body == TEXT

    async def test_of_what_is_gone_is_not_found(self, spool: Spool) -> None:
        record = await spool.stored()
        await spool.request("DELETE", f"/files/{record['id']}")
        assert (await spool.request("DELETE", f"/files/{record['id']}")).slug == "not-found"

    async def test_frees_the_quota(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 15})
        record = await spool.stored()
        assert (await spool.put()).slug == "quota-exceeded"
        await spool.request("DELETE", f"/files/{record['id']}")
        assert (await spool.put()).status == 201

    async def test_needs_no_ownership(self, spool: Spool) -> None:
        record = await spool.stored(token=await spool.new_token("upload", name="ada"))
        token = await spool.new_token("delete", name="bob")
        assert (await spool.request("DELETE", f"/files/{record['id']}", token=token)).status == 204


class TestExpiry:
    @pytest.mark.parametrize("offset", [timedelta(0), -HOUR, timedelta(days=-9999)])
    async def test_in_the_past_is_refused_on_upload(self, spool: Spool, offset: timedelta) -> None:
        time = later(spool, offset)
        assert (await spool.put(f"a.txt?expires_at={time}")).slug == "bad-request"
        assert (await spool.post(("f", "a.txt", TEXT), ("expires_at", None, time.encode()))).slug == "bad-request"
        assert await spool.nothing_is_left()

    async def test_given_twice_is_refused(self, spool: Spool) -> None:
        time = later(spool, HOUR)
        assert (await spool.put(f"a.txt?expires_at={time}&expires_at={time}")).slug == "bad-request"

    async def test_is_not_metadata(self, spool: Spool) -> None:
        record = await spool.stored(f"a.txt?expires_at={later(spool, HOUR)}&a=b")
        assert record["metadata"] == {"a": "b"}
        assert record["expires_at"] is not None

    async def test_hides_a_file_everywhere_before_the_sweep(self, spool: Spool) -> None:
        record = await spool.stored(f"a.txt?expires_at={later(spool, HOUR)}")
        spool.clock.time += HOUR
        assert await spool.listed() == []
        for path in (f"/files/{record['id']}", f"/files/{record['id']}/content", "/files/latest"):
            assert (await spool.get(path)).slug == "not-found", path
        assert (await spool.patch(record, {"expires_at": None})).slug == "not-found"
        assert (await spool.media(record)).slug == "not-found"
        assert len(spool.kept()) == 1

    async def test_comes_to_the_second(self, spool: Spool) -> None:
        record = await spool.stored(f"a.txt?expires_at={later(spool, HOUR)}")
        expires_at = datetime.fromisoformat(record["expires_at"])
        spool.clock.time = expires_at - timedelta(milliseconds=2)
        assert (await spool.get(f"/files/{record['id']}")).status == 200
        assert (await spool.get(f"/files/{record['id']}")).status == 404


async def test_listing_is_in_creation_order_even_when_names_are_not(spool: Spool) -> None:
    names = ["c", "a", "b"]
    for name in names:
        await spool.stored(name)
    times = [record["created_at"] for record in (await spool.get("/files?order=asc")).json["files"]]
    assert all(a < b for a, b in pairwise(times))
    assert await spool.listed("?order=asc") == names


async def test_query_is_not_logged(ear: Ear, spool: Spool) -> None:
    assert (await spool.get("/files?q=secret-of-mine")).status == 200
    event = await ear.event("request.finished")
    assert event["path"] == "/files"
    assert not [record for record in ear.records if "secret-of-mine" in f"{record.getMessage()}{record.args}"]
