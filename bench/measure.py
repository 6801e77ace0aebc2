"""Rounds of every load over every server in turn, and what comes of them."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.clients import Failed, compiled
from bench.loads import GB, GIB, MB, Scene
from bench.peers import install
from bench.servers import Unusable, started

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.loads import Load, Sample
    from bench.servers import Server


def describe_machine() -> str:
    """Processor, cores, memory, kernel and Python."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("model name"):
                model = " ".join(line.partition(":")[2].split())
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    kernel = platform.release().partition("-")[0]
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {kernel}, Python {python}"


@dataclass
class Results:
    """All that was measured, as it goes into JSON."""

    command: str
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    machine: str = field(default_factory=describe_machine)
    busy: list[float] = field(default_factory=list)
    """How many processes wanted to run before the start of each load (the load average of one minute)."""
    scale: float = 1
    rounds: int = 0
    titles: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    """`product`, `floor` or `peer`, by server."""
    versions: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    """Servers that cannot start, and why."""
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    """Why, by load and server."""
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    """Of each round, by load and server."""
    alone: dict[str, float] = field(default_factory=dict)
    """What was measured of Spool only, each with its unit in its name."""


def usable(servers: Sequence[Server], work: Path, results: Results) -> list[Server]:
    """Those that start; the others are noted with the reason."""
    found = []
    for server in servers:
        try:
            results.versions[server.name] = install(server.name)
            with started(server, work):
                found.append(server)
        except (Unusable, OSError, subprocess.SubprocessError) as error:
            results.unusable[server.name] = str(error)
            print(f"{server.name} cannot start: {error}", flush=True)
        role = "product" if server.product else "floor" if server.floor else "peer"
        results.roles[server.name] = role
    return found


def measure(load: Load, servers: Sequence[Server], work: Path, results: Results, source: Path) -> None:
    """The rounds of one load, every second one in the opposite order."""
    compiled("client")
    results.titles[load.name], results.units[load.name] = load.title, load.unit
    results.bases[load.name] = load.base or load.name
    results.busy.append(os.getloadavg()[0])
    fitting = [server for server in servers if load.fits(server)]
    samples, failed = results.samples.setdefault(load.name, {}), results.failed.setdefault(load.name, {})
    for number in range(results.rounds):
        for server in fitting if number % 2 == 0 else fitting[::-1]:
            if server.name in failed:
                continue
            start = time.monotonic()
            try:
                with started(server, work, environment=load.environment(server, work)) as running:
                    sample = load.run(Scene(running, source, results.scale))
            except (Failed, Unusable, OSError, subprocess.SubprocessError) as error:
                failed[server.name] = str(error)[:300]
                print(f"{load.name}: {server.name} failed: {str(error)[:300]}", flush=True)
                continue
            samples.setdefault(server.name, []).append(sample)
            rate, cpu = rate_of(sample, load.unit), cpu_of(sample, load.unit)
            took = time.monotonic() - start
            print(
                f"{load.name} {number + 1} {server.name:18} {rate:9.1f} {load.unit:5} {cpu:8.3f} ({took:.0f} s)",
                flush=True,
            )


def rate_of(sample: Sample, unit: str) -> float:
    """MB/s, or requests a second."""
    return sample["bytes"] / MB / sample["seconds"] if unit == "MB/s" else sample["requests"] / sample["seconds"]


def cpu_of(sample: Sample, unit: str) -> float:
    """Seconds per GB, or milliseconds per request."""
    return sample["cpu"] / (sample["bytes"] / GB) if unit == "MB/s" else 1e3 * sample["cpu"] / sample["requests"]


@dataclass(frozen=True)
class Row:
    """A server under a load: medians over the rounds."""

    server: str
    role: str
    rate: float
    cpu: float
    peak: float
    """MB."""
    each: float
    """MB above what it had at rest, for each upload at once."""
    p50: float
    p99: float
    """ms; 0 where there is one request only."""
    beside: float


def rows(results: Results, load: str) -> list[Row]:
    """Those of one load, fastest first."""
    unit = results.units[load]

    def row(server: str, samples: list[Sample]) -> Row:
        def median(value: Callable[[Sample], float]) -> float:
            return statistics.median(map(value, samples))

        return Row(
            server,
            results.roles[server],
            median(lambda s: rate_of(s, unit)),
            median(lambda s: cpu_of(s, unit)),
            median(lambda s: s["peak"] / MB),
            median(lambda s: (s["peak"] - s["idle"]) / MB / s["active"]),
            median(lambda s: s.get("p50_ms", 0)),
            median(lambda s: s.get("p99_ms", 0)),
            median(lambda s: s.get("beside", 0)),
        )

    found = [row(server, samples) for server, samples in results.samples.get(load, {}).items()]
    return sorted(found, key=lambda row: -row.rate)


def source_file(work: Path, scale: float) -> Path:
    """A file of random bytes, of `scale` GiB."""
    path, size = work / "source.bin", int(scale * GIB)
    if not path.exists() or path.stat().st_size != size:
        work.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, MB):
                file.write(os.urandom(min(MB, size - start)))
    return path


def clear(work: Path) -> None:
    """Nothing that was made for the measurements is left."""
    shutil.rmtree(work, ignore_errors=True)
