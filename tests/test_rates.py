from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.errors import RateLimited, Unavailable
from spool.model import Allowance, Principal, Window
from spool.rates import Rates
from tests.clock import NOON, Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.model import Override

SECOND = timedelta(seconds=1)


@dataclass
class Index:
    """Keeps windows, and says so; nothing else is asked of it."""

    kept: dict[str, Window] = field(default_factory=dict)
    writes: int = 0
    fails: bool = False

    async def keep_windows(self, windows: Sequence[Window], over: datetime) -> None:
        self.writes += 1
        if self.fails:
            raise Unavailable("the index failed")
        self.kept |= {window.owner: window for window in windows}
        self.kept = {owner: window for owner, window in self.kept.items() if window.since > over}

    async def windows(self) -> Sequence[Window]:
        return list(self.kept.values())

    async def override(self, owner: str) -> Override | None:
        raise NotImplementedError

    async def overrides(self) -> Sequence[Override]:
        raise NotImplementedError

    async def set_override(self, override: Override) -> None:
        raise NotImplementedError

    async def clear_override(self, owner: str) -> None:
        raise NotImplementedError


@dataclass
class Bench:
    index: Index = field(default_factory=Index)
    clock: Clock = field(default_factory=Clock)
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(self.index, self.clock)

    async def ask(self, name: str = "ada", limit: int = 3) -> tuple[int, int, bool]:
        """What is left, for how many seconds, and whether this was one too many."""
        rate = await self.rates.count(a(name, limit))
        assert rate is not None
        assert rate.limit == limit
        return rate.remaining, rate.reset, rate.exceeded

    async def restart(self) -> None:
        self.rates = Rates(self.index, self.clock)
        await self.rates.restore()


def a(name: str, limit: int) -> Principal:
    return Principal(name, frozenset(), Allowance(requests_per_minute=limit))


async def test_requests_of_a_minute_are_counted_down() -> None:
    bench = Bench()
    assert [await bench.ask() for _ in range(4)] == [(2, 60, False), (1, 60, False), (0, 60, False), (0, 60, True)]


async def test_minute_begins_with_the_first_request() -> None:
    bench = Bench()
    await bench.ask()
    bench.clock.time += 59.5 * SECOND
    assert [await bench.ask(), await bench.ask(), await bench.ask()] == [(1, 1, False), (0, 1, False), (0, 1, True)]
    bench.clock.time += 0.5 * SECOND
    assert await bench.ask() == (2, 60, False)


async def test_requests_of_one_are_not_anothers() -> None:
    bench = Bench()
    assert [await bench.ask("ada", 1), await bench.ask("bob", 1), await bench.ask("ada", 1)] == [
        (0, 60, False),
        (0, 60, False),
        (0, 60, True),
    ]


async def test_principal_without_a_limit_is_not_counted() -> None:
    assert await Bench().rates.count(a("ada", 0)) is None


async def test_limit_that_changes_counts_what_was_sent_before() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.ask(limit=3)
    assert [await bench.ask(limit=2), await bench.ask(limit=5), await bench.ask(limit=4)] == [
        (0, 60, True),
        (1, 60, False),
        (0, 60, True),
    ]


async def test_clock_that_is_set_back_begins_a_new_minute() -> None:
    bench = Bench()
    await bench.ask(limit=1)
    bench.clock.time -= 3600 * SECOND
    assert await bench.ask(limit=1) == (0, 60, False)


async def test_one_too_many_says_when_to_ask_again() -> None:
    bench = Bench()
    await bench.ask(limit=1)
    bench.clock.time += 12.25 * SECOND
    rate = await bench.rates.count(a("ada", 1))
    assert rate is not None
    with pytest.raises(RateLimited) as refusal:
        rate.require()
    assert (refusal.value.retry_after, refusal.value.members) == (48, {"limit": 1, "window": 60})


async def test_restart_goes_on_where_it_was_saved() -> None:
    bench = Bench()
    for _ in range(2):
        await bench.ask()
    await bench.rates.save()
    bench.clock.time += 20 * SECOND
    await bench.restart()
    assert [await bench.ask(), await bench.ask()] == [(0, 40, False), (0, 40, True)]


async def test_nothing_is_written_unless_something_was_counted() -> None:
    bench = Bench()
    for _ in range(100):
        await bench.ask(limit=50)
    await bench.rates.save()
    await bench.rates.save()
    await bench.ask(limit=50)  # one too many changes nothing
    await bench.rates.save()
    assert (bench.index.writes, bench.index.kept) == (1, {"ada": Window("ada", NOON, 50)})


async def test_what_could_not_be_written_is_written_later() -> None:
    bench = Bench()
    await bench.ask()
    bench.index.fails = True
    with pytest.raises(Unavailable):
        await bench.rates.save()
    bench.index.fails = False
    await bench.rates.save()
    assert bench.index.kept == {"ada": Window("ada", NOON, 1)}


async def test_minutes_that_are_over_are_kept_nowhere() -> None:
    bench = Bench()
    await bench.ask("ada")
    await bench.rates.save()
    bench.clock.time += 60 * SECOND
    await bench.ask("bob")
    await bench.rates.save()
    assert set(bench.index.kept) == set(bench.rates._windows) == {"bob"}  # memory must not grow


pauses = st.lists(st.integers(0, 30_000).map(lambda milliseconds: milliseconds * SECOND / 1000), max_size=60)


@given(pauses, st.integers(1, 5))
async def test_no_minute_that_is_told_lets_more_through(pauses: list[timedelta], limit: int) -> None:
    bench, taken, end = Bench(), 0, NOON
    for pause in pauses:
        bench.clock.time += pause
        remaining, reset, exceeded = await bench.ask(limit=limit)
        if bench.clock.time >= end:
            taken, end = 0, bench.clock.time + 60 * SECOND
        taken += not exceeded
        assert taken + remaining == limit
        assert 0 <= reset - (end - bench.clock.time).total_seconds() < 1
