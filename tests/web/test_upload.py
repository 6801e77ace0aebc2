from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

from tests.web.conftest import PNG, TEXT, Tap, form

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.web.conftest import Answer, Ear, Part, Serve, Spool

KIB: Final = 1024
HUGE: Final = 10**17


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for chunk in data:
        yield chunk


async def held(spool: Spool, tap: Tap, name: str = "held.bin", **kw: Any) -> asyncio.Task[Answer]:
    """A PUT that was admitted, and waits for the rest of its body."""
    headers = {"Content-Length": str(len(tap.whole)), **kw.pop("headers", {})}
    task = asyncio.create_task(spool.put(name, tap, expect100=True, headers=headers, **kw))
    started = asyncio.create_task(tap.started.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    assert tap.started.is_set(), task.result()
    return task


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    value = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(value).decode()}:"


class TestLimits:
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_file_of_a_put(self, serve: Serve, *, chunked: bool) -> None:
        spool = await serve({"limits.max_file_size": 1000})
        assert (await spool.put("fits", bytes(1000))).status == 201
        answer = await spool.put("a", chunks(bytes(999), bytes(2)) if chunked else bytes(1001))
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 1000)
        assert await spool.listed() == ["fits"]
        assert len(spool.kept()) == 1

    async def test_file_of_a_form(self, serve: Serve) -> None:
        spool = await serve({"limits.max_file_size": 1000})
        assert (await spool.post(("f", "a", bytes(1000)))).status == 201
        answer = await spool.post(("f", "a", bytes(1001)))
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 1000)

    async def test_form_as_a_whole(self, serve: Serve) -> None:
        spool = await serve({"limits.max_file_size": 1000})
        tap = Tap()
        headers = {"Content-Length": str(10**9), "Content-Type": "multipart/form-data; boundary=b"}
        answer = await spool.request("POST", "/files", data=tap, headers=headers, expect100=True)
        assert (answer.status, answer.slug) == (413, "too-large")
        assert 1000 < answer.json["limit"] < 10**9
        assert not tap.started.is_set()

    async def test_form_that_never_says_how_large_it_is(self, serve: Serve) -> None:
        spool = await serve({"limits.max_file_size": 1000})
        files = [("f", f"{n}", bytes(1000)) for n in range(100)]
        large = [("f", None, bytes(1000)) for _ in range(100)]
        body, headers = form(*files, *large)
        answer = await spool.request("POST", "/files", data=chunks(body, bytes(3 * 2**20)), headers=headers)
        assert (answer.status, answer.slug) == (413, "too-large")
        assert await spool.nothing_is_left()

    async def test_files_of_a_form(self, serve: Serve) -> None:
        spool = await serve({"limits.max_files": 2})
        files: list[Part] = [("f", "a", TEXT)] * 3
        assert (await spool.post(*files[:2])).status == 201
        answer = await spool.post(*files)
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 2)
        assert len(await spool.listed()) == 2
        assert len(spool.kept()) == 1  # for both have the same bytes

    async def test_fields_of_a_form(self, serve: Serve) -> None:
        spool = await serve({"limits.max_fields": 2})
        fields: list[Part] = [("x", None, b"1")] * 3
        assert (await spool.post(*fields[:2], ("f", "a", TEXT))).status == 201
        answer = await spool.post(("f", "a", TEXT), *fields)
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 2)

    async def test_fields_of_a_put(self, serve: Serve) -> None:
        spool = await serve({"limits.max_fields": 2, "limits.max_fields_size": 8})
        assert (await spool.put("a?a=1&b=2")).status == 201
        answer = await spool.put("a?a=1&b=2&c=3")
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 2)
        answer = await spool.put("a?a=12345678")
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 8)

    @pytest.mark.parametrize(
        "fields",
        [
            [("name", None, bytes(997))],
            [("name", None, bytes(500)), ("name", None, bytes(500))],
            [("n" * 1001, None, b"")],
            [("a", None, bytes(2000)), ("b", None, b"")],
        ],
    )
    async def test_bytes_of_all_fields(self, serve: Serve, fields: list[Part]) -> None:
        spool = await serve({"limits.max_fields_size": 1000})
        assert (await spool.post(("name", None, b"x" * 996), ("f", "a", TEXT))).status == 201
        answer = await spool.post(("f", "a", TEXT), *fields)
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 1000)

    async def test_parts_of_a_form(self, serve: Serve) -> None:
        spool = await serve({"limits.max_files": 1, "limits.max_fields": 1})
        nothing: list[Part] = [("f", "", b"")] * 3
        answer = await spool.post(*nothing)
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 2)

    async def test_headers_of_a_part(self, serve: Serve) -> None:
        spool = await serve({"limits.max_part_headers": 3})
        assert (await self.post_with_headers(spool, b"A: 1\r\nB: 2\r\n")).status == 201
        answer = await self.post_with_headers(spool, b"A: 1\r\nB: 2\r\nC: 3\r\n")
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 3)

    async def test_bytes_of_a_part_s_headers(self, serve: Serve) -> None:
        spool = await serve({"limits.max_part_headers_size": 200})
        answer = await self.post_with_headers(spool, b"A: " + b"x" * 200 + b"\r\n")
        assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 200)

    async def post_with_headers(self, spool: Spool, headers: bytes) -> Answer:
        body, own = form(("f", "a", TEXT))
        return await spool.request("POST", "/files", data=body.replace(b"\r\n", b"\r\n" + headers, 1), headers=own)

    async def test_uploads_at_once(self, serve: Serve) -> None:
        spool = await serve({"limits.max_uploads": 1})
        tap = Tap()
        first = await held(spool, tap)
        second = Tap()
        answer = await spool.put("b", second, expect100=True)
        assert (answer.status, answer.slug, answer.json["limit"]) == (429, "too-many", 1)
        assert int(answer.headers["Retry-After"]) > 0
        assert not second.started.is_set()
        tap.opened.set()
        assert (await first).status == 201
        assert (await spool.put("b")).status == 201

    async def test_refused_upload_gives_its_slot_back(self, serve: Serve) -> None:
        spool = await serve({"limits.max_uploads": 1, "policy.deny_types": "text/*"})
        for _ in range(3):
            assert (await spool.put()).slug == "bad-type"
            assert (await spool.post(("x", None, b""))).slug == "bad-request"
        assert (await spool.put("x.png", PNG)).status == 201

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_space_that_must_stay_free(self, serve: Serve, *, chunked: bool) -> None:
        spool = await serve({"limits.min_free_space": HUGE})
        tap = Tap()
        headers = {} if chunked else {"Content-Length": str(len(tap.whole))}
        answer = await spool.put("a", tap, expect100=True, headers=headers)
        assert (answer.status, answer.slug) == (507, "storage-full")
        assert int(answer.headers["Retry-After"]) > 0
        assert not tap.started.is_set()

    async def test_space_counts_what_running_uploads_may_still_write(self, serve: Serve) -> None:
        spool = await serve({"limits.max_file_size": HUGE})
        free = await spool.blobs.free()
        tap = Tap(rest=b"")
        first = await held(spool, tap, headers={"Content-Length": str(free // 2)})
        answer = await spool.put("b", Tap(), expect100=True, headers={"Content-Length": str(free // 2)})
        assert answer.slug == "storage-full"
        first.cancel()

    async def test_quota(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 1000})
        assert (await spool.put("a", bytes(600))).status == 201
        answer = await spool.put("b", bytes(401))
        assert (answer.status, answer.slug) == (413, "quota-exceeded")
        assert (answer.json["limit"], answer.json["used"]) == (1000, 1001)
        assert (await spool.put("c", bytes(400))).status == 201

    async def test_quota_is_of_each_principal(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 1000})
        ada, bob = [await spool.new_token("upload", name=name) for name in ("ada", "bob")]
        assert [(await spool.put("a", bytes(800), token=token)).status for token in (ada, bob, ada)] == [201, 201, 413]

    async def test_quota_counts_uploads_that_run(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 1000})
        tap = Tap(bytes(300), bytes(300))
        first = await held(spool, tap)
        assert (await spool.put("b", bytes(600))).slug == "quota-exceeded"
        assert (await spool.put("c", bytes(400))).status == 201
        tap.opened.set()
        assert (await first).status == 201

    async def test_quota_of_uploads_that_start_together_goes_to_one(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": 1000})
        answers = await asyncio.gather(*(spool.put(f"{n}", bytes(600)) for n in range(8)))
        assert sorted(answer.status for answer in answers) == [201, *[413] * 7]
        assert len(spool.kept()) == 1

    async def test_quota_holds_for_a_body_of_unknown_length(self, serve: Serve) -> None:
        spool = await serve({"limits.quota": "20 MiB"})
        block = bytes(2**20)
        answer = await spool.put("a", chunks(*[block] * 21))
        assert answer.slug == "quota-exceeded"
        assert await spool.nothing_is_left()


class TestBody:
    async def test_of_unknown_length_is_taken(self, spool: Spool) -> None:
        record = await spool.stored("a.bin", chunks(b"abc", b"", b"def"))
        assert (record["size"], record["sha256"]) == (6, hashlib.sha256(b"abcdef").hexdigest())

    async def test_of_neither_length_nor_chunks_is_empty(self, spool: Spool) -> None:
        answer = await spool.raw(b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 201")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["size"] == 0

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
    async def test_with_an_encoding_is_refused(self, spool: Spool, encoding: str) -> None:
        answer = await spool.raw(
            f"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {encoding}\r\nContent-Length: 1\r\n"
            "Connection: close\r\n\r\nx".encode()
        )
        assert answer.startswith(b"HTTP/1.1 415")

    @pytest.mark.parametrize(
        ("head", "body"),
        [
            ("Content-Length: 10", b"abc"),
            ("Content-Length: 10", b""),
            ("Transfer-Encoding: chunked", b"3\r\nabc\r\n"),
            ("Transfer-Encoding: chunked", b"5\r\nabc"),
        ],
    )
    async def test_that_is_cut_off_leaves_nothing(self, ear: Ear, spool: Spool, head: str, body: bytes) -> None:
        request = f"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{head}\r\n\r\n"
        reader, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        writer.write(request.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(body)
        writer.write_eof()
        await ear.event("upload.refused")
        writer.close()
        assert await spool.nothing_is_left()
        assert not ear.tracebacks

    async def test_is_read_in_larger_steps_once_much_came_at_once(self, spool: Spool) -> None:
        steps = []
        for size in (4096, 1_000_000):
            assert (await spool.put(data=bytes(size))).status == 201
            (connection,) = spool.client.server.runner.server.connections  # type: ignore[attr-defined]
            steps.append(connection.transport.max_size)
        assert steps == [256 * 1024, 512 * 1024]

    async def test_with_bad_chunks_is_refused(self, spool: Spool) -> None:
        answer = await spool.raw(
            b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n"
        )
        assert answer.split()[1] == b"400"
        assert await spool.nothing_is_left()

    async def test_of_a_client_that_vanishes_leaves_nothing(self, ear: Ear, spool: Spool) -> None:
        task = await held(spool, Tap())
        task.cancel()
        assert (await ear.event("upload.refused"))["bytes"] <= 5
        assert await spool.nothing_is_left()

    async def test_with_a_content_range_is_refused(self, spool: Spool) -> None:
        assert (await spool.put(headers={"Content-Range": "bytes 0-1/2"})).slug == "bad-request"

    async def test_after_a_refusal_is_not_taken_for_a_request(self, spool: Spool) -> None:
        body = b"DELETE /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        head = f"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Range: x\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await spool.raw(head.encode() + body)
        assert answer.count(b"HTTP/1.1 ") == 1


class TestDigest:
    @pytest.mark.parametrize("field", ["Repr-Digest", "Content-Digest"])
    @pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
    async def test_field_must_be_that_of_the_body(self, spool: Spool, field: str, algorithm: str) -> None:
        assert (await spool.put("good", headers={field: digest(TEXT, algorithm)})).status == 201
        answer = await spool.put("bad", TEXT + b"!", headers={field: digest(TEXT, algorithm)})
        assert (answer.status, answer.slug) == (400, "digest-mismatch")
        assert answer.json["algorithm"] == algorithm
        assert answer.json["actual"] == hashlib.new(algorithm.replace("-", ""), TEXT + b"!").hexdigest()
        assert await spool.listed() == ["good"]
        assert len(spool.kept()) == 1

    async def test_fields_must_all_hold(self, spool: Spool) -> None:
        both = {"Repr-Digest": digest(TEXT), "Content-Digest": digest(b"", "sha-512")}
        assert (await spool.put(headers=both)).slug == "digest-mismatch"
        list_of_two = {"Repr-Digest": f"{digest(TEXT)}, {digest(b'', 'sha-512')}"}
        assert (await spool.put(headers=list_of_two)).slug == "digest-mismatch"

    async def test_fields_that_contradict_each_other_cannot_hold(self, spool: Spool) -> None:
        for first, second in ((TEXT, b""), (b"", TEXT)):
            headers = {"Repr-Digest": digest(first), "Content-Digest": digest(second)}
            assert (await spool.put(headers=headers)).slug in ("digest-mismatch", "bad-request")

    async def test_hex_digest_beside_a_field_must_hold_too(self, spool: Spool) -> None:
        path = f"a?sha256={hashlib.sha256(TEXT).hexdigest()}"
        assert (await spool.put(path, headers={"Repr-Digest": digest(b"")})).slug in ("digest-mismatch", "bad-request")

    async def test_of_an_unknown_algorithm_is_ignored(self, spool: Spool) -> None:
        assert (await spool.put(headers={"Repr-Digest": "md5=:AAAAAAAAAAAAAAAAAAAAAA==:, unixsum=1"})).status == 201

    @pytest.mark.parametrize("value", ["sha-256=abc", "sha-256=:AAAA:", "sha-256", "sha-256=:!:", "=", "sha-256=1"])
    async def test_that_cannot_be_read_is_refused(self, spool: Spool, value: str) -> None:
        assert (await spool.put(headers={"Repr-Digest": value})).slug == "bad-request"
        assert await spool.nothing_is_left()

    async def test_in_the_query_must_hold(self, spool: Spool) -> None:
        good = hashlib.sha256(TEXT).hexdigest()
        record = await spool.stored(f"a?sha256={good.upper()}")
        assert record["metadata"] == {}
        assert (await spool.put(f"a?sha256={'0' * 64}")).slug == "digest-mismatch"
        for value in ("abc", good + "0", f"{good}&sha256={good}", "", "z" * 64):
            assert (await spool.put(f"a?sha256={value}")).slug == "bad-request"

    async def test_of_a_form_s_files_stand_in_their_order(self, spool: Spool) -> None:
        files: list[Part] = [("f", "a", b"1"), ("f", "b", b"2")]
        digests = [hashlib.sha256(data).hexdigest().encode() for data in (b"1", b"2")]
        good: list[Part] = [("sha256", None, value) for value in digests]
        assert (await spool.post(*files, *good)).status == 201
        assert (await spool.post(*files, *good[::-1])).slug == "digest-mismatch"
        assert (await spool.post(*files, good[0])).slug == "bad-request"
        assert len(spool.kept()) == 2


class TestIdempotency:
    KEY: Final = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}

    async def test_retry_is_told_what_the_first_was_told(self, spool: Spool) -> None:
        first, retry = [await spool.put(headers=self.KEY) for _ in range(2)]
        assert (retry.status, retry.json) == (201, first.json)
        assert retry.headers["Location"] == first.headers["Location"]
        assert len(spool.kept()) == 1

    async def test_retry_need_not_send_its_body(self, spool: Spool) -> None:
        tap = Tap()
        headers = {**self.KEY, "Content-Length": str(len(tap.whole))}
        first = await spool.put("a", tap.whole, headers=headers)
        retry = await spool.put("a", tap, headers=headers, expect100=True)
        assert retry.json == first.json
        assert not tap.started.is_set()

    async def test_retry_of_a_form_may_have_another_boundary(self, spool: Spool) -> None:
        answers = []
        for boundary in ("first", "other"):
            body, headers = form(("f", "a", TEXT), ("f", "b", TEXT), boundary=boundary)
            answers.append(await spool.request("POST", "/files", data=body, headers={**headers, **self.KEY}))
        assert answers[0].json == answers[1].json
        assert len(await spool.listed()) == 2

    async def test_retry_may_write_the_key_without_quotes(self, spool: Spool) -> None:
        first = await spool.put(headers=self.KEY)
        retry = await spool.put(headers={"Idempotency-Key": self.KEY["Idempotency-Key"].strip('"')})
        assert retry.json == first.json

    async def test_retry_is_answered_after_the_file_was_changed_or_deleted(self, spool: Spool) -> None:
        first = await spool.put(headers=self.KEY)
        await spool.patch(first.json, {"filename": "other"})
        await spool.request("DELETE", f"/files/{first.json['id']}")
        assert (await spool.put(headers=self.KEY)).json == first.json
        assert spool.kept() == []

    async def test_retry_after_a_day_is_a_new_request(self, spool: Spool) -> None:
        first = await spool.put(headers=self.KEY)
        spool.clock.time = spool.clock.time.replace(day=spool.clock.time.day + 2)
        second = await spool.put(headers=self.KEY)
        assert (second.status, second.json["id"] != first.json["id"]) == (201, True)

    async def test_retry_gets_text_if_it_prefers_that(self, spool: Spool) -> None:
        first = await spool.put(headers=self.KEY)
        retry = await spool.put(headers={**self.KEY, "Accept": "text/plain"})
        assert retry.body.decode() == first.json["content_url"] + "\n"

    async def test_key_of_a_running_request_is_in_use(self, spool: Spool) -> None:
        tap = Tap()
        first = await held(spool, tap, headers=self.KEY)
        second = await spool.put("held.bin", tap.whole, headers=self.KEY)
        assert (second.status, second.slug) == (409, "key-in-use")
        assert int(second.headers["Retry-After"]) > 0
        tap.opened.set()
        assert (await spool.put("other", headers={"Idempotency-Key": "another"})).status == 201
        record = (await first).json
        assert (await spool.put("held.bin", tap.whole, headers=self.KEY)).json == record

    async def test_requests_of_one_key_that_start_together_store_one_file(self, spool: Spool) -> None:
        answers = await asyncio.gather(*(spool.put(headers=self.KEY) for _ in range(8)))
        assert {answer.status for answer in answers} <= {201, 409}
        assert len({answer.json["id"] for answer in answers if answer.status == 201}) == 1
        assert len(spool.kept()) == 1

    @pytest.mark.parametrize(
        "other",
        [
            lambda spool, key: spool.put("b.txt", headers=key),
            lambda spool, key: spool.put("a.txt?x=1", headers=key),
            lambda spool, key: spool.put(data=TEXT + b"!", headers=key),
            lambda spool, key: spool.put(headers={**key, "Content-Type": "image/png"}),
            lambda spool, key: spool.put(headers={**key, "Repr-Digest": digest(b"")}),
            lambda spool, key: spool.post(("f", "a.txt", TEXT), headers=key),
        ],
        ids=["name", "query", "length", "type", "digest", "method"],
    )
    async def test_key_of_another_request_is_refused(
        self, spool: Spool, other: Callable[[Spool, dict[str, str]], Any]
    ) -> None:
        assert (await spool.put(headers=self.KEY)).status == 201
        answer = await other(spool, self.KEY)
        assert (answer.status, answer.slug) == (422, "rejected")
        assert len(spool.kept()) == 1

    async def test_key_belongs_to_its_principal(self, spool: Spool) -> None:
        ada, bob = [await spool.new_token("upload", name=name) for name in ("ada", "bob")]
        first, second = [await spool.put(headers=self.KEY, token=token) for token in (ada, bob)]
        assert (first.status, second.status) == (201, 201)
        assert (first.json["owner"], second.json["owner"]) == ("ada", "bob")
        assert (await spool.put("other", headers=self.KEY, token=bob)).slug == "rejected"

    async def test_running_key_of_one_principal_does_not_hinder_another(self, spool: Spool) -> None:
        ada, bob = [await spool.new_token("upload", name=name) for name in ("ada", "bob")]
        tap = Tap()
        first = await held(spool, tap, headers=self.KEY, token=ada)
        assert (await spool.put(headers=self.KEY, token=bob)).status == 201
        tap.opened.set()
        assert (await first).status == 201

    async def test_new_token_of_the_same_name_may_retry(self, spool: Spool) -> None:
        first, second = [await spool.new_token("upload", name="ada") for _ in range(2)]
        record = (await spool.put(headers=self.KEY, token=first)).json
        assert (await spool.put(headers=self.KEY, token=second)).json == record

    async def test_refused_request_does_not_use_up_its_key(self, spool: Spool) -> None:
        refused = {**self.KEY, "Repr-Digest": digest(b"other")}
        assert (await spool.put(headers=refused)).slug == "digest-mismatch"
        assert (await spool.put(headers={**self.KEY, "Repr-Digest": digest(TEXT)})).status == 201

    async def test_vanished_request_does_not_use_up_its_key(self, ear: Ear, spool: Spool) -> None:
        tap = Tap()
        first = await held(spool, tap, headers=self.KEY)
        first.cancel()
        await ear.event("upload.refused")
        assert await spool.site.traffic.drain(10)
        spool.site.traffic.draining = False
        assert (await spool.put("held.bin", tap.whole, headers=self.KEY)).status == 201

    async def test_request_that_found_no_slot_does_not_use_up_its_key(self, serve: Serve) -> None:
        spool = await serve({"limits.max_uploads": 1})
        tap = Tap()
        first = await held(spool, tap)
        assert (await spool.put(headers=self.KEY)).slug == "too-many"
        tap.opened.set()
        await first
        assert (await spool.put(headers=self.KEY)).status == 201

    @pytest.mark.parametrize("key", ["", '""', '"', '"a', '"a"b', "x" * 256, '"ż"', '"a\\"'])
    async def test_key_that_cannot_be_read_is_refused(self, spool: Spool, key: str) -> None:
        assert (await spool.put(headers={"Idempotency-Key": key})).slug == "bad-request"
        assert await spool.nothing_is_left()


class TestAnswer:
    async def test_of_a_put_is_the_record(self, spool: Spool) -> None:
        answer = await spool.put()
        assert answer.headers["Location"] == answer.json["url"]
        assert (await spool.get(f"/files/{answer.json['id']}")).json == answer.json

    async def test_of_a_form_is_a_list_of_records(self, spool: Spool) -> None:
        one = await spool.post(("f", "a", TEXT))
        assert [record["filename"] for record in one.json["files"]] == ["a"]
        assert one.headers["Location"] == one.json["files"][0]["url"]
        two = await spool.post(("f", "a", TEXT), ("g", "b", TEXT))
        assert [record["filename"] for record in two.json["files"]] == ["a", "b"]
        assert "Location" not in two.headers

    @pytest.mark.parametrize(
        ("accept", "text"),
        [
            ("text/plain", True),
            ("text/*", True),
            ("text/plain, application/json;q=0.5", True),
            ("application/json, text/plain", False),
            ("*/*", False),
            ("text/html", False),
            ("", False),
        ],
    )
    async def test_is_text_for_a_client_that_prefers_it(self, spool: Spool, accept: str, *, text: bool) -> None:
        answer = await spool.post(("f", "a", TEXT), ("f", "b", PNG), headers={"Accept": accept})
        assert answer.status == 201
        assert answer.headers["Content-Type"].startswith("text/plain" if text else "application/json")
        if text:
            records = (await spool.get("/files?sort=filename&order=asc")).json["files"]
            assert answer.body.decode() == "".join(record["content_url"] + "\n" for record in records)

    @pytest.mark.parametrize("path", ["/", "/files", "/files/"])
    async def test_form_is_taken_at_each_of_its_addresses(self, spool: Spool, path: str) -> None:
        body, headers = form(("f", "a", TEXT))
        assert (await spool.request("POST", path, data=body, headers=headers)).status == 201


class TestForm:
    """All of its files are stored, or none."""

    GOOD: Final = ("f", "good.png", PNG)

    async def test_whose_second_file_is_of_a_refused_type_leaves_nothing(self, serve: Serve) -> None:
        spool = await serve({"policy.allow_types": "image/*"})
        answer = await spool.post(self.GOOD, ("f", "bad.png", TEXT))
        assert (answer.status, answer.slug, answer.json["media_type"]) == (415, "bad-type", "text/plain")
        assert await spool.nothing_is_left()

    async def test_whose_second_file_is_too_large_leaves_nothing(self, serve: Serve) -> None:
        spool = await serve({"limits.max_file_size": 1000})
        assert (await spool.post(self.GOOD, ("f", "bad", bytes(1001)))).slug == "too-large"
        assert await spool.nothing_is_left()

    async def test_whose_second_digest_is_wrong_leaves_nothing(self, spool: Spool) -> None:
        digests = [hashlib.sha256(PNG).hexdigest().encode(), b"0" * 64]
        fields: list[Part] = [("sha256", None, value) for value in digests]
        assert (await spool.post(*fields, self.GOOD, ("f", "bad", TEXT))).slug == "digest-mismatch"
        assert await spool.nothing_is_left()

    async def test_whose_last_field_is_wrong_leaves_nothing(self, spool: Spool) -> None:
        answer = await spool.post(self.GOOD, ("f", "b", TEXT), ("expires_at", None, b"yesterday"))
        assert answer.slug == "bad-request"
        assert await spool.nothing_is_left()

    async def test_that_ends_before_its_closing_boundary_leaves_nothing(self, spool: Spool) -> None:
        body, headers = form(self.GOOD, ("f", "b", TEXT))
        for cut in (3, 4, 9, 12, 40, 120):
            answer = await spool.request("POST", "/files", data=body[:-cut], headers=headers)
            assert answer.slug == "cut-off", body[:-cut]
            assert await spool.nothing_is_left()

    async def test_of_a_client_that_vanishes_leaves_nothing(self, ear: Ear, spool: Spool) -> None:
        body, headers = form(self.GOOD, ("f", "b", TEXT))
        tap = Tap(body[:-40], body[-40:])
        task = asyncio.create_task(spool.request("POST", "/files", data=tap, headers=headers, expect100=True))
        await tap.started.wait()
        task.cancel()
        await ear.event("upload.refused")
        assert await spool.site.traffic.drain(10)
        spool.site.traffic.draining = False
        assert await spool.nothing_is_left()

    @pytest.mark.parametrize(
        ("media_type", "slug"),
        [
            ("multipart/form-data", "bad-request"),
            ("multipart/form-data; boundary=", "bad-request"),
            ('multipart/form-data; boundary=""', "bad-request"),
            ("multipart/form-data; boundary=" + "x" * 71, "bad-request"),
            ("multipart/form-data; charset=utf-8", "bad-request"),
            ("multipart/form-data; boundary=a b", "bad-request"),
            ("nonsense", "bad-request"),
            ("multipart/mixed; boundary=limit", "bad-type"),
            ("application/x-www-form-urlencoded", "bad-type"),
            ("application/json", "bad-type"),
        ],
    )
    async def test_of_a_type_that_is_none_is_refused(self, spool: Spool, media_type: str, slug: str) -> None:
        body, _ = form(self.GOOD)
        answer = await spool.request("POST", "/files", data=body, headers={"Content-Type": media_type})
        assert answer.slug == slug
        assert await spool.nothing_is_left()

    async def test_boundary_may_be_quoted(self, spool: Spool) -> None:
        body, _ = form(self.GOOD, boundary="a b?c")
        headers = {"Content-Type": 'Multipart/Form-Data; charset=utf-8; Boundary="a b?c"'}
        assert (await spool.request("POST", "/files", data=body, headers=headers)).status == 201

    async def test_without_a_file_is_refused(self, spool: Spool) -> None:
        for parts in ([("a", None, b"1")], [("f", "", b"")], []):
            assert (await spool.post(*parts)).slug in ("bad-request", "cut-off")

    async def test_file_without_a_name_is_a_file_if_it_has_bytes(self, spool: Spool) -> None:
        answer = await spool.post(("f", "", TEXT), ("f", "", b""), ("f", "b", b""))
        assert [(r["filename"], r["size"]) for r in answer.json["files"]] == [("unnamed", len(TEXT)), ("b", 0)]


class TestMetadata:
    async def test_of_a_form_is_kept_in_every_script(self, spool: Spool) -> None:
        fields: list[Part] = [
            ("tytuł", None, "żółw 🐢".encode()),
            ("x", None, b""),
            ("t", None, b"1"),
            ("t", None, b"2\r\n3"),
        ]
        answer = await spool.post(*fields, ("f", "a", TEXT))
        expected = {"tytuł": "żółw 🐢", "x": "", "t": ["1", "2\r\n3"]}
        assert answer.json["files"][0]["metadata"] == expected
        assert (await spool.get(f"/files/{answer.json['files'][0]['id']}")).json["metadata"] == expected

    async def test_of_a_put_is_kept_in_every_script(self, spool: Spool) -> None:
        record = await spool.stored(f"a?{quote('tytuł')}={quote('żółw 🐢')}&t=1&t=2&x=&y=a%2Bb+c%00")
        assert record["metadata"] == {"tytuł": "żółw 🐢", "t": ["1", "2"], "x": "", "y": "a+b c\0"}

    async def test_that_is_no_unicode_is_mended(self, spool: Spool) -> None:
        answer = await spool.post(("a", None, b"\xff\xed\xa0\x80"), ("f", "a", TEXT))
        assert set(answer.json["files"][0]["metadata"]["a"]) == {"\ufffd"}

    async def test_name_of_a_put_is_kept_in_every_script(self, spool: Spool) -> None:
        name = "żółw 🐢 100% + ?#.txt"
        assert (await spool.stored(quote(name)))["filename"] == name

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("..%2F..%2Fetc%2Fpasswd", "passwd"),
            ("%20", "unnamed"),
            ("a%00b", "ab"),
            ("", "unnamed"),
            ("C%3A%5Cx.txt", "x.txt"),
        ],
    )
    async def test_name_of_a_put_is_never_a_path(self, spool: Spool, path: str, name: str) -> None:
        assert (await spool.stored(path))["filename"] == name

    async def test_declared_type_is_kept_alike_whether_by_form_or_put(self, spool: Spool) -> None:
        for declared in ("Image/PNG; charset=x", "no type at all", "text/plain"):
            body, headers = form(("f", "a", TEXT))
            body = body.replace(b"\r\n", f"\r\nContent-Type: {declared}\r\n".encode(), 1)
            posted = await spool.request("POST", "/files", data=body, headers=headers)
            record = await spool.stored(headers={"Content-Type": declared})
            assert record["declared_type"] == posted.json["files"][0]["declared_type"], declared

    async def test_name_may_come_in_a_content_disposition(self, spool: Spool) -> None:
        headers = {"Content-Disposition": "attachment; filename=\"x\"; filename*=UTF-8''%C5%BC.txt"}
        assert (await spool.stored("", headers=headers))["filename"] == "ż.txt"
        assert (await spool.stored("address.txt", headers=headers))["filename"] == "address.txt"

    @pytest.mark.parametrize("value", [b"text/\xff", b"\xed\xa0\x80", b"no type at all", b"a/b; c=\xff"])
    async def test_type_that_is_none_does_not_hinder_an_upload(self, spool: Spool, value: bytes) -> None:
        head = b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n"
        answer = await spool.raw(head + b"Content-Type: " + value + b"\r\n\r\nx")
        assert answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 400")), answer
        assert len(await spool.listed()) == len(spool.kept())


class TestAddresses:
    FORWARDED: Final = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "spool.example.org",
        "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
    }

    async def start(self, serve: Serve, settings: dict[str, object]) -> Spool:
        spool = await serve(settings)
        spool.token = await spool.new_token("admin")
        return spool

    async def test_forwarded_fields_of_a_stranger_are_ignored(self, ear: Ear, serve: Serve) -> None:
        spool = await self.start(serve, {"server.trusted_proxies": "192.0.2.0/24,2001:db8::/32"})
        answer = await spool.put(headers=self.FORWARDED)
        assert answer.headers["Location"].startswith(str(spool.client.make_url("/")))
        assert answer.json["content_url"].startswith(str(spool.client.make_url("/")))
        assert (await ear.event("request.finished"))["client"] == "127.0.0.1"

    async def test_forwarded_host_that_is_none_is_refused(self, serve: Serve) -> None:
        spool = await self.start(serve, {"server.trusted_proxies": "127.0.0.1"})
        answer = await spool.put(headers=self.FORWARDED | {"X-Forwarded-Host": "evil.example/x"})
        assert answer.status == 400
        assert await spool.listed() == []

    async def test_forwarded_scheme_that_is_none_is_ignored(self, serve: Serve) -> None:
        spool = await self.start(serve, {"server.trusted_proxies": "127.0.0.1"})
        answer = await spool.put(headers=self.FORWARDED | {"X-Forwarded-Proto": "javascript"})
        assert answer.headers["Location"].startswith("http://spool.example.org/files/")

    async def test_forwarded_fields_are_ignored_by_default(self, ear: Ear, serve: Serve) -> None:
        spool = await self.start(serve, {})
        answer = await spool.put(headers=self.FORWARDED)
        assert answer.headers["Location"].startswith(str(spool.client.make_url("/")))
        assert (await ear.event("request.finished"))["client"] == "127.0.0.1"

    async def test_forwarded_fields_of_a_trusted_proxy_are_used(self, ear: Ear, serve: Serve) -> None:
        spool = await self.start(serve, {"server.trusted_proxies": "127.0.0.0/8"})
        answer = await spool.put(headers=self.FORWARDED)
        assert answer.headers["Location"] == f"https://spool.example.org/files/{answer.json['id']}"
        assert answer.json["content_url"] == f"https://spool.example.org/files/{answer.json['id']}/content"
        assert (await ear.event("request.finished"))["client"] == "198.51.100.7"

    @pytest.mark.parametrize(
        ("forwarded", "client"),
        [
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, 10.0.0.2, 10.0.0.1", "203.0.113.9"),
            ("10.0.0.9, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
            ("10.0.0.2", "10.0.0.2"),
            ("nonsense, 10.0.0.1", "nonsense"),
            ("2001:db8::1", "2001:db8::1"),
            ("", "127.0.0.1"),
            (" , ,", "127.0.0.1"),
        ],
    )
    async def test_client_is_the_last_hop_that_nobody_vouches_for(
        self, ear: Ear, serve: Serve, forwarded: str, client: str
    ) -> None:
        spool = await self.start(serve, {"server.trusted_proxies": "127.0.0.1,10.0.0.0/8"})
        await spool.get("/healthz", headers={"X-Forwarded-For": forwarded})
        assert (await ear.event("request.finished"))["client"] == client

    async def test_base_url_is_used_whatever_the_request_says(self, serve: Serve) -> None:
        settings: dict[str, object] = {
            "server.base_url": "https://spool.example.org/up/", "server.trusted_proxies": "127.0.0.1"
        }  # fmt: skip
        spool = await self.start(serve, settings)
        answer = await spool.put(headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert answer.headers["Location"] == f"https://spool.example.org/up/files/{answer.json['id']}"
        content = await spool.get(f"/files/{answer.json['id']}/content")
        assert content.headers["Location"] == f"https://spool.example.org/up/media/{answer.json['id']}/a.txt"
        await spool.put("b.txt")
        link = (await spool.get("/files?limit=1")).headers["Link"]
        assert link.startswith("<https://spool.example.org/up/files?")


async def test_access_log_says_who_did_what(ear: Ear, spool: Spool) -> None:
    secret = await spool.new_token("upload", name="ada")
    answer = await spool.put("a.txt?private=1", token=secret)
    event = dict(await ear.event("request.finished"))
    assert event.pop("seconds") >= 0
    assert event == {
        "method": "PUT",
        "path": "/files/a.txt",
        "status": 201,
        "bytes": len(answer.body),
        "client": "127.0.0.1",
        "principal": "ada",
        "request_id": answer.headers["X-Request-ID"],
    }


async def test_access_log_counts_the_bytes_of_the_body_only(ear: Ear, spool: Spool) -> None:
    record = await spool.stored("a.bin", bytes(5000))
    empty = await spool.stored("empty", b"")
    await spool.media(record)
    await spool.media(record, "HEAD")
    await spool.media(record, Range="bytes=0-9")
    await spool.media(record, If_None_Match="*")
    await spool.media(empty)
    await spool.get(f"/files/{record['id']}/content")
    await spool.request("DELETE", f"/files/{record['id']}")
    await ear.event("request.finished", 9)
    assert [event["bytes"] for event in ear.events("request.finished")][2:] == [5000, 0, 10, 0, 0, 0, 0]


async def test_committed_file_is_logged_once(ear: Ear, spool: Spool) -> None:
    record = await spool.stored()
    assert ear.events("upload.committed") == [
        {"id": record["id"], "owner": "local", "filename": "a.txt", "size": len(TEXT), "type": "text/plain"}
    ]
