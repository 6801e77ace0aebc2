"""Damage made by hand in a real store and a real index, and what a check says of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from spool.model import FileId, Intent, Key, Resumable, Staged, UploadId, Usage
from spool.store import LocalStore, SqliteIndex, open_blobs, open_index
from spool.work import fsck as subject
from spool.work.fsck import Fsck
from tests.store.blobstore_suite import content, keys, put, stage
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from spool.model import File, Finding

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
DATA = b"what was uploaded"


def a_key(number: int, prefix: str = "00") -> Key:
    return Key(f"{prefix}{number:030x}")


KEY = a_key(1, "5a")


class Bench:
    """A spool, and a way into its files that nobody else has."""

    def __init__(self, root: Path, blobs: LocalStore, index: SqliteIndex) -> None:
        self.root = root
        self.blobs = blobs
        self.index = index

    async def add(self, name: str = "a", data: bytes = DATA, **changes: Any) -> File:
        file = a_file(name, **{"key": KEY, "size": len(data), "sha256": sha256(data).hexdigest(), **changes})
        if file.key not in await keys(self.blobs):
            await put(self.blobs, file.key, data)
        await self.index.finish([file])
        return file

    def path(self, key: Key) -> Path:
        return self.root / "blobs" / key[:2] / key

    def sql(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.root / "index.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    async def reopen(self) -> None:
        """The index, which was closed, as another process finds it."""
        self.index = await open_index(self.root)

    async def check(self, **options: Any) -> list[Finding]:
        return [finding async for finding in Fsck(self.blobs, self.index, **options).run()]

    async def kinds(self, **options: Any) -> list[str]:
        return [finding.kind for finding in await self.check(**options)]

    async def damage(self, *files: File) -> list[str | None]:
        return [(await self.index.file(file.id)).damage for file in files]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    blobs, index = await open_blobs(tmp_path), await open_index(tmp_path)
    bench = Bench(tmp_path, blobs, index)
    yield bench
    await blobs.aclose()
    await bench.index.aclose()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def an_upload(name: str = "u", offset: int = 5, **changes: Any) -> Resumable:
    upload = Resumable(
        id=UploadId(f"id-{name}"),
        key=a_key(77, "c4"),
        owner="ada",
        dialect="tus",
        intent=Intent(f"{name}.mp3", 100),
        notes={},
        partial=False,
        created_at=NOW,
        expires_at=NOW + DAY,
        staged=Staged(offset),
        state="open",
        epoch=1,
        media_type=None,
        file_id=None,
    )
    return replace(upload, **changes)


@pytest.mark.parametrize("deep", [False, True])
async def test_sound_spool_has_no_findings(bench: Bench, deep: bool) -> None:  # noqa: FBT001
    for number, prefix in enumerate(("00", "01", "7f", "80", "fe", "ff")):
        await bench.add(f"f{number}", str(number).encode(), key=a_key(number, prefix))
    await bench.add("empty", b"", key=a_key(9, "ff"))
    await stage(bench.blobs, an_upload().key, [b"12345, and more"], at=Staged(0))
    await bench.index.add_upload(an_upload())
    await bench.index.add_upload(an_upload("new", 0, key=a_key(78)))
    assert await bench.check(deep=deep) == []


async def test_check_tells_what_it_has_looked_at(bench: Bench) -> None:
    await bench.add("a")
    await bench.add("b")
    await stage(bench.blobs, an_upload().key, [b"12345"], at=Staged(0))
    await bench.index.add_upload(an_upload())
    check = Fsck(bench.blobs, bench.index, deep=True)
    assert [finding async for finding in check.run()] == []
    assert check.tally == subject.Tally(files=2, blobs=1, uploads=1, read=len(DATA))


async def test_missing_blob_is_a_finding_for_each_of_its_files(bench: Bench) -> None:
    files = [await bench.add("a"), await bench.add("b")]
    bench.path(KEY).unlink()
    found = await bench.check()
    assert [(f.kind, f.key, f.id, f.filename) for f in found] == [
        ("missing", KEY, file.id, file.filename) for file in files
    ]
    assert await bench.damage(*files) == [None, None]


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
async def test_blob_of_another_size_is_a_finding(bench: Bench, size: int) -> None:
    file = await bench.add()
    os.truncate(bench.path(KEY), size)
    [found] = await bench.check()
    assert (found.kind, found.id, found.repaired) == ("size", file.id, False)
    assert f"{size} bytes, not {len(DATA)}" in found.detail


async def test_flipped_bit_is_found_by_a_deep_check_only(bench: Bench) -> None:
    file = await bench.add()
    flip(bench.path(KEY))
    assert await bench.check() == []
    assert [(f.kind, f.id) for f in await bench.check(deep=True)] == [("digest", file.id)]


async def test_byte_anywhere_in_a_large_blob_counts(bench: Bench) -> None:
    data = bytes(9 * 1024 * 1024)
    await bench.add(data=data)
    assert await bench.check(deep=True) == []
    with bench.path(KEY).open("r+b") as blob:
        blob.seek(-1, os.SEEK_END)
        blob.write(b"\x01")
    assert await bench.kinds(deep=True) == ["digest"]


async def test_blob_without_a_record_is_a_finding_and_stays(bench: Bench) -> None:
    await bench.add()
    await put(bench.blobs, a_key(2, "ff"))
    assert [(f.kind, f.key) for f in await bench.check()] == [("orphan", a_key(2, "ff"))]
    assert (await keys(bench.blobs)).keys() == {KEY, a_key(2, "ff")}


async def test_blob_of_an_upload_that_is_not_finished_is_no_finding(bench: Bench) -> None:
    await put(bench.blobs, an_upload().key, b"12345")
    await bench.index.add_upload(an_upload())
    assert await bench.check() == []


async def test_blob_that_may_be_on_its_way_is_left_alone(bench: Bench) -> None:
    await put(bench.blobs, KEY)
    written_at = datetime.fromtimestamp(bench.path(KEY).stat().st_mtime, UTC)
    assert await bench.check(repair=True, since=written_at) == []
    assert await bench.kinds(since=written_at + timedelta(seconds=1)) == ["orphan"]


@pytest.mark.parametrize("name", ["00README", "0" * 31, "0" * 33, "00" + "A" * 30, "00" + "a" * 29 + "\n"])
async def test_name_that_is_no_key_is_a_finding_and_never_deleted(bench: Bench, name: str) -> None:
    (bench.root / "blobs" / "00" / name).touch()
    assert [(f.kind, f.repaired) for f in await bench.check(repair=True)] == [("stray", False)]
    assert (bench.root / "blobs" / "00" / name).exists()


async def test_name_that_no_key_leads_to_is_a_finding_and_never_deleted(bench: Bench) -> None:
    shard = bench.root / "blobs" / "00"
    (shard / "README").touch()
    (shard / a_key(1, "01")).touch()
    (shard / a_key(1)).mkdir()
    (shard / a_key(2)).symlink_to("README")
    found = await bench.check(repair=True)
    assert {(f.kind, f.key) for f in found} == {
        ("stray", f"blobs/00/{name}") for name in ("README", a_key(1, "01"), a_key(1), a_key(2))
    }
    assert len(list(shard.iterdir())) == len(found) == 4


async def test_record_with_a_key_that_is_none_is_a_finding(bench: Bench) -> None:
    await bench.index.finish([a_file("low", key=Key("")), a_file("high", key=Key("zz"))])
    assert await bench.kinds(deep=True) == ["missing", "missing"]


@pytest.mark.parametrize("state", ["open", "complete"])
async def test_upload_with_fewer_staged_bytes_than_its_offset_is_a_finding(bench: Bench, state: str) -> None:
    upload = an_upload(state=state)
    await stage(bench.blobs, upload.key, [b"1234"], at=Staged(0))
    await bench.index.add_upload(upload)
    await bench.index.add_upload(an_upload("gone", 1, key=a_key(78)))
    found = await bench.check(repair=True)
    assert [(f.kind, f.id, f.repaired) for f in found] == [
        ("upload", UploadId("id-gone"), False),
        ("upload", upload.id, False),
    ]
    assert "4 of its 5 bytes" in found[1].detail


async def test_wrong_counters_are_findings_and_recounted(bench: Bench) -> None:
    await bench.add("a")
    await bench.add("b", owner="bob")
    await bench.index.add_upload(an_upload(offset=0))
    bench.sql(
        "UPDATE usage SET files = 7, size = size + 1 WHERE owner = 'ada'",
        "DELETE FROM usage WHERE owner = 'bob'",
        "INSERT INTO usage VALUES ('nobody', 1, 1)",
        "UPDATE promised SET size = 3",
        "UPDATE unfinished SET uploads = 9",
    )
    assert await bench.kinds() == ["index"] * 5
    assert [f.repaired for f in await bench.check(repair=True)] == [True] * 5
    assert await bench.check() == []
    assert await bench.index.usage("ada") == Usage(1, len(DATA) + 100, 1)
    assert await bench.index.usage("bob") == Usage(1, len(DATA))
    assert await bench.index.promised() == 100


async def test_counters_are_right_though_uploads_come_during_the_recount(bench: Bench) -> None:
    await bench.add("a")
    bench.sql("UPDATE usage SET files = 5, size = 5")
    read = bench.index._db.read

    async def slowly(query: Any) -> Any:
        outcome = await read(query)
        await bench.add("b")
        return outcome

    bench.index._db.read = slowly  # type: ignore[method-assign]  # what comes between the two steps of a recount
    await bench.index.recount()
    bench.index._db.read = read  # type: ignore[method-assign]
    assert await bench.index.check() == []
    assert (await bench.index.usage("ada")).files == 2


async def test_index_that_misses_records_is_a_finding_and_nothing_is_deleted(bench: Bench) -> None:
    kept = await bench.add("kept")
    lost = await bench.add("lost", key=a_key(2))
    await put(bench.blobs, a_key(3))
    # A partial index under the name of the whole one, whose definition is then put back, lacks the other rows.
    [(definition,)] = _rows(bench, "SELECT sql FROM sqlite_schema WHERE name = 'files_by_key'")
    bench.sql(
        "DROP INDEX files_by_key",
        f"CREATE INDEX files_by_key ON files (key, id) WHERE key = '{kept.key}'",
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_schema SET sql = '{definition}' WHERE name = 'files_by_key'",
    )
    index = await open_index(bench.root)
    try:
        found = [f async for f in Fsck(bench.blobs, index, repair=True).run()]
    finally:
        await index.aclose()
    assert found[0].kind == "index"
    assert [f for f in found if f.repaired] == []
    assert await content(bench.blobs, lost.key) == DATA


def _rows(bench: Bench, sql: str) -> list[Any]:
    with closing(sqlite3.connect(bench.root / "index.db")) as connection:
        return connection.execute(sql).fetchall()


async def test_index_with_torn_pages_is_a_finding(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    await bench.add()
    copy = tmp_path_factory.mktemp("copy")
    with closing(sqlite3.connect(copy / "index.db")) as target, closing(sqlite3.connect(bench.root / "index.db")) as db:
        db.backup(target)
    [(page,)] = _rows(bench, "SELECT rootpage FROM sqlite_schema WHERE name = 'files_by_key'")
    with (copy / "index.db").open("r+b") as torn:
        torn.seek((page - 1) * 4096)
        torn.write(bytes(4096))
    index = await open_index(copy)
    try:
        found = [f async for f in Fsck(bench.blobs, index, repair=True).run()]
    finally:
        await index.aclose()
    assert [f.kind for f in found[:1] + found[-1:]] == ["index"] * 2
    assert "ended early" in found[-1].detail
    assert not any(f.repaired for f in found)


@pytest.mark.parametrize("harm", ["missing", "size", "digest"])
async def test_repair_marks_what_is_damaged_and_only_that(bench: Bench, harm: str) -> None:
    hurt, twin = await bench.add("a"), await bench.add("b")
    sound = await bench.add("c", b"other", key=a_key(2))
    match harm:
        case "missing":
            bench.path(KEY).unlink()
        case "size":
            os.truncate(bench.path(KEY), 3)
        case _:
            flip(bench.path(KEY))
    found = await bench.check(deep=True, repair=True)
    assert [(f.kind, f.repaired) for f in found] == [(harm, False)] * 2
    assert await bench.damage(hurt, twin, sound) == [harm, harm, None]
    assert await bench.kinds() == [harm] * 2  # a marked file is looked at in every check


async def test_repair_deletes_blobs_without_records_and_no_other(bench: Bench) -> None:
    await bench.add()
    for number in range(3):
        await put(bench.blobs, a_key(number))
    assert [(f.kind, f.repaired) for f in await bench.check(repair=True)] == [("orphan", True)] * 3
    assert (await keys(bench.blobs)).keys() == {KEY}
    assert await bench.check() == []


async def test_marked_file_whose_blob_was_put_back_is_unmarked(bench: Bench) -> None:
    file = await bench.add()
    bench.path(KEY).unlink()
    await bench.check(repair=True)
    bench.path(KEY).write_bytes(DATA)
    assert [(f.kind, f.repaired) for f in await bench.check()] == [("sound", False)]
    assert await bench.damage(file) == ["missing"]
    assert [(f.kind, f.repaired) for f in await bench.check(repair=True)] == [("sound", True)]
    assert await bench.damage(file) == [None]
    assert await bench.check() == []


async def test_marked_file_is_not_unmarked_for_its_size(bench: Bench) -> None:
    file = await bench.add()
    flip(bench.path(KEY))
    await bench.check(deep=True, repair=True)
    assert await bench.kinds(repair=True) == ["digest"]
    assert await bench.damage(file) == ["digest"]


async def test_files_of_one_blob_are_all_found_however_many_they_are(bench: Bench) -> None:
    count = subject._PAGE + 5
    files = [a_file(f"f{n:05}", key=KEY, size=4, sha256=sha256(b"data").hexdigest()) for n in range(count)]
    await bench.index.finish(files)
    assert await bench.kinds() == ["missing"] * count
    await put(bench.blobs, KEY, b"data")
    check = Fsck(bench.blobs, bench.index, deep=True)
    assert [finding async for finding in check.run()] == []
    assert check.tally.read == 4


class Between:
    """The real index, but just before a question of this name is answered the first time, something happens."""

    def __init__(self, index: SqliteIndex, question: str, event: Any) -> None:
        self._index = index
        self._question = question
        self._event = event

    def __getattr__(self, name: str) -> Any:  # whatever the index has
        verb = getattr(self._index, name)

        async def after(*values: Any, **options: Any) -> Any:
            answer = await verb(*values, **options)
            if name == self._question and answer:
                self._question = ""
                await self._event()
            return answer

        return after


async def between(bench: Bench, question: str, event: Any, **options: Any) -> list[str]:
    index = Between(bench.index, question, event)
    return [f.kind async for f in Fsck(bench.blobs, index, **options).run()]  # type: ignore[arg-type]


@pytest.mark.parametrize("deep", [False, True])
async def test_file_that_is_deleted_meanwhile_is_no_finding(bench: Bench, deep: bool) -> None:  # noqa: FBT001
    file = await bench.add()
    bench.path(KEY).rename(bench.root / "aside")  # as if the listing came after the delete

    async def delete() -> None:
        await bench.index.remove(file.id)

    assert await between(bench, "by_key", delete, deep=deep) == []


async def test_file_that_is_given_another_blob_meanwhile_is_no_finding(bench: Bench) -> None:
    await bench.add()
    bench.path(KEY).unlink()
    await put(bench.blobs, a_key(1), DATA)

    async def heal() -> None:
        await bench.index.heal(KEY, a_key(1))

    assert "missing" not in await between(bench, "by_key", heal, since=NOW - DAY)


async def test_upload_that_ends_meanwhile_is_no_finding(bench: Bench) -> None:
    upload = an_upload(state="complete")
    await bench.index.add_upload(upload)

    async def drop() -> None:
        await bench.index.drop(upload.id)

    assert await between(bench, "uploads", drop) == []


async def test_upload_that_becomes_a_file_meanwhile_is_no_finding(bench: Bench) -> None:
    upload = an_upload(state="complete")
    await bench.index.add_upload(upload)

    async def finish() -> None:
        await bench.index.finish([a_file("f", id=FileId("f"))], upload=upload)

    assert await between(bench, "uploads", finish) == []


async def test_blob_that_a_delete_is_about_to_take_is_no_finding(bench: Bench) -> None:
    await put(bench.blobs, KEY)
    os.utime(bench.path(KEY), (0, 0))

    class Deleted(Between):
        async def referenced(self, asked: Sequence[Key]) -> set[Key]:
            named = await bench.index.referenced(asked)
            await bench.blobs.delete(KEY)
            return named

    index = Deleted(bench.index, "", None)
    assert [f async for f in Fsck(bench.blobs, index, since=NOW).run()] == []  # type: ignore[arg-type]


async def test_blob_of_a_record_that_came_after_the_page_is_no_finding(bench: Bench) -> None:
    await put(bench.blobs, KEY, DATA)
    await bench.add("first", key=a_key(0, "5a"))

    async def commit() -> None:
        await bench.add("late")

    assert await between(bench, "by_key", commit) == []


async def test_repair_marks_nothing_that_healed_meanwhile(bench: Bench) -> None:
    file = await bench.add()
    flip(bench.path(KEY))

    async def replace_by_upload() -> None:
        await bench.index.mark(KEY, "digest")
        await put(bench.blobs, a_key(5), DATA)
        await bench.index.finish([replace(file, id=FileId("new"), key=a_key(5))], share=True)

    await between(bench, "by_key", replace_by_upload, deep=True, repair=True)
    assert await bench.damage(file, replace(file, id=FileId("new"))) == [None, None]
