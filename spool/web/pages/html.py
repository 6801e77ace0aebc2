"""HTML by functions. Text that is not Html is escaped wherever it is put, so that no page can forget to."""

from __future__ import annotations

from html import escape
from typing import Final


class Html(str):
    """Markup that is safe as it stands: made by `tag` alone."""

    __slots__ = ()


Node = str | None
"""Html as it is, any other text escaped, None left out."""
Attribute = str | int | bool | None

_VOID: Final = ("input", "link", "meta", "img", "br", "hr")


def tag(name: str, /, *children: Node, **attributes: Attribute) -> Html:
    """An element. `class_` is written class, `a_b` a-b; True stands alone, False and None are not written."""
    head = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    return Html(f"<{head}>" if name in _VOID else f"<{head}>{join(*children)}</{name}>")


def join(*nodes: Node) -> Html:
    """One after the other."""
    return Html("".join(node if isinstance(node, Html) else escape(node) for node in nodes if node is not None))


def document(*children: Node, language: str = "en") -> str:
    """A whole page."""
    return f"<!DOCTYPE html>\n{tag('html', *children, lang=language)}\n"


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
