"""python-magic behind the Sniffer port."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

try:
    import magic
except ImportError:  # no libmagic on this system: the wheel brings one, and must be imported first
    import pylibmagic  # noqa: F401

    import magic

if TYPE_CHECKING:
    from spool.ports import Sniffer

_MOST = 64 * 1024
"""libmagic reads megabytes when given them, and learns nothing more from them about media."""


class MagicSniffer:
    """libmagic, in a thread of its own: a call takes up to milliseconds, and one instance takes one call at a time."""

    def __init__(self) -> None:
        self._magic = magic.Magic(mime=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sniff")

    async def sniff(self, head: bytes) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._sniff, head[:_MOST])

    def _sniff(self, head: bytes) -> str:
        media_type: str = self._magic.from_buffer(head)
        return media_type

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


if TYPE_CHECKING:
    _: type[Sniffer] = MagicSniffer
