"""`spool token` and `spool limit`: who may come, and how much."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spool.cli.command import (
    WRONG,
    add_common,
    by_command,
    fail,
    is_known,
    parse_lifetime,
    parse_name,
    parse_number,
    parse_size,
    parse_text,
    with_storage,
)
from spool.errors import NotFound
from spool.model import Override, TokenId
from spool.policy import SCOPES
from spool.units import SIZE

if TYPE_CHECKING:
    import argparse

    from spool.store import LocalStore, SqliteIndex


def add_token(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool token`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a token and print it once")
    add_common(create, _create_token)
    create.add_argument("--name", required=True, type=parse_name, help="the principal it stands for")
    create.add_argument("--scope", required=True, action="append", choices=SCOPES, help="repeat for several")
    create.add_argument("--expires", type=parse_lifetime, metavar="DURATION", help="such as 30d (default: never)")
    add_common(commands.add_parser("ls", help="list the tokens"), _list_tokens)
    revoke = commands.add_parser("revoke", help="make tokens worthless")
    add_common(revoke, _revoke_token)
    revoke.add_argument("ids", nargs="+", type=parse_text, metavar="ID", help="as `spool token ls` shows it")


def add_limit(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool limit`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    allow = commands.add_parser("set", help="allow one principal more or less than everyone; 0 is without limit")
    add_common(allow, _set_limit)
    allow.add_argument("name", type=parse_name, help="the principal, as `spool token ls` shows it")
    allow.add_argument("--quota", type=parse_size, metavar="SIZE", help="bytes that it may keep, such as 10GiB")
    allow.add_argument("--quota-files", type=parse_number, metavar="N", help="files that it may keep")
    allow.add_argument("--requests-per-minute", type=parse_number, metavar="N", help="requests that it may send")
    allow.add_argument("--uploads", type=parse_number, metavar="N", help="uploads that it may have at once")
    add_common(commands.add_parser("ls", help="list what is set"), _list_limits)
    clear = commands.add_parser("clear", help="allow a principal what everyone is allowed")
    add_common(clear, _clear_limit)
    clear.add_argument("name", type=parse_text, help="as `spool limit ls` shows it")


def _create_token(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import tokens  # noqa: PLC0415

        now = datetime.now(UTC)
        expires_at = now + arguments.expires if arguments.expires else None
        token, secret = tokens.new_token(arguments.name, arguments.scope, now, expires_at)
        await index.add_token(token, tokens.hash_secret(secret), by_command())
        print(secret)

    return with_storage(arguments, work, may_make=True)


def _list_tokens(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        now = datetime.now(UTC)
        for token in await index.tokens():
            expires = f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}" if token.expires_at else "never"
            state = "expired" if token.expires_at and token.expires_at <= now else "expires"
            created = f"{token.created_at:%Y-%m-%dT%H:%M:%SZ}"
            print(f"{token.id}  {token.name:<20}  {','.join(sorted(token.scopes)):<24}  {created}  {state} {expires}")

    return with_storage(arguments, work)


def _revoke_token(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        unknown = []
        for id_ in dict.fromkeys(arguments.ids):
            try:
                await index.revoke(TokenId(id_), by_command())
            except NotFound:
                unknown.append(id_)
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise NotFound(f"there is no token with the id {names}: `spool token ls` shows the id of each")

    return with_storage(arguments, work)


def _set_limit(arguments: argparse.Namespace) -> int:
    numbers = arguments.quota, arguments.quota_files, arguments.requests_per_minute, arguments.uploads
    if all(number is None for number in numbers):
        return fail("give at least one of --quota, --quota-files, --requests-per-minute and --uploads", WRONG)

    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        if not await is_known(index, arguments.name):
            raise NotFound(f"no token, grant or file is of {arguments.name!r}: `spool token ls` shows the names")
        await index.set_override(Override(arguments.name, *numbers), by_command())

    return with_storage(arguments, work)


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

    return with_storage(arguments, work)


def _show_limit(number: object) -> str:
    return "as configured" if number is None else str(number)


def _clear_limit(arguments: argparse.Namespace) -> int:
    async def work(_blobs: LocalStore, index: SqliteIndex) -> None:
        await index.clear_override(arguments.name, by_command())

    return with_storage(arguments, work)
