"""What several commands share: their options, the values of these, exit codes, and the directory they work on."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spool.config import ConfigError, load
from spool.errors import BadRequest, SpoolError
from spool.model import By, Usage
from spool.policy import LOCAL, MAX_PASSPHRASE
from spool.units import LIMIT, SIZE, parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from spool import client, model
    from spool.config import Config
    from spool.store import LocalStore, SqliteIndex

    Listed = model.File | client.File

FAILED: Final = 1
"""The command is right, but could not be carried out."""
WRONG: Final = 2
"""The command line or the configuration is wrong."""
DAMAGED: Final = 3
"""A check found something wrong that is not repaired."""
REFUSED: Final = 4
"""A server refused what was asked of it."""
UNREACHED: Final = 5
"""No server answers, or none is able to."""
INTERRUPTED: Final = 130
"""By ctrl-C, as a shell says it."""
_MOST: Final = 2**63 - 1
_MEMBERS: Final = (
    *("id", "filename", "size", "media_type", "declared_type", "sha256"),
    *("owner", "metadata", "damage", "grant"),
)
"""What every listed file has, but for times."""


def carry_out(arguments: argparse.Namespace) -> int:
    """Does what the arguments say, and tells in one line what went wrong; the exit code."""
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except (ConfigError, BadRequest) as error:
        return fail(str(error), WRONG)
    except SpoolError as error:
        return fail(str(error), FAILED)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has read enough
        sys.stdout = None  # or the interpreter fails again when it flushes
        return FAILED
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}", FAILED)
    return code


def fail(message: str, code: int) -> int:
    """Tells the mistake in one line; the exit code."""
    warn(message)
    return code


def warn(message: str) -> None:
    """Tells in one line what may be a mistake."""
    print(f"spool: {message}", file=sys.stderr)


def add_common(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """The options that say which spool is meant. `run` does the work and returns the exit code."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this TOML file")
    parser.add_argument("--dir", metavar="DIR", help="where everything is kept (default: ./spool-data)")
    parser.set_defaults(run=run)


def add_listen(parser: argparse.ArgumentParser) -> None:
    """The options that say where to listen, and in how many processes."""
    parser.add_argument("--host", help="listen on this address (default: 127.0.0.1)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PORT", help="listen on this port (default: 8080)")
    where.add_argument("--unix", metavar="PATH", help="listen on this unix socket instead")
    parser.add_argument("--workers", metavar="N", help="answer requests in so many processes (default: 1)")


def parse_text(text: str) -> str:
    """Text that UTF-8 can carry."""
    try:
        return text.encode().decode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("this is not UTF-8") from error


def parse_name(text: str) -> str:
    """Text that is not blank."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is needed")
    return parse_text(text)


def parse_lifetime(text: str) -> timedelta:
    """A duration of more than nothing, as in the configuration, but with its unit: 30 would be seconds to nobody."""
    if text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: 30s, 15m, 12h, 7d and 4w have one")
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 12h or 30d") from error
    if not duration:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return duration


def parse_size(text: str) -> int:
    """A size, as in the configuration: without a unit in bytes, as everywhere else."""
    try:
        size: int = SIZE.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {SIZE.description}") from error
    if size > _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than there is")
    return size


def parse_number(text: str) -> int:
    """A limit, as in the configuration: from 0 up."""
    try:
        number: int = LIMIT.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {LIMIT.description}") from error
    return number


def parse_count(text: str) -> int:
    """A number from 1 up."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def read_passphrase(path: Path | None) -> str | None:
    """The first line of the file, - being standard input: an argument would be in the list of processes.

    Raises OSError, ConfigError.
    """
    if path is None:
        return None
    line = (sys.stdin.readline() if str(path) == "-" else path.read_text("utf-8").partition("\n")[0]).rstrip("\r\n")
    if not line or len(line.encode()) > MAX_PASSPHRASE:
        raise ConfigError(f"the first line of {path} is no pass phrase of 1 to {MAX_PASSPHRASE} bytes")
    return line


async def is_known(index: SqliteIndex, name: str) -> bool:
    """Whether a principal has this name: by a token, a grant, or what it keeps, or because everybody may be it."""
    if name == LOCAL or any(token.name == name for token in await index.tokens()):
        return True
    return await index.usage(name) != Usage(0, 0) or bool(await index.grants(name, None, 1))


def by_command() -> By:
    """The user of this machine who runs the command, for the audit log."""
    uid = os.getuid()
    with suppress(KeyError):  # a container need not know its user
        return By(pwd.getpwuid(uid).pw_name, "command", datetime.now(UTC))
    return By(f"uid {uid}", "command", datetime.now(UTC))


def load_config(arguments: argparse.Namespace) -> Config:
    """The configuration under the arguments. Raises ConfigError."""
    flags = {
        "server.host": getattr(arguments, "host", None),
        "server.port": getattr(arguments, "port", None),
        "server.unix": getattr(arguments, "unix", None),
        "server.workers": getattr(arguments, "workers", None),
        "storage.dir": arguments.dir,
    }
    config, arguments.settings = load(arguments.config, flags)
    return config


def show_row(file: Listed) -> str:
    """One line for a person, of a file of either kind."""
    return f"{file.created_at:%Y-%m-%dT%H:%M:%SZ}  {file.size:>14}  {file.id}  {file.media_type:<24}  {file.filename}"


def show_json(file: Listed, *more: str) -> str:
    """One line for a program; `more` are members that only one kind of file has."""
    times = {"created_at": file.created_at.isoformat(), "expires_at": file.expires_at and file.expires_at.isoformat()}
    return json.dumps({name: getattr(file, name) for name in (*_MEMBERS, *more)} | times)


def with_storage(
    arguments: argparse.Namespace,
    work: Callable[[LocalStore, SqliteIndex], Awaitable[int | None]],
    *,
    may_make: bool = False,
) -> int:
    """Does `work` on the directory that the arguments name, beside a server or not; its exit code."""
    config = load_config(arguments)
    if not may_make:
        require_spool(config)
    elif not (config.storage.dir / "index.db").exists():
        warn(f"there was no spool in {config.storage.dir.absolute()}: making one")
    import asyncio  # noqa: PLC0415

    from spool import serve  # noqa: PLC0415

    async def run() -> int | None:
        async with serve.open_storage(config) as (blobs, index):
            return await work(blobs, index)

    return asyncio.run(run()) or 0


def require_spool(config: Config) -> None:
    """Raises ConfigError if there is no spool in the directory."""
    if not (config.storage.dir / "index.db").exists():
        raise ConfigError(f"there is no spool in {config.storage.dir}: name its directory with --dir")
