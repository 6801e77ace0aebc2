"""Where connections come from, in a server of one process."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aiohttp import web

from spool import systemd
from spool.config import supervision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from socket import socket

    from spool.config import Config
    from spool.web.connection import Runner

BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted."""
_ACCEPTS: Final = 1
"""Connections that are accepted in one turn of the event loop: with each more, whoever is served waits for one more."""


class Busy(Exception):
    """The address or the directory is in use by somebody else."""


async def listen_on(config: Config, sockets: Sequence[socket], runner: Runner) -> Callable[[], Awaitable[None]]:
    """Connections come from these sockets, or from the address of the configuration, until what it returns is called.

    Raises Busy.
    """
    server = config.server
    try:
        if sockets:
            sites: list[web.BaseSite] = [web.SockSite(runner, given, backlog=_ACCEPTS) for given in sockets]
        elif server.unix:
            sites = [web.UnixSite(runner, server.unix, backlog=_ACCEPTS)]
        else:
            sites = [web.TCPSite(runner, server.host, server.port, backlog=_ACCEPTS)]
        for site in sites:
            await site.start()
        if server.unix and not sockets:
            os.chmod(server.unix, 0o660)  # noqa: PTH101  # before anything else runs
    except OSError as error:
        raise cannot_listen(config, error) from error
    listening = [each for site in sites for each in site._server.sockets]  # type: ignore[union-attr]  # noqa: SLF001  # aiohttp tells nobody
    for listener in listening:
        with listener.dup() as kernels:
            kernels.listen(BACKLOG)  # asyncio takes one number for both

    async def close() -> None:
        systemd.tell(supervision(), "STOPPING=1")
        for site in sites:
            await site.stop()

    return close


def cannot_listen(config: Config, error: OSError) -> Busy:
    """What to tell when the address cannot be had."""
    server = config.server
    where = server.unix or f"{server.host}:{server.port}"
    # asyncio's own words name the address again; numbers below 0 are the resolver's
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return Busy(f"cannot listen on {where}: {reason}")


def only_this_machine(config: Config, sockets: Sequence[socket] = ()) -> bool:
    """Whether nobody else can connect to these sockets, or without any to the address of the configuration.

    A proxy that is configured speaks for others.
    """
    server = config.server
    if server.trusted_proxies or server.accel or server.base_url or server.media_base_url:
        return False
    if sockets:
        return systemd.only_this_machine(sockets)
    host = server.host
    if server.unix or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def show_address(address: tuple[str, int] | str, scheme: str) -> str:
    """As it is logged."""
    if isinstance(address, str):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}"
