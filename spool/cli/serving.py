"""`spool serve`, and `spool config`, which shows what it would run with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.cli.command import FAILED, add_common, add_listen, fail, load_config

if TYPE_CHECKING:
    import argparse


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool serve`."""
    add_common(parser, _serve)
    add_listen(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool config`."""
    add_common(parser, _show_config)
    add_listen(parser)


def _serve(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    import asyncio  # noqa: PLC0415

    from spool import logs, serve  # noqa: PLC0415

    logs.configure(config.log.format, config.log.level)
    run = serve.run
    if config.server.workers > 1:
        from spool import workers  # noqa: PLC0415

        run = workers.run
    try:
        asyncio.run(run(config))
    except serve.Busy as error:
        return fail(str(error), FAILED)
    return 0


def _show_config(arguments: argparse.Namespace) -> int:
    load_config(arguments)
    section = None
    for setting in arguments.settings:
        if setting.section != section:
            print(f"[{setting.section}]" if section is None else f"\n[{setting.section}]")
            section = setting.section
        print(f"{setting.key} = {setting.value}  # {setting.origin}")
    return 0
