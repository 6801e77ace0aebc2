"""Grants and links in the SQLite index."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from spool.errors import BeyondGrant, Gone, NotFound, SpoolError
from spool.model import File, FileId, Grant, GrantId, Link, LinkId, Override, Usage
from spool.work import sharing

from .index_suite import DAY, NOON, a_file, listed
from .uploads_model import an_upload

if TYPE_CHECKING:
    from spool.store.sqlite import SqliteIndex

ID = GrantId("grant-1")


def a_grant(name: str = "1", **changes: object) -> Grant:
    grant = Grant(GrantId(f"grant-{name}"), "ada", "", NOON, NOON + DAY, 10)
    return replace(grant, **changes)


def a_link(name: str = "1", **changes: object) -> Link:
    return replace(Link(LinkId(f"link-{name}"), FileId("id-1"), "ada", NOON, NOON + DAY), **changes)


def came(name: str, **changes: object) -> File:
    return a_file(name, **{"grant": ID, "key": f"key-{name}", **changes})


async def test_grant_is_known_by_its_hash_and_by_its_id(index: SqliteIndex) -> None:
    grant = a_grant(note="Grüße", max_size=5, max_file_size=4, types=("image/*", "a/b"), passphrase="x$y")
    await index.add_grant(grant, "hash")
    await index.set_override(Override("ada", quota=7))
    known = replace(grant, override=Override("ada", quota=7))
    assert await index.grant_of("hash") == await index.grant(ID) == known
    assert await index.grant_of("other") is None
    with pytest.raises(NotFound):
        await index.grant(GrantId("x"))


async def test_grants_are_listed_in_order(index: SqliteIndex) -> None:
    grants = [a_grant(str(i), owner="bob" if i % 2 else "ada", created_at=NOON + i // 2 * DAY) for i in range(7)]
    for grant in reversed(grants):
        await index.add_grant(grant, grant.id)
    assert await index.grants(None, None, 100) == grants
    assert await index.grants("ada", None, 100) == grants[::2]
    assert await index.grants(None, grants[2], 2) == grants[3:5]
    assert await index.grants("bob", grants[1], 100) == grants[3::2]
    assert await index.grants(None, None, 100, newest=True) == grants[::-1]
    assert await index.grants("ada", grants[4], 1, newest=True) == [grants[2]]


async def test_files_that_came_by_a_grant_count(index: SqliteIndex) -> None:
    await index.add_grant(a_grant(), "hash")
    await index.finish([came("1", size=3), came("2", size=4)])
    await index.add_upload(replace(an_upload("3", size=50), grant=ID))
    assert await index.grant_usage(ID) == Usage(2, 57, 1)
    await index.remove(FileId("id-1"))
    await index.drop((await index.uploads(None, 9))[0].id)
    assert await index.grant_usage(ID) == Usage(2, 7)
    grant = await index.grant(ID)
    assert (grant.files, grant.size) == (2, 7)


@pytest.mark.parametrize(
    ("bounds", "files", "unit"),
    [
        ({"max_files": 2}, [came("2"), came("3")], "files"),
        ({"max_size": 199}, [came("2")], "bytes"),
    ],
)
async def test_what_passes_a_bound_is_refused_whole(
    index: SqliteIndex, bounds: dict[str, int], files: list[File], unit: str
) -> None:
    await index.add_grant(a_grant(**bounds), "hash")
    await index.finish([came("1")])
    with pytest.raises(BeyondGrant) as refusal:
        await index.finish(files)
    assert refusal.value.members["unit"] == unit
    assert [file.id for file in await listed(index)] == ["id-1"]
    assert await index.grant_usage(ID) == Usage(1, 100)


async def test_many_at_once_do_not_pass_a_bound(index: SqliteIndex) -> None:
    await index.add_grant(a_grant(max_files=7), "hash")
    outcomes = await asyncio.gather(*(index.finish([came(f"{i}")]) for i in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, SpoolError)]
    assert (len(refused), len(await listed(index))) == (43, 7)


@pytest.mark.parametrize("change", [{"expires_at": NOON}, {"revoked_at": NOON}, {"id": GrantId("other")}])
async def test_nothing_comes_by_a_grant_that_has_ended(index: SqliteIndex, change: dict[str, object]) -> None:
    await index.add_grant(a_grant(**change), "hash")
    with pytest.raises(Gone):
        await index.finish([came("1")])
    assert await listed(index) == []


async def test_revocation_takes_what_is_not_finished(index: SqliteIndex) -> None:
    await index.add_grant(a_grant(), "hash")
    upload = replace(an_upload("1", size=50), grant=ID)
    await index.add_upload(upload)
    await index.add_upload(an_upload("2"))
    await index.finish([came("3")])
    assert await index.revoke_grant(ID, NOON) == [upload]
    assert await index.revoke_grant(ID, NOON + DAY) == []
    assert (await index.grant(ID)).revoked_at == NOON
    assert [u.id for u in await index.uploads(None, 9)] == ["up-2"]
    assert [file.id for file in await listed(index)] == ["id-3"]
    assert await index.check() == []
    with pytest.raises(NotFound):
        await index.revoke_grant(GrantId("x"), NOON)


async def test_link_goes_with_its_file(index: SqliteIndex) -> None:
    with pytest.raises(NotFound):
        await index.add_link(a_link(), "hash")
    await index.finish([a_file("1")])
    links = [a_link(str(i), created_at=NOON + i * DAY) for i in range(3)]
    for link in links:
        await index.add_link(link, link.id)
    assert await index.link_of("link-1") == links[1]
    assert await index.links(FileId("id-1"), 2) == [links[2], links[1]]
    await index.remove(FileId("id-1"))
    assert await index.link_of("link-1") is None
    assert await index.check() == []


async def test_downloads_and_bytes_are_taken_up_to_the_limit(index: SqliteIndex) -> None:
    await index.finish([a_file("1", size=100)])
    link = a_link(max_downloads=2)
    await index.add_link(link, "hash")
    await index.take_download(link.id, 100, 1)
    await index.take_download(link.id, 10, 1)
    with pytest.raises(Gone):
        await index.take_download(link.id, 0, 1)
    await index.give_back(link.id, 10, 1)
    await index.take_download(link.id, 200, 0)
    with pytest.raises(Gone):
        await index.take_download(link.id, 1, 0)
    known = await index.link_of("hash")
    assert known == replace(link, downloads=1, given=300)
    await index.give_back(link.id, 200, 0)
    await index.revoke_link(link.id, NOON)
    with pytest.raises(Gone):
        await index.take_download(link.id, 1, 0)


async def test_what_ended_long_ago_is_forgotten_and_no_sooner(index: SqliteIndex) -> None:
    await index.finish([a_file("1")])
    for number, changes in enumerate(({}, {"revoked_at": NOON}, {"expires_at": NOON + 60 * DAY})):
        await index.add_grant(a_grant(f"{number}", **changes), f"{number}")
        await index.add_link(a_link(f"{number}", **changes), f"{number}")
    assert await sharing.run_once(index, lambda: NOON + 30 * DAY) == 0
    assert await sharing.run_once(index, lambda: NOON + 30 * DAY + DAY / 2) == 2
    assert await sharing.run_once(index, lambda: NOON + 31 * DAY + DAY / 2) == 2
    assert [grant.id for grant in await index.grants(None, None, 9)] == ["grant-2"]
    assert [link.id for link in await index.links(FileId("id-1"), 9)] == ["link-2"]
