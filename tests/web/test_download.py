from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from datetime import datetime, timedelta
from email.parser import BytesParser
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from tests.web.conftest import PNG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.web.conftest import Ear, Serve, Spool

DATA: Final = bytes(range(256)) * 4
SIZE: Final = len(DATA)
PROTECTION: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SHA256: Final = hashlib.sha256(DATA).hexdigest()
ETAG: Final = f'"{SHA256}"'
OTHER: Final = '"' + "0" * 64 + '"'


@pytest.fixture
async def record(spool: Spool) -> dict[str, Any]:
    """A file of 1024 bytes, in which every byte occurs four times."""
    return await spool.stored("data.bin", DATA)


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


async def modified(spool: Spool, record: Mapping[str, Any]) -> datetime:
    return parsedate_to_datetime((await spool.media(record, "HEAD")).headers["Last-Modified"])


async def test_whole_file_is_sent_with_all_that_is_known_of_it(spool: Spool, record: dict[str, Any]) -> None:
    answer = await spool.media(record)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Type"] == record["media_type"]
    assert answer.headers["ETag"] == ETAG
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    stored = datetime.fromisoformat(record["created_at"])
    assert answer.headers["Last-Modified"] == date(stored)


async def test_name_in_the_address_is_for_people(spool: Spool, record: dict[str, Any]) -> None:
    for name in ("data.bin", "other.html", "", "%2e%2e%2fx"):
        answer = await spool.get(f"/media/{record['id']}/{name}")
        assert (answer.status, answer.body) == (200, DATA)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="data.bin"'


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        (None, [(0, 102_400)]),
        ("bytes=70000-", [(70_000, 102_400)]),
        ("bytes=-1", [(102_399, 102_400)]),
        ("bytes=90000-90009,0-70000", [(90_000, 90_010), (0, 70_001)]),
    ],
)
async def test_large_file_is_sent_as_small_ones_are(
    spool: Spool, asked: str | None, spans: list[tuple[int, int]]
) -> None:
    data = DATA * 100  # too large to be read in one go
    record = await spool.stored("data.bin", data)
    answer = await spool.media(record, **({"Range": asked} if asked else {}))
    assert answer.status == (206 if asked else 200)
    assert answer.headers["Content-Length"] == str(len(answer.body))
    if len(spans) == 1:
        assert answer.body == data[spans[0][0] : spans[0][1]]
    else:
        assert [part for part in (data[start:end] for start, end in spans) if part not in answer.body] == []
        assert answer.headers["Content-Type"].startswith("multipart/byteranges")


