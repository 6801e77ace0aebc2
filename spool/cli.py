"""The commands. A mistake gets one line that names it and the mend; `doc/operate.md` has the exit codes.

What a command needs beyond this module is imported when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spool import __version__
from spool.config import ConfigError, load
from spool.errors import BadRequest, SpoolError
from spool.model import FileQuery, Override, TokenId
from spool.policy import SCOPES
from spool.units import LIMIT, SIZE, parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import timedelta

    from spool.config import Config
    from spool.model import File
    from spool.store import LocalStore, SqliteIndex

FAILED: Final = 1
"""The command is right, but could not be carried out."""
WRONG: Final = 2
"""The command line or the configuration is wrong."""
DAMAGED: Final = 3
"""A check found something wrong that is not repaired."""
_MOST: Final = 2**63 - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except (ConfigError, BadRequest) as error:
        return _fail(str(error), WRONG)
    except SpoolError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:  # whoever read the output has read enough
        sys.stdout = None  # or the interpreter fails again when it flushes
        return FAILED
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", FAILED)
    return code


def _fail(message: str, code: int) -> int:
    print(f"spool: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("spool", description="The landing zone for uploaded media.")
    parser.add_argument("--version", action="version", version=f"spool {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="take uploads and serve files until SIGTERM"))
    _add_ls(commands.add_parser("ls", help="list files, newest first"))
    _add_gc(commands.add_parser("gc", help="delete expired files and reclaim what crashes left behind"))
    _add_fsck(commands.add_parser("fsck", help="check that every file is whole, and mend what can be"))
    _add_backup(commands.add_parser("backup", help="make or renew a consistent copy, which is a spool itself"))
    _add_reindex(commands.add_parser("reindex", help="make a lost index anew from the blobs"))
    _add_token(commands.add_parser("token", help="create, list and revoke tokens"))
    _add_limit(commands.add_parser("limit", help="set, list and clear what single principals are allowed"))
    _add_config(commands.add_parser("config", help="show the effective configuration and where each value is from"))
    return parser


def _add_common(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this TOML file")
    parser.add_argument("--dir", metavar="DIR", help="where everything is kept (default: ./spool-data)")
    parser.set_defaults(run=run)


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="listen on this address (default: 127.0.0.1)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="listen on this port (default: 8080)")
    where.add_argument("--unix", metavar="PATH", help="listen on this unix socket instead")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _serve)
    _add_listen(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _show_config)
    _add_listen(parser)


def _add_ls(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _ls)
    parser.add_argument("--q", metavar="TEXT", type=_parse_text, help="only files whose name holds this text")
    parser.add_argument("--filename", metavar="GLOB", type=_parse_text, help="only files whose name matches")
    parser.add_argument(
        "--media-type", metavar="GLOB", type=_parse_text, help="only files whose type matches, such as 'audio/*'"
    )
    parser.add_argument("--limit", type=_parse_limit, metavar="N", help="at most this many files (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_gc(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _gc)


def _add_fsck(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _fsck)
    parser.add_argument("--deep", action="store_true", help="read every blob, and compare its SHA-256")
    parser.add_argument("--repair", action="store_true", help="mark damaged files, and delete blobs that no file has")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_backup(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _backup)
    parser.add_argument("to", type=Path, metavar="TO", help="the directory of the copy: empty, or an earlier backup")
    parser.add_argument("--copy", action="store_true", help="copy every blob, even where a hard link would do")


def _add_reindex(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, _reindex)
    parser.add_argument("--deep", action="store_true", help="compare every blob with the digests of its labels")
    parser.add_argument("--force", action="store_true", help="even if there is an index: it is kept under another name")


def _add_token(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a token and print it once")
    _add_common(create, _create_token)
    create.add_argument("--name", required=True, type=_parse_name, help="the principal it stands for")
    create.add_argument("--scope", required=True, action="append", choices=SCOPES, help="repeat for several")
    create.add_argument("--expires", type=_parse_lifetime, metavar="DURATION", help="such as 30d (default: never)")
    _add_common(commands.add_parser("ls", help="list the tokens"), _list_tokens)
    revoke = commands.add_parser("revoke", help="make a token worthless")
    _add_common(revoke, _revoke_token)
    revoke.add_argument("id", type=_parse_text, help="as `spool token ls` shows it")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    allow = commands.add_parser("set", help="allow one principal more or less than everyone; 0 is without limit")
    _add_common(allow, _set_limit)
    allow.add_argument("name", type=_parse_name, help="the principal, as `spool token ls` shows it")
    allow.add_argument("--quota", type=_parse_size, metavar="SIZE", help="bytes that it may keep, such as 10GiB")
    allow.add_argument("--quota-files", type=_parse_number, metavar="N", help="files that it may keep")
    allow.add_argument("--requests-per-minute", type=_parse_number, metavar="N", help="requests that it may send")
    allow.add_argument("--uploads", type=_parse_number, metavar="N", help="uploads that it may have at once")
    _add_common(commands.add_parser("ls", help="list what is set"), _list_limits)
    clear = commands.add_parser("clear", help="allow a principal what everyone is allowed")
    _add_common(clear, _clear_limit)
    clear.add_argument("name", type=_parse_text, help="as `spool limit ls` shows it")


def _parse_text(text: str) -> str:
    try:
        return text.encode().decode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("this is not UTF-8") from error


def _parse_name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is needed")
    return _parse_text(text)


def _parse_lifetime(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 12h or 30d") from error


def _parse_size(text: str) -> int:
    try:
        size: int = SIZE.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {SIZE.description}") from error
    if size > _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than there is")
    return size


def _parse_number(text: str) -> int:
    try:
        number: int = LIMIT.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {LIMIT.description}") from error
    return number


def _parse_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _load(arguments: argparse.Namespace) -> Config:
    flags = {
        "server.host": getattr(arguments, "host", None),
        "server.port": getattr(arguments, "port", None),
        "server.unix": getattr(arguments, "unix", None),
        "storage.dir": arguments.dir,
    }
    config, arguments.settings = load(arguments.config, flags)
    return config


def _serve(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    from spool import logs, serve  # noqa: PLC0415

    logs.configure(config.log.format, config.log.level)
    try:
        asyncio.run(serve.run(config))
    except serve.Busy as error:
        return _fail(str(error), FAILED)
    return 0


def _show_config(arguments: argparse.Namespace) -> int:
    _load(arguments)
    section = None
    for setting in arguments.settings:
        if setting.section != section:
            print(f"[{setting.section}]" if section is None else f"\n[{setting.section}]")
            section = setting.section
        print(f"{setting.key} = {setting.value}  # {setting.origin}")
    return 0


def _with_storage(
    arguments: argparse.Namespace,
    work: Callable[[LocalStore, SqliteIndex], Awaitable[int | None]],
    *,
    may_make: bool = False,
) -> int:
    """Does `work` on the directory that the arguments name, beside a server or not; its exit code."""
    config = _load(arguments)
    if not may_make:
        _require_spool(config)
    from spool import serve  # noqa: PLC0415

    async def run() -> int | None:
        async with serve.open_storage(config) as (blobs, index):
            return await work(blobs, index)

    return asyncio.run(run()) or 0


def _require_spool(config: Config) -> None:
    if not (config.storage.dir / "index.db").exists():
        raise ConfigError(f"there is no spool in {config.storage.dir}: name its directory with --dir")


def _ls(arguments: argparse.Namespace) -> int:
    query = FileQuery(limit=1000, q=arguments.q, filename=arguments.filename, media_type=arguments.media_type)

    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import catalog, serve  # noqa: PLC0415

        left = arguments.limit
        async for file in catalog.Catalog(blobs, index, serve.now).walk(query):
            print(_show_json(file) if arguments.json else _show_row(file))
            left = left and left - 1
            if left == 0:
                break

    return _with_storage(arguments, work)


def _show_row(file: File) -> str:
    return f"{file.created_at:%Y-%m-%dT%H:%M:%SZ}  {file.size:>14}  {file.id}  {file.media_type:<24}  {file.filename}"


def _show_json(file: File) -> str:
    members = ("id", "filename", "size", "media_type", "declared_type", "sha256", "owner", "metadata", "damage")
    times = {"created_at": file.created_at.isoformat(), "expires_at": file.expires_at and file.expires_at.isoformat()}
    return json.dumps({name: getattr(file, name) for name in members} | times)


def _gc(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import serve  # noqa: PLC0415

        expired, reclaimed = await serve.sweep_beside(blobs, index)
        print(f"{expired} expired files deleted, {reclaimed} blobs reclaimed")

    return _with_storage(arguments, work)


def _fsck(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> int:
        from spool import integrity  # noqa: PLC0415

        sound = await integrity.fsck(blobs, index, deep=arguments.deep, repair=arguments.repair, as_json=arguments.json)
        return 0 if sound else DAMAGED

    return _with_storage(arguments, work)


def _backup(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    _require_spool(config)
    from spool import integrity  # noqa: PLC0415

    return asyncio.run(integrity.backup(config, arguments.to, link=not arguments.copy))


def _reindex(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    from spool import integrity  # noqa: PLC0415

    return asyncio.run(integrity.rebuild(config, deep=arguments.deep, force=arguments.force))


def _create_token(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import tokens  # noqa: PLC0415

        now = datetime.now(UTC)
        expires_at = now + arguments.expires if arguments.expires else None
        token, secret = tokens.new_token(arguments.name, arguments.scope, now, expires_at)
        await index.add_token(token, tokens.hash_secret(secret))
        print(secret)

    return _with_storage(arguments, work, may_make=True)


def _list_tokens(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        for token in await index.tokens():
            expires = f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}" if token.expires_at else "never"
            created = f"{token.created_at:%Y-%m-%dT%H:%M:%SZ}"
            print(f"{token.id}  {token.name:<20}  {','.join(sorted(token.scopes)):<24}  {created}  expires {expires}")

    return _with_storage(arguments, work)


def _revoke_token(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        await index.revoke(TokenId(arguments.id))

    return _with_storage(arguments, work)


def _set_limit(arguments: argparse.Namespace) -> int:
    numbers = arguments.quota, arguments.quota_files, arguments.requests_per_minute, arguments.uploads
    if all(number is None for number in numbers):
        return _fail("give at least one of --quota, --quota-files, --requests-per-minute and --uploads", WRONG)

    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        await index.set_override(Override(arguments.name, *numbers))

    return _with_storage(arguments, work)


def _list_limits(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        for override in await index.overrides():
            numbers = {
                "quota": override.quota if override.quota is None else SIZE.show(override.quota).strip('"'),
                "quota-files": override.quota_files,
                "requests-per-minute": override.requests_per_minute,
                "uploads": override.uploads,
            }
            print(f"{override.owner:<20}", *(f"{name} {_show_limit(n)}" for name, n in numbers.items()), sep="  ")

    return _with_storage(arguments, work)


def _show_limit(number: object) -> str:
    return "as configured" if number is None else str(number)


def _clear_limit(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        await index.clear_override(arguments.name)

    return _with_storage(arguments, work)
