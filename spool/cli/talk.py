"""What the commands do that talk to a server, with the client and what it needs."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import stat
import sys
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from spool.cli.command import (
    DAMAGED,
    FAILED,
    INTERRUPTED,
    REFUSED,
    UNREACHED,
    WRONG,
    fail,
    read_passphrase,
    show_json,
    show_row,
)
from spool.cli.report import Report, printable
from spool.client import Busy, Changed, Client, Failure, File, Guest, Mismatch
from spool.client.client import split_address
from spool.client.deletion import split_delete_url
from spool.client.guest import is_guest_link
from spool.client.problems import is_passing
from spool.config import ClientSettings, ConfigError, client_settings, save_login
from spool.errors import Forbidden, PassphraseRequired, SpoolError, Unauthenticated
from spool.units import URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import BinaryIO

    from spool.client import Link, Sent

C = TypeVar("C", Client, Guest)

_READ: Final = 256 * 1024
_CODES: Final = {Mismatch: DAMAGED, Busy: FAILED, Changed: FAILED, Failure: UNREACHED}
_ADVICE: Final = {
    PassphraseRequired: "; give it in SPOOL_PASSPHRASE, or by --passphrase-file",
    Unauthenticated: "; give the token to `spool login`, or in SPOOL_TOKEN",
}
_RESUMES: Final = "; run the same command again to go on"
_TRIES: Final = 3
"""For a question whose answer somebody waits for."""


def put(arguments: argparse.Namespace) -> int:
    """`spool put`."""
    settings = client_settings(arguments.to)
    hint = "" if arguments.files == ["-"] else _RESUMES
    work = partial(_put_all, arguments)
    if is_guest_link(settings.url):
        return _drive(_guest(arguments, settings), work, hint)
    if arguments.passphrase_file is not None:
        raise ConfigError("--passphrase-file goes with a guest link, whose address ends with /g/ and a secret")
    return _run(settings, arguments.tries, work, hint)


def get(arguments: argparse.Namespace) -> int:
    """`spool get`."""
    server, name = _address(arguments, arguments.id)

    async def fetch(client: Client, report: Report) -> None:
        with report.bar(arguments.output or name) as progress:
            path = await client.get(name, arguments.output or ".", progress=progress)
        report.line(printable(str(path)))

    async def work(client: Client) -> int:
        with Report() as report:
            return await _attempt(report, arguments.output or arguments.id, lambda: fetch(client, report))

    return _run(client_settings(server), arguments.tries, work, _RESUMES)


def rm(arguments: argparse.Namespace) -> int:
    """`spool rm`."""
    addresses = [_address(arguments, text) for text in arguments.ids]

    async def work(client: Client) -> int:
        return max([await _attempt(Report(), _hide(name), partial(client.delete, name)) for _, name in addresses])

    return _run(client_settings(next((server for server, _ in addresses if server), None)), arguments.tries, work)


def ls(arguments: argparse.Namespace) -> int:
    """`spool ls` of a server."""

    async def show(client: Client) -> None:
        left = arguments.limit
        filters = {name: getattr(arguments, name) for name in ("q", "filename", "media_type", "grant")}
        async for file in client.list(**filters):
            print(show_json(file, "url", "content_url") if arguments.json else printable(show_row(file)))
            left = left and left - 1
            if left == 0:
                break

    async def work(client: Client) -> int:
        return await _attempt(Report(), "", lambda: show(client))

    return _run(client_settings(arguments.to), _TRIES, work)


def link(arguments: argparse.Namespace) -> int:
    """`spool link`."""
    server, name = _address(arguments, arguments.id)

    async def do(client: Client) -> None:
        if arguments.list:
            for one in await client.links(name):
                print(_show_json(one) if arguments.json else printable(_show_link(one, datetime.now(UTC))))
        elif arguments.revoke:
            await client.revoke_link(name, arguments.revoke)
        else:
            made = await client.link(name, expires=arguments.expires, downloads=arguments.downloads)
            print(_show_json(made) if arguments.json else printable(made.url))

    async def work(client: Client) -> int:
        return await _attempt(Report(), arguments.id, lambda: do(client))

    return _run(client_settings(server), arguments.tries, work)


def login(arguments: argparse.Namespace) -> int:
    """`spool login`: nothing is kept unless the server knows the token."""
    settings = client_settings(arguments.url)
    _require_server(settings)
    token = (_ask("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()

    async def check(client: Client) -> None:
        try:
            async for _ in client.list():
                break
        except Forbidden:  # it is a token of this server, which may do something else
            pass
        print(f"{settings.url} is remembered in {await asyncio.to_thread(save_login, settings.url, token)}")

    async def work(client: Client) -> int:
        return await _attempt(Report(), settings.url, lambda: check(client))

    return _run(replace(settings, token=token or None), _TRIES, work)


def _run(settings: ClientSettings, tries: int, work: Callable[[Client], Awaitable[int]], hint: str = "") -> int:
    """The exit code of `work` with a client. Raises ConfigError if no server is named."""
    _require_server(settings)
    try:
        client = Client(settings.url, settings.token, state=settings.state, tries=tries)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return _drive(client, work, hint)


def _require_server(settings: ClientSettings) -> None:
    if not settings.url:
        raise ConfigError("no server is named: give --to URL, set SPOOL_URL, or run `spool login URL` once")
    if is_guest_link(settings.url):
        raise ConfigError("this is a guest link, by which files come and none are shown: it is for `spool put`")


def _drive(client: C, work: Callable[[C], Awaitable[int]], hint: str) -> int:
    async def run() -> int:
        async with client:
            return await work(client)

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        return fail(f"interrupted{hint}", INTERRUPTED)


def _guest(arguments: argparse.Namespace, settings: ClientSettings) -> Guest:
    """Whoever is at the terminal is asked for the pass phrase, if there is one and it was not given."""
    passphrase = read_passphrase(arguments.passphrase_file) or settings.passphrase
    if passphrase is None and sys.stdin.isatty() and asyncio.run(_wants_passphrase(Guest(settings.url, tries=1))):
        passphrase = _ask("Pass phrase: ")
    return Guest(settings.url, passphrase, state=settings.state, tries=arguments.tries)


async def _wants_passphrase(guest: Guest) -> bool:
    try:
        async with guest:
            await guest.invitation()
    except PassphraseRequired:
        return True
    except (SpoolError, Failure):  # of which the upload will tell, unless it has passed
        pass
    return False


def _ask(prompt: str) -> str:
    """What is typed at the terminal, unseen; nothing at its end."""
    with suppress(EOFError):
        return getpass.getpass(prompt)
    return ""


async def _attempt(report: Report, what: str, action: Callable[[], Awaitable[None]]) -> int:
    """Does it; an error becomes a line that begins with `what`, and an exit code."""
    try:
        await action()
    except BrokenPipeError:
        raise
    except (SpoolError, Failure, OSError, ValueError) as error:
        message, code = _explain(error, what)
        report.complain(f"{what}: {message}" if what else message)
        return code
    return 0


def _explain(error: Exception, what: str) -> tuple[str, int]:
    if isinstance(error, SpoolError):
        advice = next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), "")
        detail = error.detail.removesuffix(".")
        return f"{detail} ({error.slug}){advice}", UNREACHED if is_passing(error) else REFUSED
    if isinstance(error, FileExistsError):
        return f"{error.filename} exists; name another file with -o", FAILED
    if isinstance(error, OSError):
        where = "" if error.filename in (None, what) else f"{error.filename}: "
        return f"{where}{error.strerror}", FAILED
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), WRONG)
    return str(error), code


def _address(arguments: argparse.Namespace, text: str) -> tuple[str | None, str]:
    """The server, if the command line names one, and the id there, or an address that is none of a record.

    `--to` goes before the server in an address, which may know itself by a name that is not reached from here.
    """
    if found := split_delete_url(text):
        reached = URL.parse(arguments.to or found[0])
        return reached, "".join((reached, *found[1:]))
    server, name = split_address(text) or (None, text)
    if server is None and "://" in text:
        server = URL.parse("://".join(urlsplit(text)[:2]))
    return arguments.to or server, name


def _hide(address: str) -> str:
    """What may be shown of it: no secret."""
    found = split_delete_url(address)
    return address if found is None else f"{found[0]}{found[1]}..."


async def _put_all(arguments: argparse.Namespace, client: Client | Guest) -> int:
    slots = asyncio.Semaphore(arguments.jobs)

    async def one(name: str) -> int:
        async with slots:
            return await _attempt(report, name, lambda: _put(client, arguments, name, report))

    with Report() as report:
        return max(await asyncio.gather(*map(one, arguments.files)))


async def _put(client: Client | Guest, arguments: argparse.Namespace, name: str, report: Report) -> None:
    metadata = defaultdict(list)
    for key, value in arguments.meta:
        metadata[key].append(value)
    with ExitStack() as opened:
        file = opened.enter_context(await asyncio.to_thread(_open, name))
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        progress = opened.enter_context(report.bar(name))
        stored = await client.put(
            file if regular else _read(file.fileno()),
            filename=arguments.name or ("" if name == "-" else Path(name).name),
            metadata=metadata,
            expires=arguments.expires,
            progress=progress,
        )
    if arguments.json:
        report.line(show_json(stored, "url", "content_url") if isinstance(stored, File) else _show_json(stored))
    else:
        address = stored.url if isinstance(stored, File) else stored.delete_url or stored.id
        report.line(f"{address}  {printable(stored.filename)}")


def _show_json(record: Link | Sent) -> str:
    return json.dumps({f.name: getattr(record, f.name) for f in fields(record)}, default=datetime.isoformat)


def _show_link(link: Link, now: datetime) -> str:
    state = "revoked" if link.revoked_at else "expired" if link.expires_at <= now else "expires"
    moment = link.revoked_at or link.expires_at
    given = "any downloads" if link.max_downloads is None else f"{link.downloads}/{link.max_downloads} downloads"
    return f"{link.id}  {link.created_by:<20}  {given}  {state} {moment:%Y-%m-%dT%H:%M:%SZ}"


def _open(name: str) -> BinaryIO:
    return sys.stdin.buffer if name == "-" else Path(name).open("rb", buffering=0)


async def _read(descriptor: int) -> AsyncIterator[bytes]:
    """What comes through a pipe or a terminal. Unlike a thread that waits for it, this can be interrupted."""
    while await _readable(descriptor) and (piece := os.read(descriptor, _READ)):
        yield piece


async def _readable(descriptor: int) -> bool:
    """Returns, always true, once a read would not wait."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # a device for which nobody ever has to wait
        return True
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return True
