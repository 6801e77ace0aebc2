"""Resumable uploads through the real router, in both dialects."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from spool.errors import NotFound
from spool.model import Intent, Principal, UploadId
from spool.work import resumables
from tests.web.conftest import PNG, TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.model import File, Resumable
    from tests.web.conftest import Answer, Ear, Serve, Spool

DIALECTS = ["tus", "rufh"]
TUS = {"Tus-Resumable": "1.0.0"}
TUS_BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}
RUFH = {"Upload-Draft-Interop-Version": "8"}
RUFH_BODY = {**RUFH, "Content-Type": "application/partial-upload"}
DATA = b"".join(b"%06d\r\n" % number for number in range(2000))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha1(data: bytes) -> str:
    return f"sha1 {b64(hashlib.sha1(data).digest())}"


def digest_field(data: bytes) -> str:
    return f"sha-256=:{b64(hashlib.sha256(data).digest())}:"


def place(answer: Answer) -> str:
    """The path in the answer's Location."""
    return urlsplit(answer.headers["Location"]).path


async def create(spool: Spool, dialect: str, length: int | None, **more: Any) -> Answer:
    """An upload without bytes."""
    more_headers = more.pop("headers", {})
    if dialect == "tus":
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        return await spool.request("POST", "/tus", headers={**TUS, **size, **more_headers}, **more)
    size = {} if length is None else {"Upload-Length": str(length)}
    headers = {**RUFH, "Upload-Complete": "?0", "Content-Length": "0", **size, **more_headers}
    return await spool.request("POST", "/files", headers=headers, **more)


async def created(spool: Spool, dialect: str, length: int | None, **more: Any) -> str:
    answer = await create(spool, dialect, length, **more)
    assert answer.status == 201, answer.body
    return place(answer)