class TestRange:
    async def test_one_span_is_sent_by_itself(self, spool: Spool, record: dict[str, Any]) -> None:
        spans = {
            "bytes=0-0": (0, 0),
            "bytes=0-": (0, SIZE - 1),
            "bytes=100-199": (100, 199),
            "bytes=1023-1023": (1023, 1023),
            "bytes=1000-99999": (1000, SIZE - 1),
            "bytes=1000-" + "9" * 40: (1000, SIZE - 1),
            "bytes=-1": (1023, 1023),
            "bytes=-100": (924, SIZE - 1),
            "bytes=-99999": (0, SIZE - 1),
            "bytes=-" + "9" * 40: (0, SIZE - 1),
            "BYTES=5-9": (5, 9),
            "bytes= 5-9 ,": (5, 9),
            "bytes=5-9,5000-6000": (5, 9),
            "bytes=-0,5-9": (5, 9),
        }
        for value, (start, end) in spans.items():
            answer = await spool.media(record, Range=value)
            assert (answer.status, answer.body) == (206, DATA[start : end + 1]), value
            assert answer.headers["Content-Range"] == f"bytes {start}-{end}/{SIZE}"
            assert answer.headers["Content-Length"] == str(end - start + 1)
            assert answer.headers["Content-Type"] == record["media_type"]

    @pytest.mark.parametrize(
        ("value", "spans"),
        [
            ("bytes=0-0,-1", [(0, 0), (1023, 1023)]),
            ("bytes=500-599, 0-99", [(500, 599), (0, 99)]),
            ("bytes=10-19,30-39,5000-,1000-", [(10, 19), (30, 39), (1000, 1023)]),
            ("bytes=13-13,10-10,26-26", [(13, 13), (10, 10), (26, 26)]),
        ],
    )
    async def test_several_spans_are_parts_in_the_order_asked_for(
        self, spool: Spool, record: dict[str, Any], value: str, spans: list[tuple[int, int]]
    ) -> None:
        answer = await spool.media(record, Range=value)
        assert answer.status == 206
        assert "Content-Range" not in answer.headers
        assert answer.headers["Content-Length"] == str(len(answer.body))
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + answer.body)
        assert message.get_content_type() == "multipart/byteranges"
        assert not message.defects
        parts = [
            (part["Content-Type"], part["Content-Range"], part.get_payload(decode=True)) for part in message.walk()
        ]
        assert parts[1:] == [
            (record["media_type"], f"bytes {start}-{end}/{SIZE}", DATA[start : end + 1]) for start, end in spans
        ]

    async def test_range_beyond_the_end_is_unsatisfiable(self, spool: Spool, record: dict[str, Any]) -> None:
        beyond = ("bytes=1024-", "bytes=1024-2000", "bytes=-0", "bytes=" + "9" * 40 + "-", "bytes=2000-,3000-")
        for value in beyond:
            answer = await spool.media(record, Range=value)
            assert (answer.status, answer.slug) == (416, "unsatisfiable-range"), value
            assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"

    async def test_range_that_means_nothing_is_ignored(self, spool: Spool, record: dict[str, Any]) -> None:
        meaningless = (
            "items=0-1",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=9-5",
            "bytes=a-b",
            "bytes=0x1-0x2",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=1.0-2",
            "bytes=0-9,9-5",
            "0-9",
            "bytes=0-9;1-2",
            "bytes=\u0661-\u0662",
            "bytes=0-1023,0-1023",
            "bytes=" + ",".join(["0-0"] * 11),
        )
        for value in meaningless:
            answer = await spool.media(record, Range=value)
            assert (answer.status, answer.body) == (200, DATA), value
            assert "Content-Range" not in answer.headers

    async def test_head_ignores_a_range(self, spool: Spool, record: dict[str, Any]) -> None:
        answer = await spool.media(record, "HEAD", Range="bytes=0-9")
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(SIZE)
        assert (await spool.media(record, "HEAD", Range="bytes=5000-")).status == 200

    async def test_digest_is_of_the_whole_file(self, spool: Spool, record: dict[str, Any]) -> None:
        whole = await spool.media(record, "HEAD")
        for value in ("bytes=0-9", "bytes=0-9,20-29"):
            assert (await spool.media(record, Range=value)).headers["Repr-Digest"] == whole.headers["Repr-Digest"]

    async def test_empty_file_has_no_ranges(self, spool: Spool) -> None:
        empty = await spool.stored("empty", b"")
        for value in ("bytes=0-", "bytes=-1", "bytes=0-0,1-1"):
            answer = await spool.media(empty, Range=value)
            assert (answer.status, answer.body) == (200, b""), value


class TestIfRange:
    async def test_strong_tag_of_the_file_lets_the_range_apply(self, spool: Spool, record: dict[str, Any]) -> None:
        assert (await spool.media(record, Range="bytes=0-9", If_Range=ETAG)).body == DATA[:10]

    async def test_any_other_tag_gives_the_whole_file(self, spool: Spool, record: dict[str, Any]) -> None:
        for tag in (OTHER, "W/" + ETAG, ETAG[1:-1], '""', "*", f"{OTHER}, {ETAG}", "nonsense"):
            answer = await spool.media(record, Range="bytes=0-9", If_Range=tag)
            assert (answer.status, answer.body) == (200, DATA), tag

    async def test_tag_of_another_file_hides_even_an_unsatisfiable_range(
        self, spool: Spool, record: dict[str, Any]
    ) -> None:
        assert (await spool.media(record, Range="bytes=5000-", If_Range=OTHER)).status == 200

    @pytest.mark.parametrize(("offset", "status"), [(-1, 200), (0, 206), (1, 200)])
    async def test_date_must_be_the_very_one(
        self, spool: Spool, record: dict[str, Any], offset: int, status: int
    ) -> None:
        moment = await modified(spool, record) + timedelta(seconds=offset)
        assert (await spool.media(record, Range="bytes=0-9", If_Range=date(moment))).status == status


