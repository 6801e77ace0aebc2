"""A power cut at any moment, on a disk that keeps only what was synced: every promise holds on what is left."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.crash.book import WAYS
from tests.crash.disk import ROOT, Disk, Operation
from tests.crash.strictfs import recorded
from tests.crash.verdict import Verdict, unaccounted
from tests.crash.workload import CLIENTS, History, work
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CUTS: Final = 26 * EFFORT
STEPS: Final = 12
ENVIRONMENT: Final = {"SPOOL_STORAGE_SWEEP_INTERVAL": "1s"}
KILLS: Final = 4 * EFFORT
FIRST_CUTS: Final = 3 * EFFORT
SECOND_CUTS: Final = 2
RARE: Final = 20
SHARED: Final = 3  # cuts judged at once


class Cut(NamedTuple):
    """What it is next to, where it is, and whether a random part of what was not synced is left as well."""

    kind: str
    at: int
    torn: bool


def boundaries(operations: Sequence[Operation]) -> Iterator[tuple[str, int]]:
    """Every name given or taken and every sync, by what it is of."""
    names, homes = {ROOT: "/"}, {ROOT: ROOT}
    for place, (kind, inode, directory, name, _) in enumerate(operations):
        if kind in ("create", "mkdir", "link"):
            names[inode], homes[inode] = name, directory
        if kind not in ("write", "truncate", "setxattr", "removexattr", "tmpfile"):
            yield f"{kind} {_noun(names.get(inode), names.get(directory or homes.get(inode, 0)))}", place


def _noun(name: str | None, home: str | None) -> str:
    """What it is: all shards are one kind, and so are all blobs, staged or live."""
    if home == "blobs":
        return "shard"
    if name is None or home == "incoming":
        return "staged blob"
    return "live blob" if home is not None and len(home) == 2 else name


def commits(operations: Sequence[Operation]) -> Iterator[int]:
    """The syncs of the index's log that come next after blobs have become live: those record files."""
    live = False
    for kind, place in boundaries(operations):
        if live and kind == "fdatasync index.db-wal":
            yield place
        live = kind == "fsyncdir shard" or (live and kind != "fdatasync index.db-wal")


def around(operations: Sequence[Operation]) -> list[Cut]:
    """Cuts just before and after each boundary. Before it a cut is torn: otherwise it is that after the one before."""
    cuts: dict[Cut, None] = {}
    for kind, place in boundaries(operations):
        near = (Cut(kind, place + 1, torn=False), Cut(kind, place, torn=True), Cut(kind, place + 1, torn=True))
        cuts.update(dict.fromkeys(near))
    return list(cuts)


