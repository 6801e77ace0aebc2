"""The commands. A mistake gets one line that names it and the mend; `doc/operate.md` has the exit codes.

What a command needs is imported when it is named, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from spool import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS: Final = (
    ("serve", "serving", "take uploads and serve files until SIGTERM"),
    ("ls", "storage", "list files of a directory or of a server, newest first"),
    ("put", "remote", "upload files to a server; run again, it goes on"),
    ("get", "remote", "download a file from a server; run again, it goes on"),
    ("rm", "remote", "delete files of a server"),
    ("link", "remote", "let whoever has an address download a file of a server"),
    ("login", "remote", "remember a server and the token for it"),
    ("gc", "storage", "delete expired files and reclaim what crashes left behind"),
    ("fsck", "storage", "check that every file is whole, and mend what can be"),
    ("backup", "storage", "make or renew a consistent copy, which is a spool itself"),
    ("reindex", "storage", "make a lost index anew from the blobs"),
    ("token", "principals", "create, list and revoke tokens"),
    ("limit", "principals", "set, list and clear what single principals are allowed"),
    ("grant", "sharing", "let guests upload without a token"),
    ("audit", "audit", "show who stored, changed and deleted what, and who was let in"),
    ("config", "serving", "show the effective configuration and where each value is from"),
    ("completion", "completion", "print the completion script for a shell"),
)
"""Name, module below this one, and what it does. The module's `add_NAME` adds its arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = make_parser(words).parse_args(words)
    from spool.cli.command import carry_out  # noqa: PLC0415

    return carry_out(arguments)


def make_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Every command; of those that `words` does not name, if it is given, without its arguments."""
    parser = argparse.ArgumentParser("spool", description="The landing zone for uploaded media.")
    parser.add_argument("--version", action="version", version=f"spool {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, purpose in _COMMANDS:
        command = commands.add_parser(name, help=purpose)
        if words is None or name in words:
            getattr(import_module(f"spool.cli.{module}"), f"add_{name}")(command)
    return parser
