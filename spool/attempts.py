"""Sign-ins that failed, so that none can be tried by the million."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from spool import counting
    from spool.ports import Clock

_MOST_FAILURES: Final = 10
"""Sign-ins of one address that may fail within a window."""
_WINDOW: Final = timedelta(minutes=5)
_MOST_ADDRESSES: Final = 10_000


class Attempts:
    """Counts by address. Of many, those that failed longest ago are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    async def wait(self, address: str) -> int:
        now = self._clock()
        since, count = self._failures.get(_network(address), (now, 0))
        left = since + _WINDOW - now
        return int(left.total_seconds()) + 1 if count >= _MOST_FAILURES and left > timedelta() else 0

    async def failed(self, address: str) -> None:
        now, network = self._clock(), _network(address)
        since, count = self._failures.pop(network, (now, 0))
        self._failures[network] = (since, count + 1) if now - since < _WINDOW else (now, 1)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    """What one guesser has: an IPv4 address, or the 64 bits of IPv6 below which it may choose."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return address if ip.version == 4 else str(ip_network((ip, 64), strict=False))  # noqa: PLR2004


if TYPE_CHECKING:
    _attempts: type[counting.Attempts] = Attempts
