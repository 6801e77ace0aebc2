"""The commands. A mistake gets one line that names it and the mend; `doc/operate.md` has the exit codes.

What a command needs beyond its arguments is imported when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spool import __version__
from spool.cli.audit import add_audit
from spool.cli.command import FAILED, INTERRUPTED, WRONG, fail
from spool.cli.completion import add_completion
from spool.cli.principals import add_limit, add_token
from spool.cli.remote import add_get, add_link, add_login, add_put, add_rm
from spool.cli.serving import add_config, add_serve
from spool.cli.sharing import add_grant
from spool.cli.storage import add_backup, add_fsck, add_gc, add_ls, add_reindex
from spool.config import ConfigError
from spool.errors import BadRequest, SpoolError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = make_parser().parse_args(argv)
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


def make_parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    parser = argparse.ArgumentParser("spool", description="The landing zone for uploaded media.")
    parser.add_argument("--version", action="version", version=f"spool {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands.add_parser("serve", help="take uploads and serve files until SIGTERM"))
    add_ls(commands.add_parser("ls", help="list files of a directory or of a server, newest first"))
    add_put(commands.add_parser("put", help="upload files to a server; run again, it goes on"))
    add_get(commands.add_parser("get", help="download a file from a server; run again, it goes on"))
    add_rm(commands.add_parser("rm", help="delete files of a server"))
    add_link(commands.add_parser("link", help="let whoever has an address download a file of a server"))
    add_login(commands.add_parser("login", help="remember a server and the token for it"))
    add_gc(commands.add_parser("gc", help="delete expired files and reclaim what crashes left behind"))
    add_fsck(commands.add_parser("fsck", help="check that every file is whole, and mend what can be"))
    add_backup(commands.add_parser("backup", help="make or renew a consistent copy, which is a spool itself"))
    add_reindex(commands.add_parser("reindex", help="make a lost index anew from the blobs"))
    add_token(commands.add_parser("token", help="create, list and revoke tokens"))
    add_limit(commands.add_parser("limit", help="set, list and clear what single principals are allowed"))
    add_grant(commands.add_parser("grant", help="let guests upload without a token"))
    add_audit(commands.add_parser("audit", help="show who stored, changed and deleted what, and who was let in"))
    add_config(commands.add_parser("config", help="show the effective configuration and where each value is from"))
    add_completion(commands.add_parser("completion", help="print the completion script for a shell"))
    return parser