class TestConditions:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_if_match_compares_strongly(self, spool: Spool, record: dict[str, Any], method: str) -> None:
        expected = {ETAG: 200, "*": 200, f"{OTHER}, {ETAG}": 200, OTHER: 412, "W/" + ETAG: 412, "": 412}
        statuses = {value: (await spool.media(record, method, If_Match=value)).status for value in expected}
        assert statuses == expected
        assert (await spool.media(record, If_Match=OTHER)).slug == "precondition-failed"

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_if_none_match_compares_weakly(self, spool: Spool, record: dict[str, Any], method: str) -> None:
        tags = {ETAG: 304, "W/" + ETAG: 304, "*": 304, f'"a,b", {ETAG}': 304, OTHER: 200, "nonsense": 200}
        for value, status in tags.items():
            answer = await spool.media(record, method, If_None_Match=value)
            assert (answer.status, answer.body) == (status, DATA if status == 200 and method == "GET" else b""), value

    async def test_condition_in_several_lines_is_one(self, spool: Spool, record: dict[str, Any]) -> None:
        head = f"GET /media/{record['id']}/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        answer = await spool.raw(f"{head}If-None-Match: {OTHER}\r\nIf-None-Match: {ETAG}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 304")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_if_modified_since_spares_an_unchanged_file(
        self, spool: Spool, record: dict[str, Any], method: str
    ) -> None:
        moment = await modified(spool, record)
        for offset, status in ((-1, 200), (0, 304), (1, 304)):
            since = date(moment + timedelta(seconds=offset))
            assert (await spool.media(record, method, If_Modified_Since=since)).status == status, offset

    async def test_if_unmodified_since_refuses_a_younger_file(self, spool: Spool, record: dict[str, Any]) -> None:
        moment = await modified(spool, record)
        for offset, status in ((-1, 412), (0, 200), (1, 200)):
            since = date(moment + timedelta(seconds=offset))
            assert (await spool.media(record, If_Unmodified_Since=since)).status == status, offset

    @pytest.mark.parametrize("name", ["If_Modified_Since", "If_Unmodified_Since"])
    async def test_date_that_cannot_be_read_is_no_condition(
        self, spool: Spool, record: dict[str, Any], name: str
    ) -> None:
        assert (await spool.media(record, **{name: "yesterday"})).status == 200

    async def test_tags_come_before_dates(self, spool: Spool, record: dict[str, Any]) -> None:
        moment = await modified(spool, record)
        old, new = date(moment - timedelta(days=1)), date(moment + timedelta(days=1))
        assert (await spool.media(record, If_None_Match=OTHER, If_Modified_Since=new)).status == 200
        assert (await spool.media(record, If_Match=ETAG, If_Unmodified_Since=old)).status == 200

    async def test_failed_precondition_comes_before_not_modified(self, spool: Spool, record: dict[str, Any]) -> None:
        assert (await spool.media(record, If_Match=OTHER, If_None_Match=ETAG)).status == 412

    async def test_not_modified_comes_before_the_range(self, spool: Spool, record: dict[str, Any]) -> None:
        assert (await spool.media(record, If_None_Match=ETAG, Range="bytes=5000-")).status == 304

    async def test_not_modified_repeats_what_the_cache_needs(self, spool: Spool, record: dict[str, Any]) -> None:
        whole = await spool.media(record)
        answer = await spool.media(record, If_None_Match=ETAG)
        for name in ("ETag", "Cache-Control", "Last-Modified"):
            assert answer.headers[name] == whole.headers[name]
        assert "Content-Length" not in answer.headers


class TestHead:
    async def test_is_the_head_of_a_get_without_a_body(self, spool: Spool, record: dict[str, Any]) -> None:
        get, head = [dict((await spool.media(record, method)).headers) for method in ("GET", "HEAD")]
        assert head == {**get, "Date": head["Date"], "X-Request-ID": head["X-Request-ID"]}
        request = f"HEAD /media/{record['id']}/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await spool.raw(request.encode())).endswith(b"\r\n\r\n")


