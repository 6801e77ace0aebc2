"""A spool directory as a copy of another that is in use. At any moment it is what it was before, or the new copy.

First the index, as it is at one moment, under another name. Then every blob that it names and the copy lacks. Then it
takes the place of the copy's index, and only then may blobs go that it does not name.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound
from spool.store.sqlite import open_sqlite
from spool.store.sqlite.files import clear, install, settle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spool.model import File, Key
    from spool.store.local import LocalStore
    from spool.store.local.copy import Taken
    from spool.store.sqlite import SqliteIndex

_LOT: Final = 1000


@dataclass(slots=True)
class Copied:
    """What a backup found and did."""

    files: int = 0
    size: int = 0
    """Of the blobs."""
    linked: int = 0
    copied: int = 0
    there: int = 0
    missing: int = 0
    """Files whose bytes the source does not have, or not in their size: a record is never left out for that."""

    @property
    def blobs(self) -> int:
        """How many the copy has."""
        return self.linked + self.copied + self.there


async def copy_spool(
    blobs: LocalStore, index: SqliteIndex, target: LocalStore, paths: tuple[Path, Path], *, link: bool
) -> Copied:
    """`target`, and the second of `paths`, are `blobs` and `index` as these are now, less what is deleted meanwhile.

    The first of `paths` is where the new index is made. `target` may hold more blobs than are named.
    """
    new, path = paths
    await asyncio.to_thread(clear, new)
    await index.copy_to(new)
    async with aclosing(await open_sqlite(new)) as copy:
        copied = await _Copying(blobs, index, target, copy, link=link).run()
    if path.exists():
        await asyncio.to_thread(settle, path)
    await asyncio.to_thread(install, new, path)
    return copied


class _Copying:
    """Takes the blobs that the copied index names."""

    def __init__(
        self, blobs: LocalStore, index: SqliteIndex, target: LocalStore, copy: SqliteIndex, *, link: bool
    ) -> None:
        self._blobs = blobs
        self._index = index
        self._target = target
        self._copy = copy
        self._link = link
        self._copied = Copied()

    async def run(self) -> Copied:
        last: File | None = None
        missing: set[Key] = set()
        while files := await self._copy.by_key(last, _LOT):
            # Files that share a blob follow one another, maybe across two lots.
            wanted = {f.key: f.size for f in files if not f.inline and (last is None or f.key != last.key)}
            missing = {key for key in missing if last and key == last.key}
            missing |= self._count(wanted, await self._take(wanted))
            self._copied.files += len(files)
            for file in files:
                if file.key in missing:
                    await self._settle(file)
            last = files[-1]
        return self._copied

    async def _take(self, wanted: Mapping[Key, int]) -> Mapping[Key, Taken]:
        return await self._target.take(wanted, self._blobs, link=self._link)

    def _count(self, wanted: Mapping[Key, int], taken: Mapping[Key, Taken]) -> set[Key]:
        """Those that the source does not have."""
        copied, outcomes = self._copied, Counter(taken.values())
        copied.linked += outcomes["linked"]
        copied.copied += outcomes["copied"]
        copied.there += outcomes["there"]
        copied.size += sum(wanted[key] for key, outcome in taken.items() if outcome != "missing")
        return {key for key, outcome in taken.items() if outcome == "missing"}

    async def _settle(self, file: File) -> None:
        """A blob of the copy is not in the source: it may be that the source no longer names it either."""
        try:
            now = await self._index.file(file.id)
        except NotFound:  # it was deleted after the index was copied
            await self._copy.remove(file.id)
            self._copied.files -= 1
            return
        if now.key == file.key:
            self._copied.missing += 1
            return
        # Its blob was damaged, and it was given another.
        await self._copy.heal(file.key, now.key)
        if "missing" in (await self._take({now.key: now.size})).values():
            await self._settle(now)
