"""Commands that talk to a server: `put`, `get`, `rm`, `link`, `login`, and `ls` if it is to.

What they need beyond their arguments is in `talk.py`, which is imported when one of them runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spool.cli.command import WRONG, fail, parse_count, parse_lifetime, parse_name, parse_text
from spool.config import ConfigError, client_settings, names_directory

if TYPE_CHECKING:
    from collections.abc import Callable


def add_put(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool put`."""
    _add_remote(parser, _put, "the server, or a guest link")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a path, or - for standard input")
    parser.add_argument("--name", type=parse_name, help="what the file is called there (default: as here)")
    parser.add_argument(
        "--meta", action="append", default=[], type=parse_meta, metavar="KEY=VALUE", help="repeat for several"
    )
    parser.add_argument("--expires", type=parse_lifetime, metavar="DURATION", help="such as 7d (default: never)")
    parser.add_argument("-j", dest="jobs", type=parse_count, default=4, metavar="N", help="at once (default: 4)")
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="that of a guest link is its first line; - is stdin"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_get(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool get`."""
    _add_remote(parser, _get)
    parser.add_argument("id", type=parse_text, metavar="ID|URL", help="as `spool put` and `spool ls` show it")
    parser.add_argument("-o", dest="output", metavar="FILE", help="a path, or a directory (default: .)")


def add_rm(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool rm`."""
    _add_remote(parser, _rm)
    what = "as `spool ls` shows it, or `spool put` to a guest link"
    parser.add_argument("ids", nargs="+", type=parse_text, metavar="ID|URL", help=what)


def add_link(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool link`."""
    _add_remote(parser, _link)
    parser.add_argument("id", type=parse_text, metavar="ID|URL", help="the file, as `spool put` and `spool ls` show it")
    parser.add_argument("--expires", type=parse_lifetime, metavar="DURATION", help="such as 12h (default: 7d)")
    parser.add_argument("--downloads", type=parse_count, metavar="N", help="of the whole file (default: no limit)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="list the links to the file instead")
    instead.add_argument("--revoke", type=parse_name, metavar="LINK", help="end one instead, as --list shows it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_login(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool login`."""
    parser.add_argument("url", metavar="URL", help="the server; the token is read from the terminal or standard input")
    parser.set_defaults(run=_login)


def add_to(parser: argparse.ArgumentParser, what: str = "the server") -> None:
    """The option that says which server is meant."""
    parser.add_argument("--to", metavar="URL", help=f"{what} (default: $SPOOL_URL, or that of `spool login`)")


def names_server(arguments: argparse.Namespace) -> bool:
    """Whether `spool ls` is to ask a server: if one is named, and no directory. Raises ConfigError."""
    directory = arguments.dir is not None or arguments.config is not None
    if arguments.to is not None and directory:
        raise ConfigError("--to names a server, --dir and --config a directory: give one of them")
    if arguments.to is not None:
        return True
    return not directory and not names_directory() and bool(client_settings(None).url)


def list_remote(arguments: argparse.Namespace) -> int:
    """Prints the files of a server."""
    from spool.cli import talk  # noqa: PLC0415

    return talk.ls(arguments)


def parse_meta(text: str) -> tuple[str, str]:
    """A name and its value. Names that mean something else to a server are refused."""
    name, equals, value = parse_text(text).partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if name in ("sha256", "expires_at"):
        raise argparse.ArgumentTypeError(f"{name} is no metadata; for the latter there is --expires")
    return name, value


def _add_remote(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], what: str = "the server"
) -> None:
    add_to(parser, what)
    parser.add_argument("--tries", type=parse_count, default=6, metavar="N", help="before giving up (default: 6)")
    parser.set_defaults(run=run)


def _put(arguments: argparse.Namespace) -> int:
    if arguments.name is not None and len(arguments.files) > 1:
        return fail("--name is for one FILE", WRONG)
    if [*arguments.files, str(arguments.passphrase_file)].count("-") > 1:
        return fail("standard input can be read once only", WRONG)
    from spool.cli import talk  # noqa: PLC0415

    return talk.put(arguments)


def _get(arguments: argparse.Namespace) -> int:
    if arguments.output == "-":
        return fail("-o names a file, and ./- a file of that name: for standard output there is curl", WRONG)
    from spool.cli import talk  # noqa: PLC0415

    return talk.get(arguments)


def _rm(arguments: argparse.Namespace) -> int:
    from spool.cli import talk  # noqa: PLC0415

    return talk.rm(arguments)


def _link(arguments: argparse.Namespace) -> int:
    instead = "--list" if arguments.list else "--revoke" if arguments.revoke else None
    if instead and (arguments.expires is not None or arguments.downloads is not None):
        return fail(f"--expires and --downloads are of a new link: they do not go with {instead}", WRONG)
    from spool.cli import talk  # noqa: PLC0415

    return talk.link(arguments)


def _login(arguments: argparse.Namespace) -> int:
    from spool.cli import talk  # noqa: PLC0415

    return talk.login(arguments)