async def test_content_is_fenced_in_whatever_the_status(spool: Spool, record: dict[str, Any]) -> None:
    for headers, status in (
        ({}, 200),
        ({"Range": "bytes=0-9"}, 206),
        ({"Range": "bytes=0-9,20-29"}, 206),
        ({"If-None-Match": ETAG}, 304),
    ):
        answer = await spool.get(f"/media/{record['id']}/x", headers=headers)
        assert answer.status == status
        assert {name: answer.headers.get(name) for name in PROTECTION} == PROTECTION


INLINE: Final = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
    "image/gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00\x00\x00\x30\x01\x00\x9d\x01\x2a\x01\x00\x01\x00",
    "text/plain": b"just words\n",
    "audio/mpeg": b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\xff\xfb\x90\x64" + bytes(400),
    "audio/x-wav": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes.fromhex("10000000 01000100 44ac0000 88580100 02001000"),
    "video/mp4": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + bytes(64),
}
ATTACHED: Final = {
    "text/html": b"<!DOCTYPE html><html><body><script>alert(1)</script></body></html>",
    "image/svg+xml": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "text/xml": b'<?xml version="1.0"?><root><a/></root>',
    "application/pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    "application/octet-stream": b"\x00\x01\x02\x03",
    "application/javascript": b"#!/usr/bin/env node\nalert(1)\n",
    "application/gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(20),
    "application/json": b'{"a": 1}',
}


class TestDisposition:
    async def test_harmless_type_is_shown_in_place(self, spool: Spool) -> None:
        for media_type, data in INLINE.items():
            record = await spool.stored("x.html", data, headers={"Content-Type": "text/html"})
            answer = await spool.media(record)
            assert answer.headers["Content-Type"] == record["media_type"] == media_type
            assert answer.headers["Content-Disposition"] == 'inline; filename="x.html"', media_type

    async def test_any_other_type_is_saved(self, spool: Spool) -> None:
        for media_type, data in ATTACHED.items():
            record = await spool.stored("x.png", data, headers={"Content-Type": "image/png"})
            answer = await spool.media(record)
            assert answer.headers["Content-Type"] == record["media_type"] == media_type
            assert answer.headers["Content-Disposition"] == 'attachment; filename="x.png"', media_type

    async def test_download_saves_what_could_be_shown(self, spool: Spool) -> None:
        record = await spool.stored("x.png", PNG)
        for query in ("?download", "?download=", "?download=1"):
            answer = await spool.get(f"/media/{record['id']}/x.png{query}")
            assert answer.headers["Content-Disposition"] == 'attachment; filename="x.png"', query

    async def test_name_survives_in_one_ascii_line(self, spool: Spool, record: dict[str, Any]) -> None:
        names = [
            'quo"te.txt',
            "semi;colon=x.txt",
            "100%.txt",
            "%41%0d%0a.txt",
            "żółw 🐢.txt",
            "naïve.txt",
            "filename*=UTF-8''x",
            "'single'.txt",
            "a, b.txt",
            "a\u00a0b",
            "日本語" * 28,
            "(comment).txt",
            "*.txt",
        ]
        for name in names:
            assert (await spool.patch(record, {"filename": name})).json["filename"] == name
            value = (await spool.media(record)).headers["Content-Disposition"]
            match = re.fullmatch(
                r"attachment; filename=\"([ -~]*?)\"(?:; filename\*=UTF-8''([\w!#$&+\-.^`|~%]+))?", value, re.ASCII
            )
            assert match, value
            fallback, extended = match.groups()
            assert not set(fallback) & set('"\\%')
            assert (fallback if extended is None else unquote(extended, errors="strict")) == name
            assert len(fallback) == len(name)