def choose(operations: Sequence[Operation], answers: Sequence[int], most: int, random: Random) -> list[Cut]:
    """At most `most` cuts: half of them when a client was just told something, half before or after boundaries.

    Of the boundaries as many of each kind are chosen, and those first that come often: a start has many that come once.
    """
    told = [Cut("answer", at, torn) for at in {*answers} for torn in (False, True)]
    kinds: defaultdict[str, list[Cut]] = defaultdict(list)
    for cut in around(operations):
        kinds[cut.kind].append(cut)
    queues = [random.sample(cuts, len(cuts)) for cuts in kinds.values()]
    random.shuffle(queues)
    queues.sort(key=lambda queue: len(queue) < RARE)
    rest = [cut for round_ in zip_longest(*queues) for cut in round_ if cut is not None]
    chosen = random.sample(told, min(len(told), most // 2))
    return chosen + rest[: most - len(chosen)]


def record(directory: Path, *flags: str) -> tuple[History, list[Operation]]:
    """Two lives of a server, from its first start on: the first ends as it should, the second with the power.

    In one of them it keeps small files in the index.
    """
    history = History()
    with recorded(directory, *flags) as recording:
        for life, way in zip("12", WAYS[::-1] if flags else WAYS, strict=True):
            server = Server(recording.point / "data" / "spool", env={**ENVIRONMENT, **way})
            server.log_path = directory / "server.log"
            with server:
                done = work(server, recording.clock, history, steps=STEPS // 2, prefix=life)
                assert done == [True] * CLIENTS, server.log()[-2000:]
                if life == "1":
                    server.stop()
    return history, recording.operations


def judge(
    directory: Path, history: History, operations: Sequence[Operation], cut: Cut, end: int | None = None
) -> Counter[str]:
    """A server's start on what the cut leaves, and what it is found to keep.

    The clients' history ends with the cut, or at `end`.
    """
    place = directory / f"{cut.kind.replace('/', 'root')} {cut.at} {'torn' if cut.torn else 'strict'}"
    Disk(operations[: cut.at]).lay_out(place, Random(cut.at) if cut.torn else None)
    server = Server(place / "data" / "spool")
    server.log_path = directory / f"{place.name}.log"
    try:
        with server:
            counts = Verdict(server, history, cut.at if end is None else end).judge()
    except Exception as error:
        error.add_note(f"after a cut at {cut}; the server said:\n{server.log()[-3000:]}")
        raise
    shutil.rmtree(place)
    return counts


@pytest.mark.parametrize("flags", [(), ("--named",)], ids=["nameless", "named"])
def test_power_cut_breaks_no_promise(tmp_path: Path, flags: tuple[str, ...]) -> None:
    history, operations = record(tmp_path, *flags)
    answers = history.answers()
    cuts = choose(operations, answers, CUTS, Random(8))
    with ThreadPoolExecutor(SHARED) as pool:
        judged = list(pool.map(lambda cut: judge(tmp_path, history, operations, cut), cuts))
    places = Counter(kind for kind, _ in boundaries(operations)) + Counter(answer=len({*answers}))
    tried = Counter(cut.kind for cut in cuts)
    lines = [f"{kind:20} {tried[kind]:5} of {places[kind]:5}" for kind in sorted(places)]
    torn = sum(cut.torn for cut in cuts)
    report = [f"{len(cuts)} cuts, {torn} torn, in {len(operations)} operations; of each kind:", *lines]
    print("", *report, f"judged: {dict(sum(judged, Counter()))}", sep="\n")  # noqa: T201  # worth reading


def test_power_cut_during_recovery_breaks_no_promise(tmp_path: Path) -> None:
    history, operations = record(tmp_path)
    for number, first in enumerate(choose(operations, history.answers(), FIRST_CUTS, Random(10))):
        directory = tmp_path / f"recovery {number}"
        directory.mkdir()
        before = [*operations[: first.at], Operation("cut", ROOT)]
        with recorded(directory, before=before) as recording:
            server = Server(recording.point / "data" / "spool")
            server.log_path = directory / "recovery.log"
            with server:
                eventually(lambda server=server: not unaccounted(server))
        recovering = [cut for cut in around(recording.operations) if cut.at > len(before)]
        for cut in Random(first.at).sample(recovering, SECOND_CUTS):
            judge(directory, history, recording.operations, cut, first.at)


def test_power_cut_after_a_kill_takes_nothing_that_was_seen_in_between(tmp_path: Path) -> None:
    """What a killed server had written, but not synced, the next one finds and shows: it has to sync it first."""
    _, operations = record(tmp_path)
    places = list(commits(operations))
    for place in Random(9).sample(places, min(KILLS, len(places))):
        directory = tmp_path / str(place)
        directory.mkdir()
        with recorded(directory, before=operations[:place]) as recording:
            server = Server(recording.point / "data" / "spool")
            server.log_path = directory / "between.log"
            with server:
                seen, at = server.files(), recording.clock()
        Disk(recording.operations[:at]).lay_out(directory / "left")
        with Server(directory / "left" / "data" / "spool") as server:
            left = {(file["id"], file["sha256"]) for file in server.files()}
            assert {(file["id"], file["sha256"]) for file in seen} <= left, f"a kill before {place}"
