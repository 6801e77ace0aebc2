"""The commands that look after a spool as a whole; `cli` has their flags, `doc/operate.md` what they print."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from spool import process, serve, upkeep
from spool.config import ConfigError
from spool.errors import SpoolError, StorageFull, Unavailable
from spool.logs import escape
from spool.sniff import MagicSniffer
from spool.store import INDEX, copy_spool, open_blobs, open_index, sqlite_files
from spool.work import gc, reindex
from spool.work.fsck import Fsck

if TYPE_CHECKING:
    from pathlib import Path

    from spool.config import Config
    from spool.model import Finding
    from spool.store import Copied, LocalStore, SqliteIndex
    from spool.work.reindex import Rebuilt

_COPIED: Final = "index.db.backup"
"""A backup's index while it is made. Where it is without `index.db`, a first backup has not come to its end."""
_REBUILT: Final = "index.db.rebuilt"
"""The same for reindex."""


async def fsck(blobs: LocalStore, index: SqliteIndex, *, deep: bool, repair: bool, as_json: bool) -> bool:
    """Checks the spool, beside a server or not, and prints what is wrong; whether nothing is, or is any more."""
    since = None if blobs.lock() else serve.now() - upkeep.FOREIGN_GRACE
    check = Fsck(blobs, index, deep=deep, repair=repair, since=since)
    findings = repaired = 0
    async for finding in check.run():
        findings += 1
        repaired += finding.repaired
        print(json.dumps(asdict(finding)) if as_json else _show_finding(finding), flush=True)
    summary = {**asdict(check.tally), "findings": findings, "repaired": repaired}
    print(json.dumps({"kind": "summary", **summary}) if as_json else _show_summary(summary))
    return findings == repaired


def _show_finding(finding: Finding) -> str:
    names = [escape(text) for text in (finding.key, finding.id, finding.filename) if text is not None]
    detail = escape(finding.detail) + ("; repaired" if finding.repaired else "")
    return "  ".join([f"{finding.kind:<7}", *names, detail])


def _show_summary(summary: dict[str, int]) -> str:
    return (
        "{files} files, {blobs} blobs and {uploads} resumable uploads checked, {read} bytes read: "
        "{findings} findings, {repaired} of them repaired"
    ).format_map(summary)


async def backup(config: Config, to: Path, *, link: bool) -> int:
    """`to` is a spool as that of the configuration is now, which may be in use. Raises ConfigError or SpoolError."""
    _check_place(config.storage.dir, to)
    process.raise_descriptor_limit()
    async with serve.open_storage(config) as (blobs, index):
        await asyncio.to_thread(_check_kin, to, await index.secret())
        try:
            async with aclosing(await open_blobs(to)) as target:
                _own(target, to)
                copied = await copy_spool(blobs, index, target, (to / _COPIED, to / INDEX), link=link)
                removed = await _prune(target, to)
        except StorageFull as error:
            raise StorageFull(f"there is no room for the backup in {to}: what it held is untouched") from error
    _show_copied(copied, removed)
    if copied.missing:
        print(f"spool: {copied.missing} files of {config.storage.dir} have lost their bytes", file=sys.stderr)
    return 1 if copied.missing else 0


def _check_place(directory: Path, to: Path) -> None:
    ours, theirs = directory.resolve(), to.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise ConfigError(f"{to} and {directory} are one inside the other: put the backup elsewhere")
    if not to.exists():
        return
    names = os.listdir(to)  # noqa: PTH208  # names only
    if any(not name.startswith(INDEX) and name not in ("blobs", "incoming", "lock") for name in names):
        raise ConfigError(f"{to} holds something that is no backup: name an empty directory, or one that is not there")
    if not {INDEX, _COPIED} & set(names) and any(to.glob("blobs/*/*")):
        raise ConfigError(f"{to} is a spool that has lost its index, and no backup: see `spool reindex`")


def _check_kin(to: Path, secret: bytes) -> None:
    """Raises ConfigError if `to` holds another spool than the one with this secret, which its backups share."""
    path = to / INDEX
    if not path.exists():
        return
    try:
        kin = sqlite_files.read_secret(path) == secret
    except SpoolError as error:
        raise ConfigError(f"{path} cannot be read: name another directory, or an empty one") from error
    if not kin:
        raise ConfigError(f"{to} holds another spool, or a backup of another: name another directory")


def _own(blobs: LocalStore, directory: Path) -> None:
    if not blobs.lock():
        raise Unavailable(f"{directory} is in use by a server or another command")


async def _prune(target: LocalStore, to: Path) -> int:
    """Whatever the new index does not name is gone."""
    async with aclosing(await open_index(to)) as index:
        return await gc.run_once(target, index, gc.nobody, upkeep.EVER)


def _show_copied(copied: Copied, removed: int) -> None:
    print(
        f"{copied.files} files in {copied.blobs} blobs of {copied.size} bytes: {copied.linked} linked, "
        f"{copied.copied} copied, {copied.there} already there; {removed} removed"
    )


async def rebuild(config: Config, *, deep: bool, force: bool) -> int:
    """The index is made from the blobs; one that was there is kept beside. Raises ConfigError or SpoolError."""
    directory = config.storage.dir
    if not (directory / "blobs").is_dir():
        raise ConfigError(f"there is no spool in {directory}: name its directory with --dir")
    process.raise_descriptor_limit()
    os.umask(0o077)
    async with aclosing(await open_blobs(directory)) as blobs:
        _own(blobs, directory)
        if not force and sqlite_files.has_files(directory / INDEX):
            raise Unavailable(f"{directory / INDEX} has files: --force puts it aside and makes a new one")
        sqlite_files.clear(directory / _REBUILT)
        async with aclosing(await open_index(directory, _REBUILT)) as index:
            rebuilt = await _fill(blobs, index, deep=deep)
        aside = _install(directory)
    _show_rebuilt(rebuilt, aside)
    return 0


async def _fill(blobs: LocalStore, index: SqliteIndex, *, deep: bool) -> Rebuilt:
    async with aclosing(MagicSniffer()) as sniffer:
        return await reindex.run_once(blobs, index, sniffer, lambda line: print(line, file=sys.stderr), deep=deep)


def _install(directory: Path) -> Path | None:
    """The new index takes its place; returns where the old one is kept."""
    aside = None
    if (directory / INDEX).exists():
        aside = directory / f"{INDEX}.lost-{serve.now():%Y%m%dT%H%M%S.%fZ}"
        sqlite_files.set_aside(directory / INDEX, aside)
    sqlite_files.install(directory / _REBUILT, directory / INDEX)
    return aside


def _show_rebuilt(rebuilt: Rebuilt, aside: Path | None) -> None:
    kept = f"; the old index is {aside}" if aside else ""
    print(
        f"{rebuilt.files} files from {rebuilt.blobs} blobs, {rebuilt.recovered} of them without a usable label; "
        f"{rebuilt.findings} findings{kept}"
    )
