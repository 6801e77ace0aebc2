"""What a command tells while it runs: progress bars on a terminal, and lines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress


class Report:
    """Bars on standard error, if that is a terminal, and lines on standard output."""

    def __init__(self) -> None:
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @contextmanager
    def bar(self, name: str) -> Iterator[Callable[[int, int | None], None]]:
        """A bar for one file, to be told how many bytes are done and how many there are; gone at the end."""
        bars = self._bars
        if bars is None:
            yield lambda _done, _size: None
            return
        task = bars.add_task(printable(name), total=None)
        try:
            yield lambda done, size: bars.update(task, completed=done, total=size)
        finally:
            bars.remove_task(task)

    def line(self, text: str) -> None:
        """On standard output, at once."""
        self._above_bars(text, sys.stdout.isatty()) or print(text, flush=True)

    def complain(self, text: str) -> None:
        """On standard error, at once."""
        text = f"spool: {printable(text)}"
        self._above_bars(text, True) or print(text, file=sys.stderr, flush=True)  # noqa: FBT003

    def _above_bars(self, text: str, is_terminal: bool) -> bool:  # noqa: FBT001
        if self._bars is None or not is_terminal:
            return False
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or cannot be written at all."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _make_bars() -> Progress:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
