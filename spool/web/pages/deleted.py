"""What was deleted and can still be brought back, as a part of the list's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.web.pages import words
from spool.web.pages.html import tag
from spool.web.pages.layout import action
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp import web

    from spool.hiding import Hidden
    from spool.web.pages.html import Html

_MOST: Final = 100
"""Files that are shown: once they are brought back, others are."""


async def section(request: web.Request) -> Html | None:
    """For those who may delete: what was, with the way back. None if there is nothing."""
    found = await request.app[SITE].catalog.hidden(_MOST)
    if not found:
        return None
    ids = [tag("input", type="hidden", name="id", value=hidden.file.id) for hidden in found]
    all_ = tag("form", *ids, tag("button", "Undo all"), method="post", action=action(request, "/undo"))
    return tag(
        "details",
        tag("summary", f"Recently deleted ({len(found)})"),
        tag("ul", *(_row(request, hidden) for hidden in found), aria_label="Deleted files"),
        all_ if len(found) > 1 else None,
        id="deleted",
        data_ids=" ".join(hidden.file.id for hidden in found),
    )


def _row(request: web.Request, hidden: Hidden) -> Html:
    file = hidden.file
    undo = tag("button", "Undo", aria_label=f"Undo the deletion of {file.filename}")
    final = tag(
        "button", "Delete now", name="final", value="1", formaction=action(request, "/delete"), class_="danger",
        aria_label=f"Delete now {file.filename}",
    )  # fmt: skip
    form = tag(
        "form",
        tag("input", type="hidden", name="id", value=file.id),
        tag("input", type="hidden", name="confirmed", value="1"),
        undo,
        final,
        method="post",
        action=action(request, "/undo"),
    )
    about = tag("p", words.size(file.size), " · until ", words.time(hidden.until), class_="dim")
    return tag("li", tag("div", tag("span", file.filename, class_="name"), about, class_="about"), form)
