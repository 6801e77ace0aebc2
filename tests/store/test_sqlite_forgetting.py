"""What is deleted in bulk: other writes wait for no more than a part of it, and its room comes back in few steps."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from spool.store.sqlite import open_sqlite

from .index_suite import DAY, NOON, a_file, an_answer
from .sight import Sight
from .test_sqlite_sharing import a_grant, a_link

if TYPE_CHECKING:
    from pathlib import Path

_MANY = 2500
_LOT = 100
"""Rows that are forgotten in one transaction."""
_SPARE = 512
"""Pages that may lie idle."""
_CUT = 128
"""Pages that are cut off in one transaction."""


def most_deleted_at_once(statements: list[str], table: str) -> int:
    """The bound of the statements that delete from the table, each of which is alone in its transaction."""
    ends = [i for i, statement in enumerate(statements) if statement == "COMMIT"]
    transactions = [statements[a:b] for a, b in pairwise([-1, *ends])]
    deletes = [[s for s in done if s.startswith(f"DELETE FROM {table}")] for done in transactions]
    assert all(len(done) <= 1 for done in deletes)
    return max(int(s.partition("LIMIT ")[2].rstrip(")")) for done in deletes for s in done)


async def test_many_answers_are_forgotten_in_parts_and_their_room_is_given_back(tmp_path: Path) -> None:
    sight = Sight()
    index = await open_sqlite(tmp_path / "index.db", connected=sight)
    writer = sight.connections[0]
    await index.finish([], an_answer())
    rows = "SELECT owner, value, fingerprint, created_at, hex(zeroblob(2000)) FROM answers, json_each(?)"
    writer.execute(f"INSERT INTO answers {rows}", (str(list(range(_MANY))),))
    sight.take()

    assert await index.forget(NOON + 2 * DAY) == _MANY + 1

    done = sight.take()
    assert most_deleted_at_once(done, "answers") == _LOT
    cuts = [step.count("incremental_vacuum") for step in "".join(done).split("COMMIT")]
    assert max(cuts) == _CUT
    assert done.count("COMMIT") <= _MANY // _LOT + 30
    assert writer.execute("PRAGMA freelist_count").fetchone()[0] <= _SPARE
    await index.aclose()


@pytest.mark.parametrize("revoked", [False, True])
async def test_many_grants_and_links_that_ended_are_forgotten_in_parts(tmp_path: Path, *, revoked: bool) -> None:
    sight = Sight()
    index = await open_sqlite(tmp_path / "index.db", connected=sight)
    writer = sight.connections[0]
    await index.finish([a_file("1")])
    over, later = (NOON + 9 * DAY, NOON + 2 * DAY) if revoked else (NOON + DAY, None)
    await index.add_grant(a_grant(expires_at=over, revoked_at=later), "hash")
    await index.add_link(a_link(expires_at=over, revoked_at=later), "hash")
    for table in ("grants", "links"):
        columns = [name for _, name, *_ in writer.execute(f"PRAGMA table_info({table})").fetchall()]
        rows = ", ".join("value" if name in ("id", "secret_hash") else name for name in columns)
        writer.execute(f"INSERT INTO {table} SELECT {rows} FROM {table}, json_each(?)", (str(list(range(_MANY))),))
    living = a_grant("2", expires_at=NOON + 9 * DAY), a_link("2", expires_at=NOON + 9 * DAY)
    await index.add_grant(living[0], "other")
    await index.add_link(living[1], "other")
    sight.take()

    assert await index.forget_grants(NOON + 3 * DAY) == _MANY + 1
    assert await index.forget_links(NOON + 3 * DAY) == _MANY + 1

    done = sight.take()
    assert most_deleted_at_once(done, "grants") == most_deleted_at_once(done, "links") == _LOT
    assert await index.grants(None, None, 9) == [living[0]]
    assert await index.links(a_file("1").id, 9) == [living[1]]
    await index.aclose()


async def test_what_ended_is_found_without_a_look_at_what_did_not(tmp_path: Path) -> None:
    sight = Sight()
    index = await open_sqlite(tmp_path / "index.db", connected=sight)
    sight.take()
    await index.forget_grants(NOON)
    await index.forget_links(NOON)
    steps = [step for _, plan in sight.plans() for step in plan if "rowid=?" not in step]
    assert [step.replace("COVERING ", "") for step in steps if "LIST" not in step] == [
        "SEARCH grants USING INDEX grants_by_end (<expr><?)",
        "SEARCH links USING INDEX links_by_end (<expr><?)",
    ]
    await index.aclose()