class TestGone:
    async def test_deleted_file_has_no_bytes(self, spool: Spool, record: dict[str, Any]) -> None:
        await spool.request("DELETE", f"/files/{record['id']}")
        answer = await spool.media(record)
        assert (answer.status, answer.slug) == (404, "not-found")

    async def test_expired_file_has_no_bytes_before_the_sweep(self, spool: Spool) -> None:
        expires_at = (spool.clock.time + timedelta(hours=1)).isoformat()
        record = await spool.stored(f"a?expires_at={expires_at.replace('+', '%2B')}", DATA)
        assert (await spool.media(record)).status == 200
        spool.clock.time += timedelta(hours=1)
        answer = await spool.media(record)
        assert (answer.status, answer.slug) == (404, "not-found")
        assert spool.kept()

    @pytest.mark.parametrize("path", ["/media/nothing/x", "/media/%2e%2e/x", "/media/%00/x"])
    async def test_unknown_id_is_not_found(self, spool: Spool, path: str) -> None:
        assert (await spool.get(path)).slug == "not-found"

    async def test_file_whose_blob_has_vanished_is_damaged(self, spool: Spool, record: dict[str, Any]) -> None:
        spool.kept()[0].unlink()
        answer = await spool.media(record)
        assert (answer.status, answer.slug, answer.json["damage"]) == (410, "damaged", "missing")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_file_that_is_known_to_be_damaged_is_not_sent(
        self, spool: Spool, record: dict[str, Any], method: str
    ) -> None:
        await spool.site.index.mark((await spool.site.catalog.file(record["id"])).key, "digest")
        assert (await spool.media(record, method=method)).status == 410
        assert (await spool.get(f"/files/{record['id']}")).json["damage"] == "digest"

    async def test_small_blob_that_became_too_short_is_damaged(self, spool: Spool, record: dict[str, Any]) -> None:
        os.truncate(spool.kept()[0], 100)
        assert (await spool.media(record)).status == 410

    async def test_blob_that_became_too_short_ends_the_connection(self, spool: Spool) -> None:
        record = await spool.stored("data.bin", DATA * 100)
        os.truncate(spool.kept()[0], 100)
        get = f"GET /media/{record['id']}/x HTTP/1.1\r\nHost: localhost\r\n"
        answer = await spool.raw(f"{get}\r\n{get}Connection: close\r\n\r\n".encode())
        assert answer.count(b"HTTP/1.1 ") == 1, "the next answer was sent where the file's bytes were missing"
        assert answer.endswith(DATA[:100])


async def test_client_that_leaves_in_the_middle_is_no_error(ear: Ear, spool: Spool) -> None:
    record = await spool.stored("big.bin", io.BytesIO(bytes(24 * 2**20)))
    async with spool.client.get(f"/media/{record['id']}/x") as answer:
        await answer.content.readexactly(1000)
        answer.close()
    assert await spool.site.traffic.drain(10)
    assert not ear.tracebacks


