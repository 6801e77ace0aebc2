"""The bounds of a grant or a link, as forms ask for them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest
from spool.web.pages.html import tag

if TYPE_CHECKING:
    from datetime import datetime

    from spool.web.pages.html import Html

_SPANS: Final = {
    "1h": ("1 hour", timedelta(hours=1)),
    "1d": ("1 day", timedelta(days=1)),
    "3d": ("3 days", timedelta(days=3)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
    "90d": ("90 days", timedelta(days=90)),
    "365d": ("a year", timedelta(days=365)),
}
DEFAULT: Final = "7d"


def lasting(chosen: str = DEFAULT) -> Html:
    """The field `lasts`."""
    options = [tag("option", text, value=key, selected=key == chosen) for key, (text, _) in _SPANS.items()]
    return tag("select", *options, name="lasts", id="lasts")


def parse_lasting(value: str, now: datetime) -> str:
    """When that is over, as the JSON of a grant or a link has it. Raises BadRequest."""
    if value not in _SPANS:
        raise BadRequest("there is no such time to choose")
    return (now + _SPANS[value][1]).isoformat()


def parse_count(what: str, text: str, most: int) -> int | None:
    """How many, from 1 up; None if the field is empty. Raises BadRequest."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= most):  # noqa: PLR2004
        raise BadRequest(f"{what} is not a number from 1 to {most:,}")
    return int(text)
