from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spool.errors import KeyInUse, Rejected
from spool.idempotency import Idempotency
from tests.clock import NOON, Clock
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from spool.store import SqliteIndex

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def idempotency(index: SqliteIndex, clock: Clock) -> Idempotency:
    return Idempotency(index, clock)


async def answer(idempotency: Idempotency, index: SqliteIndex, key: str = "key", fingerprint: str = "print") -> None:
    """A request under this key is answered."""
    draft = idempotency.draft("ada", key, fingerprint)
    file = a_file(key)
    await index.finish([file], type(draft)(draft.owner, key, fingerprint, draft.created_at, (file,)))


async def test_draft_has_the_time_of_the_clock_and_no_files(idempotency: Idempotency) -> None:
    draft = idempotency.draft("ada", "key", "print")
    assert (draft.owner, draft.idempotency_key, draft.fingerprint) == ("ada", "key", "print")
    assert (draft.created_at, draft.files) == (NOON, ())


async def test_key_is_in_use_while_its_request_runs(idempotency: Idempotency) -> None:
    draft = idempotency.draft("ada", "key", "print")
    with await idempotency.running(draft), pytest.raises(KeyInUse), await idempotency.running(draft):
        pass


async def test_key_stays_in_use_after_another_request_was_turned_away(idempotency: Idempotency) -> None:
    draft = idempotency.draft("ada", "key", "print")
    with await idempotency.running(draft):
        for _ in range(2):
            with pytest.raises(KeyInUse), await idempotency.running(draft):
                pass


async def test_key_is_free_after_its_request_failed(idempotency: Idempotency) -> None:
    draft = idempotency.draft("ada", "key", "print")
    with pytest.raises(ZeroDivisionError), await idempotency.running(draft):
        raise ZeroDivisionError
    with await idempotency.running(draft):
        pass


async def test_key_of_another_owner_is_another_key(idempotency: Idempotency) -> None:
    with (
        await idempotency.running(idempotency.draft("ada", "key", "print")),
        await idempotency.running(idempotency.draft("bob", "key", "print")),
    ):
        pass


async def test_first_request_has_no_earlier_answer(idempotency: Idempotency) -> None:
    assert await idempotency.earlier(idempotency.draft("ada", "key", "print")) is None


async def test_retry_gets_the_first_answer(idempotency: Idempotency, index: SqliteIndex, clock: Clock) -> None:
    await answer(idempotency, index)
    clock.time = NOON + DAY
    earlier = await idempotency.earlier(idempotency.draft("ada", "key", "print"))
    assert earlier is not None
    assert earlier.files == (a_file("key"),)


async def test_answer_is_not_another_owners(idempotency: Idempotency, index: SqliteIndex) -> None:
    await answer(idempotency, index)
    assert await idempotency.earlier(idempotency.draft("bob", "key", "print")) is None


async def test_key_of_another_request_is_rejected(idempotency: Idempotency, index: SqliteIndex) -> None:
    await answer(idempotency, index)
    with pytest.raises(Rejected):
        await idempotency.earlier(idempotency.draft("ada", "key", "another"))


async def test_answer_counts_for_a_day(idempotency: Idempotency, index: SqliteIndex, clock: Clock) -> None:
    await answer(idempotency, index)
    clock.time = NOON + DAY + TICK
    assert await idempotency.earlier(idempotency.draft("ada", "key", "another")) is None


async def test_key_can_be_used_anew_after_a_day(idempotency: Idempotency, index: SqliteIndex, clock: Clock) -> None:
    await answer(idempotency, index)
    clock.time = NOON + DAY + TICK
    draft = idempotency.draft("ada", "key", "another")
    await index.finish([], draft)
    assert await idempotency.earlier(draft) == draft


async def test_forget_drops_answers_older_than_a_day_only(
    idempotency: Idempotency, index: SqliteIndex, clock: Clock
) -> None:
    await answer(idempotency, index, "old")
    clock.time = NOON + TICK
    await answer(idempotency, index, "new")
    clock.time = NOON + DAY + TICK
    assert await idempotency.forget() == 1
    assert await idempotency.earlier(idempotency.draft("ada", "new", "print")) is not None
