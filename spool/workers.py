"""`spool serve --workers N`: N processes that answer requests, and this one, the office, that answers none.

The office takes connections and deals them out, owns the directory, counts what is counted once, runs the background
steps, and starts workers, also in the place of one that ended. A worker has a descriptor of the directory's lock, so
that nobody else owns the directory while one of them may still write to it. A worker ends with the office.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from contextlib import ExitStack, aclosing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from spool import logs, serve, systemd
from spool.certificate import certificate_of
from spool.config import ConfigError, supervision
from spool.crew.dealer import Dealer, Hand, deal_pair
from spool.crew.office import Office
from spool.crew.worker import Worker
from spool.errors import SpoolError
from spool.sniff import MagicSniffer
from spool.upkeep import beat, running, upkeep
from spool.web.listen import BACKLOG, Busy, cannot_listen

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable

    from spool.config import Config
    from spool.web.connection import Runner

_log = logging.getLogger(__name__)

_SETTLED: Final = 5.0
"""Seconds after which a worker that ends has served well."""
_PAUSES: Final = (0.1, 1.0)
"""Seconds before a worker that ended is replaced: the least, and the most if it happens again and again."""
_PAUSE_IN_VAIN: Final = 10.0
"""Seconds, the most, if none of those that took its place came to serve."""
_TRIES: Final = 5
"""Workers that may end in a row before one of them serves, if no other one serves either."""
_DEADLINE: Final = 60.0
"""Seconds beyond the grace in which a worker that drains has to end: commits are given 30."""


async def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises Busy or SpoolError if it cannot start, or not go on."""
    stop, told, started = serve.prepare(), supervision(), asyncio.Event()
    given = systemd.inherited(told)
    certificate = certificate_of(config.server)
    if certificate:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.renewed.set)
    async with serve.own_site(config, given, shared=True) as (site, counted, lock):
        with ExitStack() as bound:
            sockets = given or await _listen(config, bound)

            def complete(most: int) -> None:
                serve.log_start(config, map(_address, sockets), most)
                systemd.tell(told, "READY=1")
                started.set()

            office, dealer = Office(counted, site.tally), Dealer(sockets)
            bound.callback(dealer.close)
            bound.callback(systemd.tell, told, "STOPPING=1")
            crew = _Crew(config, office, dealer, (lock, site.open_to_machine), complete)
            background = upkeep(config.storage, site, counted.rates, office.active_keys)
            steps = [beat(told, started), *([certificate.reload_for_ever(office.renew)] if certificate else [])]
            async with running(*steps), background:
                await crew.serve(stop, bound.close)
    _log.info("server.stopped")


async def _listen(config: Config, bound: ExitStack) -> list[socket.socket]:
    """Sockets on which connections wait for whoever takes them, until `bound` is closed. Raises Busy."""
    loop, server = asyncio.get_running_loop(), config.server
    try:
        if server.unix:
            made = await loop.create_unix_server(asyncio.Protocol, server.unix, start_serving=False)
            os.chmod(server.unix, 0o660)  # noqa: PTH101  # before it listens
        else:
            made = await loop.create_server(asyncio.Protocol, server.host, server.port, start_serving=False)
        bound.callback(made.close)
        sockets = [bound.enter_context(each.dup()) for each in made.sockets]
        for each in sockets:
            each.settimeout(0)
            each.listen(BACKLOG)
    except OSError as error:
        raise cannot_listen(config, error) from error
    return sockets


def _address(bound: socket.socket) -> tuple[str, int] | str:
    address: tuple[str, int] | str = bound.getsockname()
    return address


