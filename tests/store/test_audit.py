"""The audit log in the index: an entry comes with what it tells of, or neither does."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.errors import NotFound, Unavailable
from spool.model import By, FileId, GrantId, LinkId, Override, TokenId
from spool.store.sqlite import SqliteIndex, open_sqlite
from tests.store.index_suite import DAY, NOON, a_file, a_token
from tests.store.test_sqlite_sharing import a_grant, a_link, came

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from spool.model import Entry, File

ADA = By("ada", "http", NOON, "ab12")


async def told(index: SqliteIndex) -> list[tuple[str, str, Any]]:
    return [(entry.act, entry.subject, entry.detail) for entry in await all_of(index)]


async def all_of(index: SqliteIndex) -> list[Entry]:
    return list(await index.audited(NOON - 1000 * DAY, 0, 10**6))


def renamed(file: File) -> File:
    return replace(file, filename="b.jpg", expires_at=NOON + DAY, metadata={"a": "1", "b": ["2"]})


async def test_change_tells_what_it_was_and_became(index: SqliteIndex) -> None:
    await index.finish([a_file("a", metadata={"a": "1", "c": "3"})])
    await index.annotate(FileId("id-a"), renamed, ADA)
    detail = {
        "filename": ["a.jpg", "b.jpg"],
        "expires_at": [None, "2026-03-02T12:00:00.123456Z"],
        "metadata": ["b", "c"],
    }
    assert await told(index) == [("file.changed", "id-a", detail)]


async def test_change_of_nothing_is_none(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    await index.annotate(FileId("id-a"), lambda file: file, ADA)
    assert await told(index) == []


async def test_change_of_large_metadata_makes_a_small_entry(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    large = {f"{number}" + "x" * 1000: "y" * 10_000 for number in range(50)}
    await index.annotate(FileId("id-a"), lambda file: replace(file, metadata=large), ADA)
    assert len(str((await told(index))[0][2])) < 3000


async def test_deletion_tells_what_there_was(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    await index.remove(FileId("id-a"), ADA)
    [(act, subject, detail)] = await told(index)
    assert (act, subject) == ("file.deleted", "id-a")
    assert detail == {
        "owner": "ada",
        "filename": "a.jpg",
        "size": 100,
        "media_type": "image/jpeg",
        "sha256": "ab" * 32,
        "created_at": "2026-03-01T12:00:00.123456Z",
    }


async def test_tokens_and_limits_are_told_without_secrets(index: SqliteIndex) -> None:
    await index.add_token(a_token("t"), "hash-of-the-secret", ADA)
    await index.set_override(Override("bob", quota=7), ADA)
    await index.clear_override("bob", ADA)
    await index.revoke(TokenId("token-t"), ADA)
    token = {"name": "t", "scopes": ["read", "write"], "expires_at": None}
    assert await told(index) == [
        ("token.created", "token-t", token),
        ("limit.set", "bob", {"quota": 7}),
        ("limit.cleared", "bob", {}),
        ("token.revoked", "token-t", token),
    ]
    assert "hash-of-the-secret" not in str(await all_of(index))


async def test_grants_and_links_are_told_without_secrets(index: SqliteIndex) -> None:
    await index.finish([a_file("1")])
    grant = a_grant(note="For Eve", max_size=9, types=("x" * 255,) * 30, passphrase="salt$key")
    await index.add_grant(grant, "hash-of-the-grant", ADA)
    await index.finish([came("2", size=4)])
    await index.revoke_grant(grant.id, NOON, ADA)
    await index.add_link(a_link(max_downloads=2), "hash-of-the-link", ADA)
    await index.revoke_link(LinkId("link-1"), NOON, ADA)
    first, second, third, fourth = await told(index)
    bounds = {"owner": "ada", "expires_at": "2026-03-02T12:00:00.123456Z", "max_files": 10, "max_size": 9}
    bounds |= {"max_file_size": 0, "types": ["x" * 100] * 20, "passphrase": True, "files": 0, "size": 0}
    assert first == ("grant.created", "grant-1", bounds)
    assert second == ("grant.revoked", "grant-1", {**bounds, "files": 1, "size": 4})
    link = {"file_id": "id-1", "created_by": "ada", "expires_at": bounds["expires_at"], "max_downloads": 2}
    assert third == ("link.created", "link-1", {**link, "downloads": 0})
    assert fourth == ("link.revoked", "link-1", {**link, "downloads": 0})
    entries = str(await all_of(index))
    assert not any(secret in entries for secret in ("hash-of", "salt", "Eve"))


async def test_what_was_revoked_already_has_no_second_entry(index: SqliteIndex) -> None:
    await index.finish([a_file("1")])
    await index.add_grant(a_grant(), "hash")
    await index.add_link(a_link(), "hash")
    for _ in range(2):
        await index.revoke_grant(GrantId("grant-1"), NOON, ADA)
        await index.revoke_link(LinkId("link-1"), NOON, ADA)
    assert [act for act, *_ in await told(index)] == ["grant.revoked", "link.revoked"]


async def test_entry_says_who_and_how(index: SqliteIndex) -> None:
    await index.add_token(a_token("t"), "hash", ADA)
    [entry] = await all_of(index)
    assert (entry.who, entry.via, entry.at, entry.request_id) == ("ada", "http", NOON, "ab12")


async def test_what_nobody_did_has_no_entry(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    await index.remove(FileId("id-a"))
    assert await told(index) == []


VERBS: dict[str, Callable[[SqliteIndex], Awaitable[object]]] = {
    "annotate": lambda index: index.annotate(FileId("id-none"), renamed, ADA),
    "remove": lambda index: index.remove(FileId("id-none"), ADA),
    "revoke": lambda index: index.revoke(TokenId("none"), ADA),
    "clear": lambda index: index.clear_override("none", ADA),
    "revoke_grant": lambda index: index.revoke_grant(GrantId("none"), NOON, ADA),
    "add_link": lambda index: index.add_link(a_link(), "hash", ADA),
    "revoke_link": lambda index: index.revoke_link(LinkId("none"), NOON, ADA),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_what_did_not_happen_has_no_entry(index: SqliteIndex, verb: str) -> None:
    with pytest.raises(NotFound):
        await VERBS[verb](index)
    assert await told(index) == []


DEEDS: dict[str, Callable[[SqliteIndex], Awaitable[object]]] = {
    "annotate": lambda index: index.annotate(FileId("id-a"), renamed, ADA),
    "remove": lambda index: index.remove(FileId("id-a"), ADA),
    "add_token": lambda index: index.add_token(a_token("new"), "new-hash", ADA),
    "revoke": lambda index: index.revoke(TokenId("token-t"), ADA),
    "set_override": lambda index: index.set_override(Override("ada", quota=7), ADA),
    "clear_override": lambda index: index.clear_override("bob", ADA),
    "add_grant": lambda index: index.add_grant(a_grant("new"), "new-hash", ADA),
    "revoke_grant": lambda index: index.revoke_grant(GrantId("grant-old"), NOON, ADA),
    "add_link": lambda index: index.add_link(a_link("new", file_id=FileId("id-a")), "new-hash", ADA),
    "revoke_link": lambda index: index.revoke_link(LinkId("link-old"), NOON, ADA),
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_nothing_happens_whose_entry_cannot_be_written(tmp_path: Path, deed: str) -> None:
    path = tmp_path / "index.db"
    async with aclosing(await open_sqlite(path)) as index:
        await index.finish([a_file("a")])
        await index.add_token(a_token("t"), "hash")
        await index.set_override(Override("bob", quota=5))
        await index.add_grant(a_grant("old"), "hash")
        await index.add_link(a_link("old", file_id=FileId("id-a")), "hash")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'broken'); END")
        with pytest.raises(Unavailable):
            await DEEDS[deed](index)
        assert await index.file(FileId("id-a")) == a_file("a")
        assert [token.id for token in await index.tokens()] == ["token-t"]
        assert [override.owner for override in await index.overrides()] == ["bob"]
        assert [(grant.id, grant.revoked_at) for grant in await index.grants(None, None, 9)] == [("grant-old", None)]
        assert [(link.id, link.revoked_at) for link in await index.links(FileId("id-a"), 9)] == [("link-old", None)]


async def test_entries_come_in_pages_in_the_order_they_were_made(index: SqliteIndex) -> None:
    by = [replace(ADA, at=NOON + n * timedelta(minutes=1)) for n in range(10)]
    await asyncio.gather(*(index.set_override(Override(f"p{n}", quota=n), by[n]) for n in range(10)))
    seen: list[Entry] = []
    while page := await index.audited(NOON + timedelta(minutes=3), seen[-1].number if seen else 0, 2):
        assert len(page) <= 2
        seen += page
    assert [entry.subject for entry in seen] == [f"p{n}" for n in range(3, 10)]


async def test_entry_cannot_be_changed(index: SqliteIndex, tmp_path: Path) -> None:
    await index.add_token(a_token("t"), "hash", ADA)
    with closing(sqlite3.connect(tmp_path / "index.db")) as other, pytest.raises(sqlite3.IntegrityError, match="never"):
        other.execute("UPDATE audit SET who = 'eve'")


async def test_old_entries_are_forgotten_and_numbers_are_not_given_out_again(index: SqliteIndex) -> None:
    for day in range(4):
        await index.set_override(Override("bob", quota=day), replace(ADA, at=NOON + day * DAY))
    assert await index.forget_audited(NOON + 2 * DAY, 100) == 2
    assert [entry.detail["quota"] for entry in await all_of(index)] == [2, 3]
    assert await index.forget_audited(NOON + 100 * DAY, 100) == 2
    await index.set_override(Override("bob", quota=9), ADA)
    assert [entry.number for entry in await all_of(index)] == [5]


async def test_entries_are_bounded_in_number(index: SqliteIndex) -> None:
    for number in range(5):
        await index.set_override(Override("bob", quota=number), ADA)
    assert await index.forget_audited(None, 3) == 2
    assert [entry.detail["quota"] for entry in await all_of(index)] == [2, 3, 4]


async def test_entries_are_in_a_backup(index: SqliteIndex, tmp_path: Path) -> None:
    await index.add_token(a_token("t"), "hash", ADA)
    (tmp_path / "copy.db").touch()
    await index.copy_to(tmp_path / "copy.db")
    async with aclosing(await open_sqlite(tmp_path / "copy.db")) as copy:
        assert await all_of(copy) == await all_of(index)
