"""`spool completion`: what a shell has to know to complete the commands, as a script for it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS: Final = ("bash", "zsh", "fish", "tcsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool completion`."""
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_print_script)


def _print_script(arguments: argparse.Namespace) -> int:
    import shtab  # noqa: PLC0415

    from spool.cli import make_parser  # noqa: PLC0415

    parser = make_parser()
    kinds = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "TO": shtab.DIRECTORY}
    for action in _actions(parser):
        if action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # where shtab looks for it
    print(shtab.complete(parser, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser, and of the commands below it."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _actions(command)
