"""The bars that the project has set itself, as ratios within one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Row, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Results

_NEITHER_HASHES_NOR_SYNCS = ("nginx", "tusd")


@dataclass(frozen=True)
class Bar:
    """What was measured, and what it may be."""

    text: str
    measured: float
    limit: float
    at_most: bool
    unit: str = "x"

    @property
    def kept(self) -> bool:
        """Whether it is reached."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    def __str__(self) -> str:
        """One line."""
        sign = "<=" if self.at_most else ">="
        word = "kept" if self.kept else "MISSED"
        return f"{word}: {self.text}: {self.measured:.2f} {self.unit} ({sign} {self.limit:g})"


class Table:
    """The rows of a run, by load and server."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def row(self, load: str, server: str) -> Row | None:
        """None if it was not measured."""
        if load not in self._results.samples:
            return None
        return next((row for row in rows(self._results, load) if row.server == server), None)

    def product(self, load: str) -> Row | None:
        """Spool's."""
        return self.row(load, "spool")

    def best_peer(self, load: str, without: tuple[str, ...] = _NEITHER_HASHES_NOR_SYNCS) -> Row | None:
        """The fastest."""
        if load not in self._results.samples:
            return None
        peers = [row for row in rows(self._results, load) if row.role == "peer" and row.server not in without]
        return peers[0] if peers else None

    def floor(self, load: str) -> Row | None:
        """The durable one."""
        return self.row(self._results.bases.get(load, load), "floor-durable")


def bars(results: Results) -> Iterator[Bar]:
    """Those whose loads were run."""
    table = Table(results)
    for load in ("1gib-form", "1gib-put"):
        yield from _against(f"{load}: CPU to floor-durable", table.product(load), table.floor(load), _cpu, 1.25)
        yield from _against(
            f"{load}: MB/s to floor-durable", table.product(load), table.floor(load), _rate, 0.85, at_most=False
        )
        yield from _ahead(load, table)
    for load in ("1gib-chunked", "1gib-unix", "1gib-tls"):
        yield from _against(f"{load}: CPU to floor-durable", table.product(load), table.floor(load), _cpu, 1.7)
    yield from _against("1mib: CPU to floor-durable", table.product("1mib"), table.floor("1mib"), _cpu, 1.4)
    yield from _ahead("1mib", table)
    yield from _concurrent(table)
    yield from _small(table)
    beside = table.product("commit-beside")
    if beside:
        yield Bar("commit-beside: p99", beside.p99, 30, at_most=True, unit="ms")
    yield from _downloads(table)
    yield from _alone(results)


def _cpu(row: Row) -> float:
    return row.cpu


def _rate(row: Row) -> float:
    return row.rate


def _against(  # noqa: PLR0913  # one bar is all of that
    text: str,
    ours: Row | None,
    theirs: Row | None,
    value: Callable[[Row], float],
    limit: float,
    *,
    at_most: bool = True,
) -> Iterator[Bar]:
    if ours and theirs and value(theirs):
        yield Bar(text, value(ours) / value(theirs), limit, at_most)


def _ahead(load: str, table: Table) -> Iterator[Bar]:
    best = table.best_peer(load)
    if best:
        text = f"{load}: rate to the best peer that is neither nginx nor tusd ({best.server})"
        yield from _against(text, table.product(load), best, _rate, 1, at_most=False)


def _concurrent(table: Table) -> Iterator[Bar]:
    many, one, slow = (table.product(load) for load in ("32x64mib", "1gib-form", "256-slow"))
    yield from _against("32x64mib: MB/s to one upload's", many, one, _rate, 0.9, at_most=False)
    if many:
        yield Bar("32x64mib: memory of each upload", many.each, 8, at_most=True, unit="MB")
    yield from _against("256-slow: CPU per GB to a fast one's", slow, one, _cpu, 2.5)


def _small(table: Table) -> Iterator[Bar]:
    for load in ("1kib-random", "1kib-text"):
        ours = table.product(load)
        for other, limit in (("floor-durable", 2), ("tusd", 2), ("naive-aiohttp", 3)):
            yield from _against(
                f"{load}: uploads/s to {other}", ours, table.row(load, other), _rate, limit, at_most=False
            )
        if ours:
            yield Bar(f"{load}: CPU of each", ours.cpu, 0.2, at_most=True, unit="ms")


def _downloads(table: Table) -> Iterator[Bar]:
    big, small = "download-1gib", "download-1kib"
    yield from _against(f"{big}: CPU to nginx", table.product(big), table.row(big, "nginx"), _cpu, 1.1)
    secured = table.product("download-1gib-tls")
    if secured:
        yield Bar("download-1gib-tls: CPU", secured.cpu, 1.2, at_most=True, unit="s/GB")
    naive = table.row(small, "naive-aiohttp")
    yield from _against(f"{small}: requests/s to naive-aiohttp", table.product(small), naive, _rate, 2, at_most=False)


_ALONE = {
    "page of 100, the worst of these, p99 ms": 10,
    "the longest transaction beside a sweep, CPU ms": 50,
    "the longest transaction beside fsck --repair, CPU ms": 50,
    "spool --help, ms": 150,
    "spool serve to its first answer, ms": 500,
}


def _alone(results: Results) -> Iterator[Bar]:
    for name, limit in _ALONE.items():
        if name in results.alone:
            yield Bar(name.rpartition(",")[0], results.alone[name], limit, at_most=True, unit="ms")
    for name, value in results.alone.items():
        if name.startswith("spool serve to its first answer at"):
            yield Bar(name.rpartition(",")[0], value, 2000, at_most=True, unit="ms")
    inserted = [value for name, value in results.alone.items() if name.startswith("insertions")]
    if len(inserted) == 2:
        yield Bar("insertions: rate at many files to that at a thousand", inserted[1] / inserted[0], 0.8, at_most=False)