class _Crew:
    """The worker processes."""

    def __init__(
        self, config: Config, office: Office, dealer: Dealer, site: tuple[int, bool], complete: Callable[[int], None]
    ) -> None:
        """`site` is the descriptor that workers inherit, and whether they are open to this machine.

        `complete` is told how many connections all of them take.
        """
        self._config = config
        self._office = office
        self._dealer = dealer
        self._lock, self._open_to_machine = site
        self._complete = complete
        self._stop = asyncio.Event()
        self._processes: set[Process] = set()
        self._connections: list[int] = []
        """What each worker takes that has begun to serve, ever."""

    async def serve(self, stop: asyncio.Event, close: Callable[[], None]) -> None:
        """Workers serve until `stop`, and drain; `close` closes the sockets. Raises Busy if none can be started."""
        seats = [asyncio.ensure_future(self._fill_seat()) for _ in range(self._config.server.workers)]
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([stopping, *seats], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            self._stop.set()
            self._signal(signal.SIGTERM)
            close()
            await asyncio.wait(seats, timeout=self._config.server.shutdown_grace.total_seconds() + _DEADLINE)
            self._signal(signal.SIGKILL)
            await asyncio.wait(seats)
        await asyncio.gather(*seats)  # raises what the first raised; what others raised, too, is taken as seen

    def _signal(self, number: int) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _fill_seat(self) -> None:
        """There is a worker until the end, this one or another. Raises Busy if none of them comes to serve."""
        clock = asyncio.get_running_loop().time
        failures, pause = 0, 0.0
        while not self._stop.is_set():
            since, begun = clock(), len(self._connections)
            served = await self._try_worker()
            failures = 0 if served else failures + 1
            if self._stop.is_set():
                return
            if failures and (not begun or (failures >= _TRIES and not self._dealer.seated)):
                raise Busy("a worker cannot start; the log says why")
            first, longest = _PAUSES
            longest = _PAUSE_IN_VAIN if failures else longest
            pause = first if clock() - since > _SETTLED else min(longest, 2 * pause or first)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _try_worker(self) -> bool:
        """Runs one to its end; whether it has served."""
        with ExitStack() as ends:
            try:
                ours, theirs, deal, hand = map(ends.enter_context, (*socket.socketpair(), *deal_pair()))
                with theirs, hand:
                    process = await self._spawn(theirs.fileno(), hand.fileno(), self._lock)
            except (OSError, RuntimeError) as error:  # no descriptor, process or thread is to be had, for the moment
                _log.warning("worker.unstarted", {"reason": str(error)})
                return False
            return await self._attend(process, ours, deal)

    async def _attend(self, process: Process, ours: socket.socket, deal: socket.socket) -> bool:
        """Serves the worker to its end; whether it has served."""
        served: list[int] = []

        def ready(connections: int) -> None:
            served.append(connections)
            self._connections.append(connections)
            self._dealer.seat(deal)
            if len(self._connections) == self._config.server.workers:
                self._complete(sum(self._connections))

        await self._office.serve(ours, ready, partial(self._dealer.unseat, deal))
        self._dealer.unseat(deal)
        deal.close()
        code = await process.wait()
        self._processes.discard(process)
        if not self._stop.is_set():
            _log.warning("worker.lost", {"pid": process.pid, "code": code})
        return bool(served)

    async def _spawn(self, *descriptors: int) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "spool.workers", *map(str, descriptors)), stdin=PIPE, pass_fds=descriptors
        )
        self._processes.add(process)
        if self._stop.is_set():
            process.terminate()
        assert process.stdin is not None
        process.stdin.write(pickle.dumps((self._config, self._open_to_machine)))
        process.stdin.close()
        return process


async def _work(config: Config, end: socket.socket, hand: socket.socket, *, open_to_machine: bool) -> None:
    """A worker: serves until it is told to stop, and drains. Raises SpoolError if it cannot start."""
    certificate = certificate_of(config.server, tried=True)
    worker, stop = Worker(), serve.prepare()
    await worker.join(end, _end_at_once, certificate.renewed.set if certificate else lambda: None)
    counters = serve.Counters(worker.ledger, worker.rates, worker.turns, worker.attempts)
    async with aclosing(MagicSniffer()) as sniffer, serve.open_storage(config, shared=True) as (blobs, index):
        own = await serve.make_site(config, blobs, index, sniffer, counters=counters)
        own = replace(own, open_to_machine=open_to_machine, gather=worker.gather)  # the sockets are the office's
        async with serve.telling_spans(own) as site:
            await serve.answer(
                config,
                site,
                certificate,
                stop,
                listen=partial(_take_from, hand, worker),
                ready=lambda _, most: worker.serve(lambda: site.ingest.active, site.tally, most),
                meanwhile=nullcontext(),
                share=config.server.workers,
            )


async def _take_from(end: socket.socket, worker: Worker, runner: Runner) -> Callable[[], Awaitable[None]]:
    assert runner.server is not None
    hand = Hand(end, runner.server)

    async def close() -> None:
        await worker.leave()
        hand.close()

    return close


def _end_at_once() -> None:
    """The office is gone, and with it all that it counted: this is a crash, and heals as one."""
    _log.error("worker.orphaned", {"pid": os.getpid()})
    os._exit(1)


def main() -> None:
    """A worker process, as the office starts it: its descriptors are arguments, its configuration is the input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the office tells what there is to do
    end, hand, _lock = map(int, sys.argv[1:])  # the lock is held as long as it is open
    config, open_to_machine = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own office
    logs.configure(config.log.format, config.log.level, pid=True)
    try:
        asyncio.run(
            _work(config, socket.socket(fileno=end), socket.socket(fileno=hand), open_to_machine=open_to_machine)
        )
    except (Busy, ConfigError, SpoolError) as error:
        sys.exit(f"spool: {error}")


if __name__ == "__main__":
    main()