async def append(  # noqa: PLR0913  # what an append has
    spool: Spool,
    upload: str,
    offset: int,
    data: Any = b"",
    *,
    last: bool = False,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answer:
    """A PATCH in the dialect of the upload's address."""
    own = TUS_BODY if upload.startswith("/tus/") else {**RUFH_BODY, "Upload-Complete": "?1" if last else "?0"}
    sent = {**own, "Upload-Offset": str(offset), **(headers or {})}
    return await spool.request("PATCH", upload, headers=sent, data=data, **more)


async def inspect(spool: Spool, upload: str, **more: Any) -> Answer:
    return await spool.request("HEAD", upload, headers=TUS if upload.startswith("/tus/") else RUFH, **more)


async def cancel(spool: Spool, upload: str, **more: Any) -> Answer:
    return await spool.request("DELETE", upload, headers=TUS if upload.startswith("/tus/") else RUFH, **more)


async def offset_of(spool: Spool, upload: str) -> int:
    answer = await inspect(spool, upload)
    assert answer.status in (200, 204), answer.body
    return int(answer.headers["Upload-Offset"])


async def file_of(spool: Spool, upload: str) -> dict[str, Any]:
    """The record of the file that a finished upload became."""
    answer = await inspect(spool, upload)
    found = await spool.get(urlsplit(answer.headers["Content-Location"]).path)
    assert found.status == 200, found.body
    record: dict[str, Any] = found.json
    return record


async def sweep(spool: Spool) -> int:
    return await resumables.run_once(spool.site.resumption, spool.index, spool.clock)


async def assert_file(spool: Spool, upload: str, data: bytes) -> dict[str, Any]:
    record = await file_of(spool, upload)
    assert record["size"] == len(data)
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert (await spool.media(record)).body == data
    return record


def statuses(dialect: str, tus: int, rufh: int) -> int:
    return tus if dialect == "tus" else rufh


# The five commands


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_upload_in_three_steps_is_a_file(spool: Spool, dialect: str) -> None:
    answer = await create(spool, dialect, len(DATA))
    upload = place(answer)
    assert answer.headers["Location"].startswith("http://")
    assert await offset_of(spool, upload) == 0
    for start, end in ((0, 1), (1, 9000)):
        answer = await append(spool, upload, start, DATA[start:end])
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(end))
        assert await offset_of(spool, upload) == end
        assert await spool.listed() == []
    answer = await append(spool, upload, 9000, DATA[9000:], last=True)
    assert answer.status == statuses(dialect, 204, 201)
    assert answer.headers["Upload-Offset"] == str(len(DATA))
    record = await assert_file(spool, upload, DATA)
    if dialect == "rufh":
        assert answer.json["id"] == record["id"]
        assert answer.headers["Location"].endswith(f"/files/{record['id']}")
    assert len(spool.kept()) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_creation_takes_the_body_at_once(spool: Spool, dialect: str) -> None:
    if dialect == "tus":
        headers = {**TUS_BODY, "Upload-Length": str(len(DATA))}
        answer = await spool.request("POST", "/tus", headers=headers, data=DATA)
        assert answer.headers["Upload-Offset"] == str(len(DATA))
        await assert_file(spool, place(answer), DATA)
    else:
        headers = {**RUFH, "Upload-Complete": "?1", "Content-Disposition": 'attachment; filename="a.bin"'}
        answer = await spool.request("POST", "/files", headers=headers, data=DATA)
        assert answer.json["filename"] == "a.bin"
        assert answer.json["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert answer.status == 201


async def test_put_of_the_draft_is_named_by_its_address(spool: Spool) -> None:
    headers = {**RUFH, "Upload-Complete": "?0", "Upload-Length": str(len(DATA))}
    upload = place(await spool.request("PUT", "/files/film.txt?title=Demo", headers=headers, data=DATA[:100]))
    answer = await append(spool, upload, 100, DATA[100:], last=True)
    assert (answer.status, answer.json["filename"]) == (201, "film.txt")
    assert answer.json["metadata"] == {"title": "Demo"}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_cancelled_upload_is_gone_with_its_bytes(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, 100)
    await append(spool, upload, 0, b"x" * 50)
    assert len(spool.kept()) == 1
    assert (await cancel(spool, upload)).status == 204
    assert spool.kept() == []
    assert (await inspect(spool, upload)).status == 404
    assert (await append(spool, upload, 50, b"x" * 50, last=True)).status == 404
    assert (await cancel(spool, upload)).status == 404
    assert await spool.index.promised() == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_cancelling_a_finished_upload_leaves_the_file(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, len(TEXT))
    await append(spool, upload, 0, TEXT, last=True)
    record = await file_of(spool, upload)
    assert (await cancel(spool, upload)).status == 204
    assert (await inspect(spool, upload)).status == 404
    assert (await spool.media(record)).body == TEXT


async def test_finished_tus_upload_redirects_to_its_bytes(spool: Spool) -> None:
    upload = await created(spool, "tus", len(TEXT))
    assert (await spool.get(upload)).status == 404
    await append(spool, upload, 0, TEXT)
    answer = await spool.get(upload)
    assert answer.status == 302
    target = urlsplit(answer.headers["Location"])
    content = await spool.get(f"{target.path}?{target.query}")
    assert content.status == 302
    assert (await spool.get(urlsplit(content.headers["Location"]).path)).body == TEXT
    head = await inspect(spool, upload)
    assert 'rel="enclosure"' in head.headers["Link"]


# Whose it is, and how long


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_upload_of_another_is_not_there(serve: Serve, dialect: str) -> None:
    spool = await serve({"server.trusted_proxies": "127.0.0.1"})
    ada, bob = await spool.new_token("upload", "read"), await spool.new_token("upload", "read", "admin", name="bob")
    upload = await created(spool, dialect, 10, token=ada)
    assert (await append(spool, upload, 0, b"x" * 5, token=ada)).status == 204
    assert (await inspect(spool, upload, token=bob)).status == 404
    assert (await append(spool, upload, 5, b"x", token=bob)).status == 404
    assert (await cancel(spool, upload, token=bob)).status == 404
    assert (await inspect(spool, upload)).status == 401
    head = await inspect(spool, upload, token=ada)
    assert head.headers["Upload-Offset"] == "5"
    await append(spool, upload, 5, b"x" * 5, last=True, token=ada)
    assert (await spool.get(upload, token=bob)).status == 404


async def test_dialects_do_not_see_each_other(spool: Spool) -> None:
    tus, rufh = await created(spool, "tus", 10), await created(spool, "rufh", 10)
    assert (await inspect(spool, tus.replace("/tus/", "/uploads/"))).status == 404
    assert (await inspect(spool, rufh.replace("/uploads/", "/tus/"))).status == 404


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_expired_upload_is_gone_and_swept(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, 100)
    spool.clock.time += timedelta(hours=23)
    assert (await append(spool, upload, 0, b"x" * 50)).status == 204
    spool.clock.time += timedelta(hours=23)  # progress has renewed it
    assert await sweep(spool) == 0
    assert await offset_of(spool, upload) == 50
    spool.clock.time += timedelta(hours=2)
    for answer in (
        await inspect(spool, upload),
        await append(spool, upload, 50, b"x" * 50, last=True),
        await cancel(spool, upload),
    ):
        assert answer.status == 410
    assert len(spool.kept()) == 1
    assert await sweep(spool) == 1
    assert (await inspect(spool, upload)).status == 404
    assert spool.kept() == []
    assert await spool.index.promised() == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_finished_upload_is_forgotten_and_its_file_stays(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, len(TEXT))
    await append(spool, upload, 0, TEXT, last=True)
    record = await file_of(spool, upload)
    spool.clock.time += timedelta(hours=25)
    assert await sweep(spool) == 1
    assert (await inspect(spool, upload)).status == 404
    assert (await spool.media(record)).body == TEXT


async def test_expiry_is_told(spool: Spool) -> None:
    answer = await create(spool, "tus", 10)
    assert answer.headers["Upload-Expires"] == "Mon, 02 Mar 2026 12:00:00 GMT"


# Checksums


async def test_checksum_decides_whether_bytes_are_kept(spool: Spool) -> None:
    upload = await created(spool, "tus", 30)
    good, bad = {"Upload-Checksum": sha1(b"a" * 10)}, {"Upload-Checksum": sha1(b"other")}
    assert (await append(spool, upload, 0, b"a" * 10, headers=good)).status == 204
    for _ in range(2):
        assert (await append(spool, upload, 10, b"b" * 10, headers=bad)).status == 460
        assert await offset_of(spool, upload) == 10
    unknown = {"Upload-Checksum": f"crc32 {b64(b'1234')}"}
    answer = await append(spool, upload, 10, b"b" * 10, headers=unknown)
    assert answer.status == 400
    assert await offset_of(spool, upload) == 10
    assert (await append(spool, upload, 10, b"c" * 20)).status == 204
    await assert_file(spool, upload, b"a" * 10 + b"c" * 20)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5"])
async def test_every_advertised_algorithm_works(spool: Spool, algorithm: str) -> None:
    offered = (await spool.request("OPTIONS", "/tus")).headers["Tus-Checksum-Algorithm"].split(",")
    assert algorithm in offered
    upload = await created(spool, "tus", len(DATA))
    checksum = f"{algorithm} {b64(hashlib.new(algorithm, DATA).digest())}"
    assert (await append(spool, upload, 0, DATA, headers={"Upload-Checksum": checksum})).status == 204
    await assert_file(spool, upload, DATA)


async def test_content_digest_of_the_draft(spool: Spool) -> None:
    upload = await created(spool, "rufh", 20)
    bad = await append(spool, upload, 0, b"a" * 10, headers={"Content-Digest": digest_field(b"other")})
    assert (bad.status, bad.slug) == (400, "digest-mismatch")
    assert await offset_of(spool, upload) == 0
    good = await append(spool, upload, 0, b"a" * 10, headers={"Content-Digest": digest_field(b"a" * 10)})
    assert (good.status, good.headers["Upload-Offset"]) == (204, "10")


@pytest.mark.parametrize("pieces", [1, 3])
async def test_checksum_in_a_trailer(spool: Spool, pieces: int) -> None:
    upload = await created(spool, "tus", 21)
    bad = await trailed(spool, upload, 0, b"a" * 12, sha1(b"other"), pieces)
    assert bad.startswith(b"HTTP/1.1 460 ")
    assert await offset_of(spool, upload) == 0
    good = await trailed(spool, upload, 0, b"a" * 12, sha1(b"a" * 12), pieces)
    assert good.startswith(b"HTTP/1.1 204 ")
    assert await offset_of(spool, upload) == 12
    missing = await trailed(spool, upload, 12, b"b" * 9, None, pieces)
    assert missing.startswith(b"HTTP/1.1 400 ")
    assert await offset_of(spool, upload) == 12
    assert (await trailed(spool, upload, 12, b"b" * 9, sha1(b"b" * 9), pieces)).startswith(b"HTTP/1.1 204 ")
    await assert_file(spool, upload, b"a" * 12 + b"b" * 9)


async def trailed(  # noqa: PLR0913, PLR0917  # what such a request has
    spool: Spool, upload: str, offset: int, data: bytes, checksum: str | None, pieces: int
) -> bytes:
    """The answer to a chunked PATCH with its checksum after the body."""
    size = len(data) // pieces
    body = b"".join(b"%x\r\n%s\r\n" % (size, data[i * size : (i + 1) * size]) for i in range(pieces))
    trailer = "" if checksum is None else f"Upload-Checksum: {checksum}\r\n"
    head = (
        f"PATCH {upload} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        "Content-Type: application/offset+octet-stream\r\nTransfer-Encoding: chunked\r\nTrailer: Upload-Checksum\r\n"
        "Connection: close\r\n\r\n"
    )
    return await spool.raw(head.encode() + body + b"0\r\n" + trailer.encode() + b"\r\n")


async def test_trailer_in_the_bytes_is_not_one(spool: Spool) -> None:
    upload = await created(spool, "tus", 200)
    for end in (b"\r\n\r\n", b"\r\n", b""):
        fake = b"\r\n0\r\nUpload-Checksum: " + sha1(b"").encode() + end
        answer = await trailed(spool, upload, 0, fake, None, 1)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"did not follow" in answer
        assert await offset_of(spool, upload) == 0


async def test_cut_off_checksummed_patch_leaves_the_offset(spool: Spool) -> None:
    upload = await created(spool, "tus", 20)
    head = (
        f"PATCH {upload} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        "Content-Length: 20\r\nContent-Type: application/offset+octet-stream\r\n"
        f"Upload-Checksum: {sha1(b'a' * 20)}\r\n\r\n"
    )
    await spool.raw(head.encode() + b"a" * 10, half_close=True)
    assert await offset_of(spool, upload) == 0


# Digests of the whole


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_digest_of_the_whole_is_verified_at_the_end(spool: Spool, dialect: str) -> None:
    for claimed, right in ((TEXT, True), (b"other", False)):
        if dialect == "tus":
            value = b64(hashlib.sha256(claimed).hexdigest().encode())
            upload = await created(spool, "tus", len(TEXT), headers={"Upload-Metadata": f"sha256 {value}"})
            await append(spool, upload, 0, TEXT[:5])
            answer = await append(spool, upload, 5, TEXT[5:])
            assert answer.status == (204 if right else 400)
            assert (await inspect(spool, upload)).status == (200 if right else 404)
        else:
            headers = {**RUFH, "Upload-Complete": "?1", "Repr-Digest": digest_field(claimed)}
            answer = await spool.request("POST", "/files", headers=headers, data=TEXT)
            assert answer.status == (201 if right else 400)
        if not right:
            assert answer.slug == "digest-mismatch"
    assert len(await spool.listed()) == len(spool.kept()) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_hashes_are_made_anew_when_they_are_forgotten(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, len(DATA))
    await append(spool, upload, 0, DATA[:5000])
    spool.site.resumption._hashes.clear()  # as after a restart
    await append(spool, upload, 5000, DATA[5000:], last=True)
    await assert_file(spool, upload, DATA)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("data", [b"", DATA])
async def test_upload_that_a_sweep_makes_a_file_first_is_answered_with_it(
    spool: Spool, dialect: str, data: bytes, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool.stored(data=data)  # which the upload's file shares, so that what was staged goes
    finish = spool.site.resumption.finish

    async def finish_later(upload: Resumable) -> File:
        monkeypatch.undo()
        assert await sweep(spool) == 1
        return await finish(upload)

    upload = await created(spool, dialect, None)
    monkeypatch.setattr(spool.site.resumption, "finish", finish_later)
    answer = await append(spool, upload, 0, data, last=True, headers={"Upload-Length": str(len(data))})
    assert answer.status == statuses(dialect, 204, 201), answer.body
    await assert_file(spool, upload, data)
    assert len(spool.kept()) == 1
    assert len(ear.events("upload.committed")) == spool.site.metrics.committed_files == 2


# Offsets and lengths


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("offset", [0, 9, 11, 20])
async def test_wrong_offset_is_told_the_right_one(spool: Spool, dialect: str, offset: int) -> None:
    upload = await created(spool, dialect, 20)
    await append(spool, upload, 0, b"a" * 10)
    answer = await append(spool, upload, offset, b"")
    assert answer.status == 409
    assert answer.headers["Upload-Offset"] == "10"
    assert await offset_of(spool, upload) == 10


@pytest.mark.parametrize("chunked", [False, True])
async def test_more_bytes_than_the_length_are_never_on_disk(spool: Spool, *, chunked: bool) -> None:
    upload = await created(spool, "tus", 100)
    await append(spool, upload, 0, b"a" * 90)

    async def body() -> Any:
        yield b"x" * 11

    answer = await append(spool, upload, 90, body() if chunked else b"x" * 11)
    assert answer.status == 413
    assert all(path.stat().st_size <= 100 for path in spool.kept())
    assert not any(b"x" * 11 in path.read_bytes() for path in spool.kept())
    offset = await offset_of(spool, upload)
    assert offset == 90
    assert (await append(spool, upload, 90, b"b" * 10)).status == 204
    await assert_file(spool, upload, b"a" * 90 + b"b" * 10)


@pytest.mark.parametrize("chunked", [False, True])
async def test_more_bytes_than_the_length_in_the_draft(spool: Spool, *, chunked: bool) -> None:
    upload = await created(spool, "rufh", 100)
    await append(spool, upload, 0, b"a" * 90)

    async def body() -> Any:
        yield b"x" * 11

    answer = await append(spool, upload, 90, body() if chunked else b"x" * 11)
    assert 400 <= answer.status < 500
    assert all(path.stat().st_size <= 100 for path in spool.kept())
    assert await offset_of(spool, upload) == 90
    assert (await append(spool, upload, 90, b"b" * 10, last=True)).status == 201


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_length_beyond_the_limit_is_refused(serve: Serve, dialect: str) -> None:
    spool = await serve({"limits.max_file_size": "1000"})
    assert (await create(spool, dialect, 1001)).status == 413
    upload = await created(spool, dialect, None)
    assert (await append(spool, upload, 0, b"x" * 1001)).status == 413
    assert (await append(spool, upload, 0, b"", headers={"Upload-Length": "1001"})).status == 413
    assert await offset_of(spool, upload) == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_upload_without_bytes_is_an_empty_file(spool: Spool, dialect: str) -> None:
    if dialect == "tus":
        upload = await created(spool, "tus", 0)
    else:
        upload = await created(spool, "rufh", None)
        assert (await append(spool, upload, 0, b"", last=True)).status == 201
    await assert_file(spool, upload, b"")
    assert len(await spool.listed()) == 1


async def test_draft_creation_of_length_zero_waits_for_its_completion(spool: Spool) -> None:
    upload = await created(spool, "rufh", 0)
    assert await spool.listed() == []
    assert (await append(spool, upload, 0, b"", last=True)).status == 201
    await assert_file(spool, upload, b"")


async def test_deferred_length_of_tus(spool: Spool) -> None:
    upload = await created(spool, "tus", None)
    assert (await inspect(spool, upload)).headers["Upload-Defer-Length"] == "1"
    await append(spool, upload, 0, b"a" * 10)
    assert (await append(spool, upload, 10, b"", headers={"Upload-Length": "9"})).status == 400
    assert (await append(spool, upload, 10, b"b" * 5, headers={"Upload-Length": "20"})).status == 204
    head = await inspect(spool, upload)
    assert head.headers["Upload-Length"] == "20"
    assert "Upload-Defer-Length" not in head.headers
    assert (await append(spool, upload, 15, b"", headers={"Upload-Length": "30"})).status == 400
    assert (await append(spool, upload, 15, b"c" * 5)).status == 204
    await assert_file(spool, upload, b"a" * 10 + b"b" * 5 + b"c" * 5)


async def test_deferred_length_that_is_reached_already_finishes(spool: Spool) -> None:
    upload = await created(spool, "tus", None)
    await append(spool, upload, 0, TEXT)
    assert (await append(spool, upload, len(TEXT), b"", headers={"Upload-Length": str(len(TEXT))})).status == 204
    await assert_file(spool, upload, TEXT)


async def test_draft_lengths_must_agree(spool: Spool) -> None:
    upload = await created(spool, "rufh", 20)
    answer = await append(spool, upload, 0, b"a" * 10, last=True)
    assert answer.status == 400
    assert answer.json["type"].endswith("#inconsistent-upload-length")
    offset = await offset_of(spool, upload)
    assert (await append(spool, upload, offset, b"a" * (20 - offset), last=True)).status == 201


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_patch_of_a_finished_upload(spool: Spool, dialect: str) -> None:
    upload = await created(spool, dialect, len(TEXT))
    await append(spool, upload, 0, TEXT, last=True)
    record = await file_of(spool, upload)
    replayed = await append(spool, upload, len(TEXT), b"", last=True)
    assert replayed.status == statuses(dialect, 204, 201)
    if dialect == "rufh":
        assert replayed.json["id"] == record["id"]
    assert (await append(spool, upload, 0, TEXT, last=True)).status == 409
    more = await append(spool, upload, len(TEXT), b"more", last=True)
    assert 400 <= more.status < 500
    await assert_file(spool, upload, TEXT)
    assert len(await spool.listed()) == len(spool.kept()) == 1


# Concatenation


async def partial(spool: Spool, data: bytes, length: int | None = None, **more: Any) -> str:
    length = len(data) if length is None else length
    upload = await created(spool, "tus", length, headers={"Upload-Concat": "partial"}, **more)
    assert (await append(spool, upload, 0, data, **more)).status == 204
    return upload


async def concatenate(spool: Spool, *parts: str, **more: Any) -> Answer:
    headers = {**TUS, "Upload-Concat": f"final;{' '.join(parts)}", **more.pop("headers", {})}
    return await spool.request("POST", "/tus", headers=headers, **more)


async def test_concatenation_repeats_parts_as_asked(spool: Spool) -> None:
    a, b, empty = await partial(spool, b"aaa"), await partial(spool, DATA), await partial(spool, b"")
    absolute = str(spool.client.make_url(b))
    name = {"Upload-Metadata": f"filename {b64(b'whole.bin')}"}
    answer = await concatenate(spool, a, absolute, a, empty, headers=name)
    assert answer.status == 201, answer.body
    record = await assert_file(spool, place(answer), b"aaa" + DATA + b"aaa")
    assert record["filename"] == "whole.bin"
    head = await inspect(spool, place(answer))
    assert head.headers["Upload-Concat"] == f"final;{a} {absolute} {a} {empty}"
    assert (await inspect(spool, a)).headers["Upload-Concat"] == "partial"
    assert await spool.listed() == ["whole.bin"]
    again = await concatenate(spool, b)
    await assert_file(spool, place(again), DATA)
    for part in (a, b, empty):
        assert (await cancel(spool, part)).status == 204
    assert len(spool.kept()) == 2
    await assert_file(spool, place(answer), b"aaa" + DATA + b"aaa")


async def test_concatenation_refuses_what_it_cannot_join(serve: Serve) -> None:
    spool = await serve({"server.trusted_proxies": "127.0.0.1", "limits.max_file_size": "1000"})
    ada, bob = await spool.new_token("upload", "read"), await spool.new_token("upload", name="bob")
    spool.token = ada
    mine, his = await partial(spool, b"x" * 600), await partial(spool, b"yyy", token=bob)
    unfinished = await partial(spool, b"zz", 3)
    whole = await created(spool, "tus", 3)
    await append(spool, whole, 0, b"www")
    rufh = await created(spool, "rufh", 3)
    before = len(spool.kept())
    for parts, status in (
        ([mine, his], 404),
        (["/tus/" + "0" * 32], 404),
        ([unfinished], 400),
        ([whole], 400),
        ([rufh], 400),
        ([rufh.replace("/uploads/", "/tus/")], 404),
        (["nonsense"], 400),
        ([mine, mine], 413),
    ):
        assert (await concatenate(spool, *parts)).status == status, parts
    assert len(spool.kept()) == before
    final = place(await concatenate(spool, mine))
    assert (await append(spool, final, 600, b"x")).status == 403


async def test_partial_uploads_are_swept(spool: Spool) -> None:
    part = await partial(spool, b"aaa")
    final = place(await concatenate(spool, part))
    record = await file_of(spool, final)
    spool.clock.time += timedelta(hours=25)
    assert await sweep(spool) == 2
    assert len(spool.kept()) == 1
    assert (await spool.media(record)).body == b"aaa"


# Limits and policy


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_unfinished_uploads_count_against_the_quota(serve: Serve, dialect: str) -> None:
    spool = await serve({"limits.quota": "1000"})
    upload = await created(spool, dialect, 800)
    answer = await create(spool, dialect, 201)
    assert (answer.status, answer.slug) == (413, "quota-exceeded")
    assert (await spool.put(data=b"x" * 201)).status == 413
    await append(spool, upload, 0, b"x" * 400)
    assert (await create(spool, dialect, 201)).status == 413
    assert (await append(spool, upload, 400, b"x" * 400, last=True)).status < 300
    assert (await create(spool, dialect, 201)).status == 413
    other = await created(spool, dialect, 200)
    assert (await append(spool, other, 0, b"y" * 200, last=True)).status < 300
    assert (await spool.put(data=b"x")).status == 413


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_bytes_of_unknown_length_count_against_the_quota(serve: Serve, dialect: str) -> None:
    spool = await serve({"limits.quota": "1000"})
    upload = await created(spool, dialect, None)
    assert (await append(spool, upload, 0, b"x" * 900)).status == 204
    assert (await append(spool, upload, 900, b"x" * 101)).status == 413

    async def body() -> Any:
        yield b"x" * 101

    assert (await append(spool, upload, 900, body())).status == 413
    assert await offset_of(spool, upload) == 900
    assert (await spool.put(data=b"x" * 101)).status == 413
    await cancel(spool, upload)
    assert (await spool.put(data=b"x" * 900)).status == 201


async def test_length_told_late_counts_against_the_quota(serve: Serve) -> None:
    spool = await serve({"limits.quota": "1000"})
    upload = await created(spool, "tus", None)
    assert (await append(spool, upload, 0, b"x", headers={"Upload-Length": "5000"})).status == 413
    offset = await offset_of(spool, upload)
    assert (await append(spool, upload, offset, b"y" * 500)).status == 204
    assert (await append(spool, upload, offset + 500, b"y" * 600)).status == 413


async def test_concatenation_that_fails_promises_nothing(spool: Spool) -> None:
    part = await partial(spool, DATA)
    promised = await spool.site.index.promised()
    (blob,) = spool.kept()
    blob.unlink()
    assert (await concatenate(spool, part)).status == 503
    assert await spool.site.index.promised() == promised
    assert spool.kept() == []


async def test_concatenation_of_a_part_that_is_cancelled_meanwhile_is_refused(spool: Spool) -> None:
    part = await partial(spool, DATA)
    who = Principal("local", frozenset())
    (row,) = await spool.site.resumption.partials([UploadId(part.rpartition("/")[2])], who, "tus")
    await spool.request("DELETE", part, headers=TUS)
    whole = await spool.site.resumption.create(Intent("a", size=len(DATA)), who, "tus", {})
    turn = await spool.site.resumption.take(whole.id, who, "tus")
    with pytest.raises(NotFound):
        await turn.absorb([row])
    await turn.save()
    with pytest.raises(NotFound):
        await spool.site.index.upload(whole.id)
    assert spool.kept() == []


async def test_concatenation_counts_against_the_quota(serve: Serve) -> None:
    spool = await serve({"limits.quota": "1000"})
    part = await partial(spool, b"x" * 600)
    assert (await concatenate(spool, part)).status == 413


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_unfinished_uploads_count_against_free_space(serve: Serve, dialect: str) -> None:
    spool = await serve()
    free = await spool.blobs.free()
    capacity = spool.site.ingest._admission._capacity
    assert capacity.min_free_space < free, "this test needs a disk that is not full"
    big = int((free - capacity.min_free_space) * 0.8)
    answer = await create(spool, dialect, min(big, spool.site.limits.max_file_size))
    assert answer.status == 201
    assert await spool.index.promised() == min(big, spool.site.limits.max_file_size)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_forbidden_type_is_refused_after_the_head(serve: Serve, dialect: str) -> None:
    spool = await serve({"policy.deny_types": ["image/png"]})
    data = PNG + bytes(100_000)
    upload = await created(spool, dialect, len(data))
    assert (await append(spool, upload, 0, data[:50_000])).status == 415
    assert (await inspect(spool, upload)).status == 404
    assert spool.kept() == []
    tiny = await created(spool, dialect, len(PNG))
    assert (await append(spool, tiny, 0, PNG[:10])).status == 204
    assert (await append(spool, tiny, 10, PNG[10:], last=True)).status == 415
    assert (await inspect(spool, tiny)).status == 404
    assert spool.kept() == []
    assert await spool.listed() == []


async def test_checksummed_forbidden_type_is_gone_too(serve: Serve) -> None:
    spool = await serve({"policy.deny_types": ["image/png"]})
    data = PNG + bytes(100_000)
    upload = await created(spool, "tus", len(data))
    assert (await append(spool, upload, 0, data, headers={"Upload-Checksum": sha1(data)})).status == 415
    assert (await inspect(spool, upload)).status == 404
    assert spool.kept() == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_head_answers_when_no_upload_may_start(serve: Serve, dialect: str) -> None:
    spool = await serve({"limits.max_uploads": "1"})
    upload = await created(spool, dialect, 100)
    reservation = await spool.site.ingest.admit(Principal("other", frozenset()), 1)
    with reservation:
        assert (await inspect(spool, upload)).status == statuses(dialect, 200, 204)
        answer = await append(spool, upload, 0, b"x" * 10)
        assert answer.status == statuses(dialect, 503, 429)
        assert int(answer.headers["Retry-After"]) > 0
        answer = await create(spool, dialect, 10)
        assert answer.status == statuses(dialect, 503, 429)
    assert (await append(spool, upload, 0, b"x" * 10)).status == 204


# tus, word for word


@pytest.mark.parametrize("metadata", ["", f"filename {b64(b'a.txt')},flag,note {b64('ä'.encode())}"])
async def test_metadata_is_given_back_raw(spool: Spool, metadata: str) -> None:
    upload = await created(spool, "tus", 5, headers={"Upload-Metadata": metadata})
    head = await inspect(spool, upload)
    assert head.headers["Upload-Metadata"] == metadata
    assert (head.headers["Upload-Length"], head.headers["Cache-Control"]) == ("5", "no-store")


async def test_metadata_describes_the_file(spool: Spool) -> None:
    metadata = f"name {b64(b'a.txt')},type {b64(b'text/x-own')},note {b64(b'hi')}"
    upload = await created(spool, "tus", len(TEXT), headers={"Upload-Metadata": metadata})
    await append(spool, upload, 0, TEXT)
    record = await file_of(spool, upload)
    assert (record["filename"], record["metadata"]) == ("a.txt", {"note": "hi"})


async def test_method_override(spool: Spool) -> None:
    upload = await created(spool, "tus", len(TEXT))
    headers = {**TUS_BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await spool.request("POST", upload, headers=headers, data=TEXT)).status == 204
    headers = {**TUS, "X-HTTP-Method-Override": "DELETE"}
    assert (await spool.request("POST", upload, headers=headers)).status == 204
    assert (await inspect(spool, upload)).status == 404


async def test_version_is_required(spool: Spool) -> None:
    answer = await spool.request("POST", "/tus", headers={"Upload-Length": "1"})
    assert (answer.status, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert (await spool.request("OPTIONS", "/tus")).status == 200


async def test_location_is_under_the_base_url(serve: Serve) -> None:
    spool = await serve({"server.base_url": "https://up.example/x"})
    spool.token = await spool.new_token("upload")
    for dialect, address in (("tus", "/tus/"), ("rufh", "/uploads/")):
        location = (await create(spool, dialect, 5)).headers["Location"]
        assert location.startswith(f"https://up.example/x{address}")


async def test_limit_of_the_draft_is_told_everywhere(spool: Spool) -> None:
    upload = await created(spool, "rufh", 10)
    answers = [
        await spool.request("OPTIONS", "/files"),
        await inspect(spool, upload),
        await append(spool, upload, 0, b"x"),
        await append(spool, upload, 5, b"x"),
        await cancel(spool, upload),
        await inspect(spool, upload),
    ]
    assert all("max-size=" in answer.headers["Upload-Limit"] for answer in answers)


async def test_interim_responses(spool: Spool) -> None:
    head = (
        "POST /files HTTP/1.1\r\nHost: localhost\r\nUpload-Complete: ?1\r\nContent-Length: 5\r\nConnection: close\r\n"
        "Upload-Draft-Interop-Version: {}\r\n\r\nhello"
    )
    for version, told in ((5, False), (6, True), (10, True), (11, False)):
        answer = await spool.raw(head.format(version).encode())
        assert answer.startswith(b"HTTP/1.1 104 Upload Resumption Supported\r\n") is told
        assert b"HTTP/1.1 201 " in answer


async def test_interim_responses_can_be_turned_off(serve: Serve) -> None:
    spool = await serve({"server.interim_responses": "false"})
    head = (
        b"POST /files HTTP/1.1\r\nHost: localhost\r\nUpload-Complete: ?1\r\nContent-Length: 5\r\nConnection: close\r\n"
        b"Upload-Draft-Interop-Version: 8\r\n\r\nhello"
    )
    assert (await spool.raw(head)).startswith(b"HTTP/1.1 201 ")


# CORS

PREFLIGHT = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "tus-resumable,upload-offset,content-type",
}


async def test_no_cors_unless_it_is_configured(spool: Spool) -> None:
    answers = [
        await spool.request("OPTIONS", "/tus", headers=PREFLIGHT),
        await create(spool, "tus", 5, headers={"Origin": "https://app.example"}),
    ]
    assert not any(name.startswith("Access-Control-Allow-Origin") for answer in answers for name in answer.headers)


async def test_cors_for_the_configured_origins(serve: Serve) -> None:
    spool = await serve({"server.cors_origins": ["https://app.example"], "server.trusted_proxies": "127.0.0.1"})
    for path in ("/tus", "/tus/abc", "/files", "/uploads/abc"):
        answer = await spool.request("OPTIONS", path, headers=PREFLIGHT)  # without a token, as browsers do
        assert answer.status in (200, 204)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        allowed = answer.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
        assert {"tus-resumable", "upload-offset", "upload-complete", "authorization", "content-type"} <= set(allowed)
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    other = await spool.request("OPTIONS", "/tus", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    refused = await create(spool, "tus", 5, headers={"Origin": "https://app.example"})
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"
    spool.token = await spool.new_token("upload")
    answer = await create(spool, "tus", 5, headers={"Origin": "https://app.example"})
    exposed = answer.headers["Access-Control-Expose-Headers"].lower().replace(" ", "").split(",")
    assert {"location", "upload-offset", "upload-length", "tus-resumable", "upload-expires"} <= set(exposed)
    assert "Origin" in answer.headers["Vary"]
