"""`spool grant`: leave for guests, who have no token, to upload."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spool.cli.command import (
    add_common,
    by_command,
    is_known,
    load_config,
    parse_count,
    parse_lifetime,
    parse_name,
    parse_size,
    parse_text,
    read_passphrase,
    warn,
    with_storage,
)
from spool.model import GrantId
from spool.policy import GRANT_FILES, GRANT_LASTS, MAX_GRANT_FILES, MAX_NOTE
from spool.units import SIZE

if TYPE_CHECKING:
    from spool.config import Config
    from spool.model import Grant
    from spool.store import LocalStore, SqliteIndex

_LOT = 1000


def add_grant(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool grant`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a grant and print its address once")
    add_common(create, _create)
    create.add_argument("--owner", required=True, type=parse_name, help="the principal in whose name guests upload")
    create.add_argument("--note", type=_parse_note, default="", metavar="TEXT", help="what guests are told")
    create.add_argument(
        "--expires", type=parse_lifetime, default=GRANT_LASTS, metavar="DURATION", help="such as 12h (default: 7d)"
    )
    create.add_argument(
        "--max-files", type=_parse_files, default=GRANT_FILES, metavar="N", help=f"in all (default: {GRANT_FILES})"
    )
    create.add_argument("--max-size", type=parse_size, default=0, metavar="SIZE", help="bytes in all, such as 10GiB")
    create.add_argument("--max-file-size", type=parse_size, default=0, metavar="SIZE", help="bytes of one file")
    create.add_argument(
        "--type", type=parse_text, action="append", default=[], metavar="GLOB", help="such as 'image/*'; repeatable"
    )
    create.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="guests must know what is on its first line; - is stdin"
    )
    listing = commands.add_parser("ls", help="list the grants")
    add_common(listing, _list)
    listing.add_argument("--owner", type=parse_text, metavar="NAME", help="only those of this principal")
    revoke = commands.add_parser("revoke", help="end a grant, and what is on its way by it")
    add_common(revoke, _revoke)
    revoke.add_argument("id", type=parse_text, help="as `spool grant ls` shows it")


def _parse_note(text: str) -> str:
    if len(parse_text(text).encode()) > MAX_NOTE:
        raise argparse.ArgumentTypeError(f"a note has at most {MAX_NOTE} bytes")
    return text


def _parse_files(text: str) -> int:
    count = parse_count(text)
    if count > MAX_GRANT_FILES:
        raise argparse.ArgumentTypeError(f"a grant is for at most {MAX_GRANT_FILES} files")
    return count


def _create(arguments: argparse.Namespace) -> int:
    passphrase = read_passphrase(arguments.passphrase_file)

    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import tokens  # noqa: PLC0415

        if not await is_known(index, arguments.owner):
            warn(
                f"nothing is known of {arguments.owner!r}, in whose name guests will upload: `spool token ls` has names"
            )
        now = datetime.now(UTC)
        grant, secret = tokens.new_grant(arguments.owner, now, now + arguments.expires, max_files=arguments.max_files)
        grant = replace(
            grant,
            note=arguments.note,
            max_size=arguments.max_size,
            max_file_size=arguments.max_file_size,
            types=tuple(arguments.type),
            passphrase=tokens.hash_passphrase(passphrase) if passphrase else None,
        )
        await index.add_grant(grant, tokens.hash_secret(secret), by_command())
        print(f"{_base(load_config(arguments))}/g/{secret}")

    return with_storage(arguments, work, may_make=True)


def _base(config: Config) -> str:
    """The server's address as far as the configuration tells."""
    server = config.server
    if server.base_url or server.unix:
        return server.base_url
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{'https' if server.tls_cert else 'http'}://{host}:{server.port}"


def _list(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        last = None
        while grants := await index.grants(arguments.owner, last, _LOT):
            for grant in grants:
                print(_show(grant, datetime.now(UTC)))
            last = grants[-1]

    return with_storage(arguments, work)


def _show(grant: Grant, now: datetime) -> str:
    from spool.logs import escape  # noqa: PLC0415

    most = SIZE.show(grant.max_size).strip('"') if grant.max_size else "any"
    state = "revoked" if grant.revoked_at else "expired" if grant.expires_at <= now else "expires"
    moment = grant.revoked_at or grant.expires_at
    came = f"{grant.files}/{grant.max_files} files  {grant.size}/{most} bytes"
    note = f"  {escape(grant.note)}" if grant.note else ""
    return f"{grant.id}  {escape(grant.owner):<20}  {came}  {state} {moment:%Y-%m-%dT%H:%M:%SZ}{note}"


def _revoke(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        for upload in await index.revoke_grant(GrantId(arguments.id), datetime.now(UTC), by_command()):
            await blobs.delete(upload.key)

    return with_storage(arguments, work)
