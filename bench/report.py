"""Results as JSON, as tables for people, and as doc/performance.md with its plot."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from html import escape
from typing import TYPE_CHECKING, Final

from bench.bars import bars
from bench.measure import Results, Row, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BEGIN: Final = "<!-- made by `make bench`: from here -->"
_END: Final = "<!-- made by `make bench`: to here -->"
_PLOTTED: Final = ("1gib-form", "1kib-random")
_COLOURS: Final = {"product": "#0a6ebd", "floor": "#8a8a8a", "peer": "#c9b27c"}


def save(results: Results, path: Path) -> None:
    """The results, with every sample."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1) + "\n")


def load(path: Path) -> Results:
    """What `save` wrote."""
    known = {field.name for field in fields(Results)}
    return Results(**{name: value for name, value in json.loads(path.read_text()).items() if name in known})


def lines(results: Results) -> Iterator[str]:
    """All of it, for a terminal or a document."""
    for name in results.samples:
        yield from _section(results, name)
    if results.alone:
        yield from ["### Spool alone", "", "| what | measured |", "| --- | ---: |"]
        for what, value in results.alone.items():
            label, _, unit = what.rpartition(", ")
            yield f"| {label or what} | {value:,.1f}{' ' + unit if label else ''} |"
        yield ""
    yield from ["### Bars", ""]
    yield from (f"- {bar}" for bar in bars(results))
    yield ""
    for server, reason in results.unusable.items():
        yield f"- Not measured: {server}, {reason}."


def _section(results: Results, name: str) -> Iterator[str]:
    unit = results.units[name]
    found = rows(results, name)
    base = rows(results, results.bases[name]) if results.bases[name] in results.samples else found
    floors = {row.server: row for row in base if row.role == "floor"}
    best = next((row for row in found if row.role == "peer"), None)
    cpu = "CPU s/GB" if unit == "MB/s" else "CPU ms each"
    times = any(row.p99 for row in found)
    yield from [f"### {results.titles[name]}", ""]
    head = ["server", unit, cpu, "peak MB", "rate / CPU to floor", "to floor-durable", "to the fastest peer"]
    head += ["p50 ms", "p99 ms"] if times else []
    yield "| " + " | ".join(head) + " |"
    yield "| --- " + "| ---: " * (len(head) - 1) + "|"
    for row in found:
        compared = [_ratios(row, floors.get("floor")), _ratios(row, floors.get("floor-durable")), _ratios(row, best)]
        cells = [_name(row), f"{row.rate:,.0f}", f"{row.cpu:.2f}", f"{row.peak:.0f}", *compared]
        cells += [f"{row.p50:.1f}", f"{row.p99:.1f}"] if times else []
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for server, reason in results.failed.get(name, {}).items():
        yield f"{server} failed: {' '.join(reason.split())[:160]}"
        yield ""


def _name(row: Row) -> str:
    return f"**{row.server}**" if row.role == "product" else row.server


def _ratios(row: Row, other: Row | None) -> str:
    if other is None or not other.rate or not other.cpu:
        return "-"
    return f"{row.rate / other.rate:.2f} / {row.cpu / other.cpu:.2f}"


def write_document(results: Results, document: Path) -> None:
    """The generated part of the document is that of these results, and so is the plot beside it."""
    plot = document.with_suffix(".svg")
    plot.write_text(svg(results))
    about = [
        _BEGIN,
        "",
        f"`{results.command}` on {results.date}, on {results.machine}.",
        f"Medians of {results.rounds} rounds. The load average before each load was {_range(results.busy)}.",
        "",
        *(f"- {server}: {versions}" for server, versions in results.versions.items() if versions),
        "",
        f"![CPU and rate of each server]({plot.name})",
        "",
    ]
    part = "\n".join([*about, *lines(results), "", _END])
    text = document.read_text()
    document.write_text(re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: part, text, flags=re.DOTALL))


def _range(values: Sequence[float]) -> str:
    return f"{min(values, default=0):.1f} to {max(values, default=0):.1f}"


def svg(results: Results) -> str:
    """Bars of the rates: one panel for each of the loads that say most."""
    panels = [name for name in _PLOTTED if name in results.samples] or list(results.samples)[:2]
    drawn: list[str] = []
    top = 10
    for name in panels:
        found = rows(results, name)
        drawn += _panel(f"{results.titles[name]}, {results.units[name]}", found, top)
        top += 40 + 20 * len(found)
    style = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}"
    background = f'<rect width="720" height="{top}" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{top}" viewBox="0 0 720 {top}">'
    return "\n".join([head, f"<style>{style}</style>", background, *drawn, "</svg>", ""])


def _panel(title: str, found: Sequence[Row], top: int) -> Iterator[str]:
    most = max((row.rate for row in found), default=1)
    yield f'<text class="title" x="10" y="{top + 12}">{escape(title)}</text>'
    for number, row in enumerate(found):
        y = top + 22 + 20 * number
        width = 440 * row.rate / most
        yield f'<text x="140" y="{y + 12}" text-anchor="end">{escape(row.server)}</text>'
        yield f'<rect x="146" y="{y}" width="{width:.1f}" height="15" fill="{_COLOURS[row.role]}"/>'
        yield f'<text x="{152 + width:.1f}" y="{y + 12}">{row.rate:,.0f} ({row.cpu:.2f})</text>'
