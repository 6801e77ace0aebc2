"""python-magic behind the Sniffer port."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import magic
except ImportError:  # no libmagic on this system: the wheel brings one, and must be imported first
    import pylibmagic  # noqa: F401

    import magic

from spool.batch import Batcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.ports import Sniffer

_MOST = 64 * 1024
"""libmagic reads megabytes when given them, and learns nothing more from them about media."""
_LOT = 16
"""Heads that are looked at in one go: it ends with the last of them, and text can take milliseconds."""


class MagicSniffer:
    """libmagic, in a thread of its own: a call takes up to milliseconds, and one instance takes one call at a time."""

    def __init__(self) -> None:
        self._magic = magic.Magic(mime=True)
        self._batcher: Batcher[bytes, str] = Batcher("sniff", self._sniff, most=_LOT)

    async def sniff(self, head: bytes) -> str:
        return await self._batcher.submit(head[:_MOST])

    def _sniff(self, heads: Sequence[bytes]) -> list[str | BaseException]:
        return [self._attempt(head) for head in heads]

    def _attempt(self, head: bytes) -> str | BaseException:
        try:
            media_type: str = self._magic.from_buffer(head)
        except magic.MagicException as error:
            return error
        return media_type

    async def aclose(self) -> None:
        """Ends the thread."""
        await self._batcher.aclose()


if TYPE_CHECKING:
    _: type[Sniffer] = MagicSniffer
