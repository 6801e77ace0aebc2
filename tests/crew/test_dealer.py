"""Connections are dealt out in turn, to workers that can take them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from spool.crew.dealer import Dealer, Hand, deal_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Worker(asyncio.Protocol):
    """Takes what is dealt to it."""

    def __init__(self, dealer: Dealer, stack: ExitStack) -> None:
        self.end, theirs = deal_pair()
        stack.enter_context(self.end)
        self.taken = 0
        self.hand = Hand(theirs, lambda: self)
        dealer.seat(self.end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.taken += 1
        transport.close()


class Bench:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listening.settimeout(0)
        self.dealer = Dealer([self.listening])

    def worker(self) -> Worker:
        return Worker(self.dealer, self.stack)

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            self.stack.enter_context(socket.create_connection(self.listening.getsockname()))

    async def taken(self, *workers: Worker, total: int) -> list[int]:
        async with asyncio.timeout(60):
            while sum(worker.taken for worker in workers) < total:  # noqa: ASYNC110  # the workers are no test's own
                await asyncio.sleep(0.001)
        return [worker.taken for worker in workers]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with ExitStack() as stack:
        bench = Bench(stack)
        yield bench
        bench.dealer.close()


async def test_workers_are_dealt_to_in_turn(bench: Bench) -> None:
    workers = [bench.worker() for _ in range(3)]
    bench.connect(9)
    assert await bench.taken(*workers, total=9) == [3, 3, 3]
    for worker in workers:
        worker.hand.close()


async def test_connections_wait_until_there_is_a_worker(bench: Bench) -> None:
    bench.connect(2)
    worker = bench.worker()
    assert await bench.taken(worker, total=2) == [2]
    bench.dealer.unseat(worker.end)
    bench.dealer.unseat(worker.end)
    bench.connect()
    other = bench.worker()
    assert await bench.taken(worker, other, total=3) == [2, 1]
    worker.hand.close()
    other.hand.close()


async def test_worker_that_is_gone_is_passed_over(bench: Bench) -> None:
    dead, alive = bench.worker(), bench.worker()
    dead.hand.close()
    bench.connect(4)
    assert await bench.taken(dead, alive, total=4) == [0, 4]
    alive.hand.close()


async def test_worker_that_leaves_takes_what_was_dealt(bench: Bench) -> None:
    worker = bench.worker()
    bench.connect()
    bench.dealer._take(bench.listening)
    bench.dealer.unseat(worker.end)
    worker.hand.close()
    assert await bench.taken(worker, total=1) == [1]


async def test_connections_wait_until_a_worker_has_room_for_them(bench: Bench) -> None:
    workers = [bench.worker() for _ in range(2)]
    for worker in workers:
        worker.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the system's least: a few connections
        asyncio.get_running_loop().remove_reader(worker.hand._end)  # it stands still
    bench.connect(40)
    async with asyncio.timeout(60):
        while bench.dealer._kept is None:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)
    for worker in workers:
        worker.hand = Hand(worker.hand._end, lambda worker=worker: worker)
    assert sum(await bench.taken(*workers, total=40)) == 40
    for worker in workers:
        worker.hand.close()


async def test_connection_that_nobody_has_taken_is_closed_with_the_rest(bench: Bench) -> None:
    worker = bench.worker()
    worker.hand.close()
    bench.connect()
    bench.dealer._take(bench.listening)
    kept = bench.dealer._kept
    assert kept is not None
    bench.dealer.close()
    assert kept.fileno() == -1
