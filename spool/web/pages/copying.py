"""Addresses that people copy: what is told once, and buttons that do nothing without a script and so are not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.web.pages.html import tag

if TYPE_CHECKING:
    from spool.model import File
    from spool.web.pages.html import Html


def copy_link(file: File) -> Html | None:
    """A button that makes a link to the file and copies it."""
    if file.damage is not None:
        return None
    name = f"Copy link to {file.filename}"
    return tag("button", "Copy link", type="button", class_="live-only", data_link=file.id, aria_label=name)


def told_once(address: str, name: str) -> Html:
    """An address that nobody is told again."""
    field = tag(
        "input", id="address", value=address, readonly=True, aria_label=name, autocomplete="off", spellcheck="false"
    )
    copy = tag("button", "Copy", type="button", class_="live-only primary", data_copy="address")
    return tag("div", field, copy, class_="address")
