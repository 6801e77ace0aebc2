"""`python -m bench`: see `--help`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import alone, report
from bench.loads import Load, loads
from bench.measure import Results, clear, measure, source_file, usable
from bench.peers import servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.servers import Server

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "doc" / "performance.md"
_ALONE = ("start", "grown")


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.report:
        results = report.load(options.report)
    else:
        results = _measure(options, shlex.join(["python", "-m", "bench", *arguments]))
        report.save(results, _HERE / "results" / "last.json")
        print("\n".join(["", *report.lines(results)]))
    if options.write_doc:
        report.write_document(results, _DOCUMENT)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = [load.name for load in loads(1)] + list(_ALONE)
    peers = [server.name for server in servers()]
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--only", type=_one_of(names), default=names, help="loads: " + ",".join(names))
    parser.add_argument("--peers", type=_one_of(peers), default=peers, help="servers: " + ",".join(peers))
    parser.add_argument("--rounds", type=int, default=3, help="of each load (default: 3)")
    parser.add_argument("--scale", type=float, default=1, help="shrinks the work, such as 0.1 (default: 1)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="files in the index of `grown` (default: 1000000)")
    parser.add_argument("--dir", type=Path, default=_HERE / ".work", help="where files go: on the disk to be measured")
    parser.add_argument("--write-doc", action="store_true", help="put the results into doc/performance.md")
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing, take these results")
    return parser.parse_args(arguments)


def _one_of(known: Sequence[str]) -> type[list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
        return chosen

    return parse  # type: ignore[return-value]


def _measure(options: argparse.Namespace, command: str) -> Results:
    results = Results(command, scale=options.scale, rounds=options.rounds)
    work: Path = options.dir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    chosen = [load for load in loads(options.scale) if load.name in options.only]
    try:
        found = usable([server for server in servers() if server.name in options.peers], work, results)
        _measure_loads(chosen, found, work, results)
        for server in found:
            if server.product:
                _measure_alone(server, work, options, results)
    except KeyboardInterrupt:
        print("interrupted: what was measured so far follows", file=sys.stderr)
    finally:
        clear(work)
    return results


def _measure_loads(chosen: Sequence[Load], found: Sequence[Server], work: Path, results: Results) -> None:
    if not chosen:
        return
    source = source_file(work, results.scale)
    for load in chosen:
        measure(load, found, work, results, source)
        report.save(results, _HERE / "results" / "last.json")


def _measure_alone(server: Server, work: Path, options: argparse.Namespace, results: Results) -> None:
    notes = [alone.starts(server, work)] if "start" in options.only else []
    if "grown" in options.only:
        notes.append(alone.grown(server, work, options.rows))
    for note in (note for step in notes for note in step):
        print(*(f"{name}: {value:.1f}" for name, value in note.items()), sep="\n", flush=True)
        results.alone.update(note)


sys.exit(main(sys.argv[1:]))