class TestSignedAddress:
    """The bytes on an origin of their own, where no token goes."""

    ORIGIN: Final = "https://media.example.org"

    @pytest.fixture
    async def spool(self, serve: Serve) -> Spool:
        spool = await serve({"server.media_base_url": self.ORIGIN})
        spool.token = await spool.new_token("admin")
        return spool

    async def signed(self, spool: Spool, record: Mapping[str, Any], query: str = "") -> str:
        """Path and query of the address that leads to the file's bytes."""
        answer = await spool.get(f"/files/{record['id']}/content{query}")
        assert answer.status == 302
        assert answer.headers["Location"].startswith(f"{self.ORIGIN}/media/{record['id']}/data.bin?")
        address = urlsplit(answer.headers["Location"])
        return f"{address.path}?{address.query}"

    async def status(self, spool: Spool, path: str, method: str = "GET") -> int:
        """Without a token."""
        async with spool.client.request(method, path) as answer:
            return answer.status

    async def test_works_without_a_token(self, spool: Spool, record: dict[str, Any]) -> None:
        async with spool.client.get(await self.signed(spool, record), headers={"Range": "bytes=0-9"}) as answer:
            assert (answer.status, await answer.read()) == (206, DATA[:10])

    async def test_works_for_head(self, spool: Spool, record: dict[str, Any]) -> None:
        assert await self.status(spool, await self.signed(spool, record), "HEAD") == 200

    async def test_works_until_it_expires(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record)
        spool.clock.time += timedelta(hours=5, minutes=59)
        assert await self.status(spool, path) == 200
        spool.clock.time += timedelta(minutes=1)
        assert await self.status(spool, path) == 403

    async def test_works_for_no_other_file(self, spool: Spool, record: dict[str, Any]) -> None:
        other = await spool.stored("other", DATA)
        path = await self.signed(spool, record)
        assert await self.status(spool, path.replace(record["id"], other["id"])) == 403

    async def test_does_not_work_once_changed(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record)
        for pattern, replacement in (
            (r"signature=.", "signature="),
            (r"signature=(.*)", r"signature=\g<1>0"),
            (r"signature=.*", "signature="),
            (r"signature=.*", "signature"),
            (r"signature=.*", "signature=%C5%BC"),
            (r"expires=(\d+)", r"expires=9\g<1>"),
            (r"expires=(\d+)", r"expires=\g<1>0"),
            (r"expires=\d+", "expires="),
            (r"expires=\d+&", ""),
            (r"expires=\d+", "expires=-1"),
            (r"expires=\d+", "expires=%D9%A1"),
            (r"expires=\d+", "expires=" + "9" * 5000),
        ):
            changed = re.sub(pattern, replacement, path)
            assert changed != path
            assert await self.status(spool, changed) == 403, changed

    async def test_last_character_of_the_signature_counts(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record)
        assert await self.status(spool, path[:-1] + ("0" if path[-1] != "0" else "1")) == 403

    async def test_opens_nothing_but_the_bytes(self, spool: Spool, record: dict[str, Any]) -> None:
        query = urlsplit(await self.signed(spool, record)).query
        assert await self.status(spool, f"/files/{record['id']}?{query}") == 401
        assert await self.status(spool, f"/files/{record['id']}?{query}", "DELETE") == 401

    async def test_does_not_outlive_the_file(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record)
        await spool.request("DELETE", f"/files/{record['id']}")
        assert await self.status(spool, path) == 404

    async def test_keeps_the_wish_to_save(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record, "?download")
        assert "download" in urlsplit(path).query.split("&")
        assert await self.status(spool, path) == 200

    async def test_is_not_logged(self, ear: Ear, serve: Serve) -> None:
        spool = await serve({"server.media_base_url": self.ORIGIN})
        spool.token = await spool.new_token("admin")
        path = await self.signed(spool, await spool.stored("data.bin", DATA))
        assert await self.status(spool, path) == 200
        await ear.event("request.finished")
        signature = path.rpartition("=")[2]
        assert not [record for record in ear.records if signature in f"{record.getMessage()}{record.args}"]

    async def test_bearer_token_works_without_a_signature(self, spool: Spool, record: dict[str, Any]) -> None:
        assert (await spool.media(record)).body == DATA
        assert await self.status(spool, f"/media/{record['id']}/x") == 401

    async def test_bearer_token_works_with_an_expired_signature(self, spool: Spool, record: dict[str, Any]) -> None:
        path = await self.signed(spool, record)
        spool.clock.time += timedelta(hours=7)
        assert (await spool.get(path)).status == 200


async def test_address_is_not_signed_on_the_same_origin(spool: Spool, record: dict[str, Any]) -> None:
    answer = await spool.get(f"/files/{record['id']}/content?download")
    assert urlsplit(answer.headers["Location"]).query == "download"


async def test_server_next_to_a_proxy_that_sends_the_bytes_only_says_where(serve: Serve) -> None:
    spool = await serve({"server.accel": "x-accel-redirect"})
    spool.token = await spool.new_token("admin")
    record = await spool.stored("data.bin", DATA)
    answer = await spool.media(record, Range="bytes=0-9")
    assert (answer.status, answer.body) == (200, b"")
    (blob,) = spool.kept()
    assert answer.headers["X-Accel-Redirect"] == f"/spool-blobs/{blob.relative_to(spool.dir / 'blobs')}"
    assert answer.headers["Content-Type"] == record["media_type"]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="data.bin"'
    assert (await spool.media(record, If_None_Match=ETAG)).status == 304
    assert (await spool.media(record, If_Match=OTHER)).status == 412
