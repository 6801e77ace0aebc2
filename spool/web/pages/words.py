"""Sizes, times and kinds of files as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.web.pages.html import tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import File
    from spool.web.pages.html import Html

_UNITS: Final = ("kB", "MB", "GB", "TB")
_STEP: Final = 1000
_LONGEST_ENDING: Final = 4
_TYPES: Final = {
    "image/*": "Images",
    "audio/*": "Audio",
    "video/*": "Video",
    "text/*": "Text",
    "application/pdf": "PDF",
}


def size(count: int) -> str:
    """Such as 1.2 MB."""
    if count < _STEP:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    power = 1
    while power < len(_UNITS) and count >= _STEP ** (power + 1) - _STEP**power // 2:  # or it would read 1000 kB
        power += 1
    value = count / _STEP**power
    return f"{value:.1f} {_UNITS[power - 1]}" if value < 10 else f"{value:.0f} {_UNITS[power - 1]}"  # noqa: PLR2004


def exact_size(bytes_: int) -> str:
    """Such as 1.2 MB (1,234,567 bytes)."""
    return size(bytes_) if bytes_ < _STEP else f"{size(bytes_)} ({bytes_:,} bytes)"


def capital(text: str) -> str:
    """The text with a capital at its start."""
    return f"{text[:1].upper()}{text[1:]}"


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    return f"{capital(text.removesuffix('.'))}."


def time(moment: datetime) -> Html:
    """In UTC; where there is JavaScript, it puts the reader's own time there."""
    return tag("time", f"{moment:%Y-%m-%d %H:%M} UTC", datetime=f"{moment:%Y-%m-%dT%H:%M:%SZ}")


def ending(file: File) -> str:
    """What stands for the file where it has no picture: the ending of its name, or of its type."""
    _, dot, last = file.filename.rpartition(".")
    if dot and last.isascii() and last.isalnum() and len(last) <= _LONGEST_ENDING:
        return last.upper()
    return file.media_type.rpartition("/")[2].rpartition("-")[2][:_LONGEST_ENDING].upper()


def kind(file: File) -> str:
    """Image, audio, video, text or application."""
    return file.media_type.partition("/")[0]


def count(number: int, what: str) -> str:
    """Such as 1 file, or 2 files."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def types(globs: Sequence[str]) -> str:
    """Such as Images, PDF: what these globs over media types let through."""
    return ", ".join(_TYPES.get(glob, glob) for glob in globs) or "Any"
