from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from spool.labels import to_label
from spool.model import FileId, Key
from spool.work import reindex
from spool.work.reindex import Rebuilt
from tests.process import lacking
from tests.store.blobstore_suite import put, stage
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spool.model import File
    from spool.store import LocalStore, SqliteIndex

A, B = Key("00" + "a" * 30), Key("ff" + "b" * 30)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TextSniffer:
    async def sniff(self, head: bytes) -> str:
        return "text/plain" if head == b"data" else "application/octet-stream"


@pytest.fixture(autouse=True)
def labels(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.spool.try", b"")
    except OSError:
        lacking("the file system of the temporary directory has no extended attributes")


def of(data: bytes, name: str, key: Key) -> File:
    return a_file(name, key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def hold(blobs: LocalStore, data: bytes, key: Key, *files: File) -> None:
    """The blob is live and carries a label for each of the files."""
    await put(blobs, key, data)
    for file in files:
        await blobs.label(key, file.id, to_label(file).text)


async def rebuild(blobs: LocalStore, index: SqliteIndex, *, deep: bool = False) -> tuple[Rebuilt, list[str]]:
    findings: list[str] = []
    rebuilt = await reindex.run_once(blobs, index, TextSniffer(), findings.append, deep=deep)
    assert rebuilt.findings == len(findings)
    assert rebuilt.files == len(await index.by_key(None, 10_000))
    return rebuilt, findings


async def records(index: SqliteIndex) -> Sequence[File]:
    return await index.by_key(None, 10_000)


async def test_labelled_blobs_have_their_records_again(blobs: LocalStore, index: SqliteIndex) -> None:
    first = replace(of(b"data", "first", A), metadata={"tag": ["x", "y"]}, expires_at=NOON)
    other = of(b"more data", "other", B)
    await hold(blobs, b"data", A, first)
    await hold(blobs, b"more data", B, other)
    assert await rebuild(blobs, index) == (Rebuilt(blobs=2, files=2), [])
    assert await records(index) == [first, other]
    assert await index.check() == []


async def test_labels_of_one_blob_are_files_that_share_it(blobs: LocalStore, index: SqliteIndex) -> None:
    twins = [of(b"data", "first", A), of(b"data", "second", A)]
    await hold(blobs, b"data", A, *twins)
    await rebuild(blobs, index)
    assert await records(index) == twins


async def test_blob_without_a_label_has_a_record_from_its_bytes(
    blobs: LocalStore, index: SqliteIndex, tmp_path: Path
) -> None:
    await put(blobs, A)
    os.utime(tmp_path / "blobs" / "00" / A, (NOON.timestamp(),) * 2)
    rebuilt, _ = await rebuild(blobs, index)
    [file] = await records(index)
    made = a_file("x", id=file.id, key=A, size=4, media_type="text/plain", owner="recovered", filename=A)
    assert file == replace(made, sha256=hashlib.sha256(b"data").hexdigest(), created_at=NOON)
    assert rebuilt.recovered == 1


@pytest.mark.parametrize(
    "wrong",
    [b"", b"{", b"[]", b'{"owner": 1}', to_label(of(b"dat", "short", A)).text],
    ids=["", "{", "[]", "1", "size"],
)
async def test_label_that_is_wrong_is_reported_and_not_believed(
    blobs: LocalStore, index: SqliteIndex, wrong: bytes
) -> None:
    await put(blobs, A)
    await blobs.label(A, FileId("wrong"), wrong)
    rebuilt, [finding] = await rebuild(blobs, index)
    assert A in finding
    assert "wrong" in finding
    assert rebuilt.recovered == 1
    await blobs.label(A, FileId("right"), to_label(of(b"data", "right", A)).text)


async def test_labels_that_contradict_each_other_are_settled_by_the_bytes(
    blobs: LocalStore, index: SqliteIndex
) -> None:
    right, wrong = of(b"data", "right", A), of(b"atad", "wrong", A)
    await hold(blobs, b"data", A, right, wrong)
    _, [finding] = await rebuild(blobs, index)
    assert "id-wrong" in finding
    assert await records(index) == [right]


@pytest.mark.parametrize("deep", [False, True])
async def test_only_deep_compares_a_label_with_the_bytes(blobs: LocalStore, index: SqliteIndex, *, deep: bool) -> None:
    wrong = of(b"atad", "wrong", A)
    await hold(blobs, b"data", A, wrong)
    rebuilt, findings = await rebuild(blobs, index, deep=deep)
    assert (len(findings), rebuilt.recovered) == (deep, deep)
    [file] = await records(index)
    assert (file == wrong) is not deep


@pytest.mark.parametrize("damaged", [A, B])
async def test_file_that_two_blobs_tell_of_keeps_the_sound_one(
    blobs: LocalStore, index: SqliteIndex, tmp_path: Path, damaged: Key
) -> None:
    shared = [of(b"data", "first", A), of(b"data", "second", A)]
    await hold(blobs, b"data", A, *shared)
    await hold(blobs, b"data", B, *shared)
    (tmp_path / "blobs" / damaged[:2] / damaged).write_bytes(b"DATA")
    await rebuild(blobs, index)
    assert {file.key for file in await records(index)} == {A, B} - {damaged}
    assert {file.id for file in await records(index)} == {"id-first", "id-second"}


async def test_two_files_of_one_id_are_both_kept(blobs: LocalStore, index: SqliteIndex) -> None:
    await hold(blobs, b"data", A, of(b"data", "same", A))
    await hold(blobs, b"other data", B, of(b"other data", "same", B))
    rebuilt, [finding] = await rebuild(blobs, index)
    assert "id-same" in finding
    assert {(file.key, file.size) for file in await records(index)} == {(A, 4), (B, 10)}
    assert rebuilt.recovered == 1


async def test_many_files_are_more_than_one_transaction(
    blobs: LocalStore, index: SqliteIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "_LOT", 10)
    for number in range(25):
        await put(blobs, Key(f"{number:02x}{'c' * 30}"), b"%d" % number)
    monkeypatch.setattr(reindex, "_AT_ONCE", 4)
    assert (await rebuild(blobs, index))[0] == Rebuilt(blobs=25, files=25, recovered=25)


async def test_staged_blob_is_left_alone(blobs: LocalStore, index: SqliteIndex, tmp_path: Path) -> None:
    (tmp_path / "incoming" / A).write_bytes(b"data")
    await stage(blobs, B, [b"data"])
    assert await rebuild(blobs, index) == (Rebuilt(), [])
    assert (tmp_path / "incoming" / A).exists()


async def test_what_a_stranger_left_is_reported(blobs: LocalStore, index: SqliteIndex, tmp_path: Path) -> None:
    await put(blobs, A)
    (tmp_path / "blobs" / "00" / "zz").touch()
    (tmp_path / "blobs" / "00" / B).touch()
    (tmp_path / "blobs" / "00" / "00dir").mkdir()
    _, findings = await rebuild(blobs, index)
    assert sorted(finding.partition(":")[0] for finding in findings) == [B, "zz"]
    assert [file.key for file in await records(index)] == [A]
