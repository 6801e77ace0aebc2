"""What is deleted in bulk: other writes wait for no more than a part of it, and its room comes back in few steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.store.sqlite import open_sqlite

from .index_suite import DAY, NOON, an_answer
from .sight import Sight

if TYPE_CHECKING:
    from pathlib import Path

_MANY = 2500
_SPARE = 512
"""Pages that may lie idle, and that are cut off at a time."""


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
    assert sum(statement.startswith("DELETE FROM answers") for statement in done) >= _MANY // 1000 + 1
    assert done.count("COMMIT") <= 20
    assert writer.execute("PRAGMA freelist_count").fetchone()[0] <= _SPARE
    await index.aclose()
