"""Commands that look after the files and blobs of a spool, most of them beside a running server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spool.cli.command import (
    DAMAGED,
    add_common,
    load_config,
    parse_count,
    parse_text,
    require_spool,
    show_json,
    show_row,
    with_storage,
)
from spool.cli.remote import add_to, list_remote, names_server
from spool.model import FileQuery

if TYPE_CHECKING:
    import argparse

    from spool.store import LocalStore, SqliteIndex


def add_ls(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool ls`."""
    add_common(parser, _ls)
    add_to(parser)
    parser.add_argument("--q", metavar="TEXT", type=parse_text, help="only files whose name holds this text")
    parser.add_argument("--filename", metavar="GLOB", type=parse_text, help="only files whose name matches")
    parser.add_argument(
        "--media-type", metavar="GLOB", type=parse_text, help="only files whose type matches, such as 'audio/*'"
    )
    parser.add_argument("--grant", metavar="ID", type=parse_text, help="only files that guests brought by this grant")
    parser.add_argument("--limit", type=parse_count, metavar="N", help="at most this many files (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_gc(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool gc`."""
    add_common(parser, _gc)


def add_fsck(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool fsck`."""
    add_common(parser, _fsck)
    parser.add_argument("--deep", action="store_true", help="read every blob, and compare its SHA-256")
    parser.add_argument("--repair", action="store_true", help="mark damaged files, and delete blobs that no file has")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_backup(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool backup`."""
    add_common(parser, _backup)
    parser.add_argument("to", type=Path, metavar="TO", help="the directory of the copy: empty, or an earlier backup")
    parser.add_argument("--copy", action="store_true", help="copy every blob, even where a hard link would do")


def add_reindex(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool reindex`."""
    add_common(parser, _reindex)
    parser.add_argument("--deep", action="store_true", help="compare every blob with the digests of its labels")
    parser.add_argument("--force", action="store_true", help="even if there is an index: it is kept under another name")


def _ls(arguments: argparse.Namespace) -> int:
    if names_server(arguments):
        return list_remote(arguments)
    query = FileQuery(
        limit=1000,
        q=arguments.q,
        filename=arguments.filename,
        media_type=arguments.media_type,
        grant=arguments.grant,
    )

    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import catalog, serve  # noqa: PLC0415

        left = arguments.limit
        async for file in catalog.Catalog(blobs, index, serve.now).walk(query):
            print(show_json(file) if arguments.json else show_row(file))
            left = left and left - 1
            if left == 0:
                break

    return with_storage(arguments, work)


def _gc(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import serve, upkeep  # noqa: PLC0415

        expired, reclaimed = await upkeep.sweep_beside(blobs, index, serve.now, owned=blobs.lock())
        print(f"{expired} expired files deleted, {reclaimed} blobs reclaimed")

    return with_storage(arguments, work)


def _fsck(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> int:
        from spool import integrity  # noqa: PLC0415

        sound = await integrity.fsck(blobs, index, deep=arguments.deep, repair=arguments.repair, as_json=arguments.json)
        return 0 if sound else DAMAGED

    return with_storage(arguments, work)


def _backup(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    require_spool(config)
    import asyncio  # noqa: PLC0415

    from spool import integrity  # noqa: PLC0415

    return asyncio.run(integrity.backup(config, arguments.to, link=not arguments.copy))


def _reindex(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    import asyncio  # noqa: PLC0415

    from spool import integrity  # noqa: PLC0415

    return asyncio.run(integrity.rebuild(config, deep=arguments.deep, force=arguments.force))
