"""The description as a page: HTML without scripts, and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from typing import TYPE_CHECKING, Final

from spool.web.api.document import ABOUT
from spool.web.api.refusals import meaning, refusals
from spool.web.api.terms import ANYWHERE, GUARD, At
from spool.web.problems import all_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spool.errors import SpoolError
    from spool.web.api.refusals import Refusal
    from spool.web.api.terms import Answer, Field, Group, Operation

_STYLE: Final = """
:root { color-scheme: light dark; --dim: color-mix(in srgb, currentColor 65%, transparent) }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h2 { margin-top: 3rem; border-bottom: 1px solid }
h3 { margin: 2rem 0 0; font-size: 1.1rem }
h4 { margin: .8rem 0 0; font-size: .9rem }
p { margin: .3rem 0 }
code { font: .95em/1.4 ui-monospace, monospace }
ul { margin: 0; padding-left: 1.2rem }
nav ul { columns: 20rem; list-style: none; padding: 0 }
a:focus-visible { outline: 3px solid }
.dim { color: var(--dim) }
"""
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy under which the page works."""
_ACCESS: Final = {
    "public": "Open to everybody.",
    "any scope": "Any token.",
    "read or signature": "Scope `read`, or a signed address.",
    "guest": "Whoever has the address, and knows the pass phrase if there is one.",
    "link": "Whoever has the address.",
}


def render(groups: Sequence[Group]) -> str:
    """The whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Spool</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><header><h1>Spool</h1>{_p(ABOUT)}"
        f'<p>As a document for programs: <a href="/openapi.json">/openapi.json</a></p></header>\n'
        f'<nav aria-label="Operations"><ul>{"".join(map(_entry, _operations(groups)))}'
        f'<li><a href="#problems">Problems</a></li></ul></nav>\n'
        f"<main>{''.join(map(_group, groups))}"
        f'<section><h2 id="problems">Problems</h2>{_everywhere()}{"".join(map(_problem, all_problems()))}</section>'
        f"</main></body></html>\n"
    )


def _operations(groups: Iterable[Group]) -> list[Operation]:
    return [operation for group in groups for operation in group.operations]


def _inline(text: str) -> str:
    """The text with what stands between backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _p(text: str) -> str:
    return f"<p>{_inline(text)}</p>" if text else ""


def _list(title: str, items: Sequence[str]) -> str:
    return f"<h4>{title}</h4><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>\n" if items else ""


def _name(operation: Operation) -> str:
    return f"<code>{escape(operation.method)} {escape(operation.path)}</code>"


def _entry(operation: Operation) -> str:
    return f'<li><a href="#{escape(operation.id)}">{_name(operation)}</a></li>\n'


def _group(group: Group) -> str:
    operations = "".join(map(_operation, group.operations))
    return f"<section><h2>{escape(group.name)}</h2>{_p(group.text)}{operations}</section>\n"


def _operation(operation: Operation) -> str:
    title = f'<article><h3 id="{escape(operation.id)}">{_name(operation)}</h3>{_p(operation.summary + ".")}'
    if operation.like:
        return f'{title}<p>See <a href="#{escape(operation.like)}">{escape(operation.like)}</a>.</p></article>\n'
    access = _ACCESS.get(operation.access, f"Scope `{operation.access}`.")
    return (
        f"{title}{_p(operation.text)}{_p(access)}"
        f"{_list('Parameters', [_field(field) for field in operation.parameters])}"
        f"{_list('Body', _body(operation))}"
        f"{_list('Answers', [*map(_answer, operation.answers), *_refusals(operation)])}</article>\n"
    )


def _field(field: Field) -> str:
    needed = ", required" if field.required else ""
    return f'<code>{escape(field.name)}</code> <span class="dim">{field.place}{needed}</span> {_inline(field.text)}'


def _body(operation: Operation) -> list[str]:
    if operation.body is None:
        return []
    text = f" {_inline(operation.body.text)}" if operation.body.text else ""
    return [f"<code>{escape(media_type)}</code>{text}" for media_type in operation.body.content]


def _answer(answer: Answer) -> str:
    content = "".join(f" <code>{escape(media_type)}</code>" for media_type in answer.content or ())
    headers = ", ".join(f"<code>{escape(field.name)}</code>" for field in answer.headers)
    return f"<code>{answer.status}</code> {_inline(answer.text)}{content}" + (f" With {headers}." if headers else "")


def _refusals(operation: Operation) -> list[str]:
    """Its own problems: those that all have in common are told of once."""
    own = {raised.kind if isinstance(raised, At) else raised for raised in operation.raises}
    found = {status: [each for each in all_ if each.kind in own] for status, all_ in refusals(operation).items()}
    return [
        f"<code>{status}</code> {', '.join(map(_to_problem, refused))}" for status, refused in found.items() if refused
    ]


def _to_problem(refusal: Refusal) -> str:
    return f'<a href="#{escape(refusal.kind.slug)}">{escape(refusal.kind.slug)}</a>'


def _everywhere() -> str:
    anywhere, guard = (", ".join(f"`{kind.slug}`" for kind in kinds) for kinds in (ANYWHERE, GUARD))
    return _p(f"Every operation may answer {anywhere}; and each that asks for a scope, {guard}.")


def _problem(kind: type[SpoolError]) -> str:
    again = "" if kind.retry_after is None else f" <code>Retry-After: {kind.retry_after}</code>"
    title = f'<h3 id="{escape(kind.slug)}"><code>{escape(kind.slug)}</code>, {kind.status}</h3>'
    return f"{title}<p>{_inline(meaning(kind))}{again}</p>\n"
