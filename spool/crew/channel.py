"""Asks, answers and notes between office and worker: one JSON array a line, each way, in order.

[n, verb, values...]    an ask; its answer is [-n, value], or [-n, null, error, detail, members] if it was refused
[0, verb, values...]    a note, which has no answer

Both are one program, so nothing is checked that only a fault of ours could bring.
"""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from spool import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from socket import socket

    Asks = Mapping[str, Callable[..., Awaitable[object]]]
    Notes = Mapping[str, Callable[..., None]]

_log = logging.getLogger(__name__)


class Channel(asyncio.Protocol):
    """One end. Made by `open_channel`."""

    def __init__(self, asks: Asks, notes: Notes, gone: Callable[[], None]) -> None:
        self.ended = False
        """The other side is gone, or this one has closed."""
        self._gone = gone
        self._asks = asks
        self._notes = notes
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._running: set[asyncio.Future[None]] = set()
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def ask(self, verb: str, *values: object) -> asyncio.Future[Any]:
        """The answer, some time. It has Unavailable or what the other side raised, if that is a SpoolError."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if self.ended:
            self._fail(number)
        else:
            self._send([number, verb, *values])
        return answer

    def tell(self, verb: str, *values: object) -> None:
        """A note. It is with the kernel when this returns, so that it comes before whatever it makes others do."""
        if not self.ended:
            self._send([0, verb, *values])

    def _send(self, message: list[object]) -> None:
        assert self._transport is not None  # from `connection_made` on
        self._transport.write(json.dumps(message).encode() + b"\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Acts on notes and answers at once, on asks in the loop's next round.

        So whatever was told by anybody before an ask was sent has been acted on when the ask is: the loop reads all
        sockets that have something before it begins another round.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, *rest = json.loads(line)
            if number < 0:
                self._settle(-number, *rest)
            elif number == 0:
                verb, *values = rest
                self._notes[verb](*values)
            else:
                running = asyncio.ensure_future(self._answer(number, *rest))
                self._running.add(running)
                running.add_done_callback(self._running.discard)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        if not self.ended:
            self.ended = True
            self._gone()
        for running in self._running:
            running.cancel()
        for number in list(self._answers):
            self._fail(number)

    def _fail(self, number: int) -> None:
        self._settle(number, None, "Unavailable", "the server is shutting down", {})

    def _settle(
        self, number: int, value: object, error: str = "", detail: str = "", members: Mapping[str, Any] | None = None
    ) -> None:
        answer = self._answers.pop(number)
        if answer.cancelled():
            return
        if error:
            answer.set_exception(getattr(errors, error)(detail, **(members or {})))
        else:
            answer.set_result(value)

    async def _answer(self, number: int, verb: str, *values: object) -> None:
        message: list[object]
        try:
            message = [-number, await self._asks[verb](*values)]
        except errors.SpoolError as error:
            message = [-number, None, type(error).__name__, error.detail, error.members]
        except Exception:  # noqa: BLE001  # whoever asked is told, and it is logged
            _log.exception("office.failed", {"verb": verb})
            message = [-number, None, "Internal", "something went wrong that nobody foresaw", {}]
        if not self.ended:
            self._send(message)

    def close(self) -> None:
        """The other side is told the end; this one then knows of none."""
        self.ended = True
        if self._transport is not None:
            self._transport.close()


async def open_channel(end: socket, asks: Asks, notes: Notes, gone: Callable[[], None]) -> Channel:
    """The channel over one end of a socket pair. `gone` is called when the other side closes it, or ends."""
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: Channel(asks, notes, gone), sock=end)
    return channel
