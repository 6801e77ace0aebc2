"""The work that every server is given. One run of it: a warm-up of the same kind, then what is measured.

The warm-up is not a courtesy: on a virtual machine, pages that nobody touched lately cost more than the upload. What
it stored is removed, so that the measured run gets its pages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from bench.clients import Failed, Many, curl, finish, stored
from bench.servers import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.servers import Running, Server, Way

Sample = dict[str, float]
"""seconds, bytes, requests, cpu (seconds), idle and peak (bytes of memory), active (uploads at once), p50_ms, p99_ms"""

MB, GB, KIB, MIB, GIB = 10**6, 10**9, 2**10, 2**20, 2**30


@dataclass
class Scene:
    """Where a run takes place."""

    running: Running
    source: Path
    """A large file of random bytes."""
    scale: float
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    """Of files: none comes twice to a server."""

    def block(self) -> int:
        """The first of many numbers."""
        return next(self.numbers) * 10**7

    def fresh(self) -> int:
        """A number, with which the source now begins: nobody can have its bytes already."""
        number = next(self.numbers)
        with self.source.open("r+b") as file:
            file.write(f"{number:016d}".encode())
        return number


@dataclass(frozen=True)
class Load:
    """One kind of work."""

    name: str
    title: str
    unit: Literal["MB/s", "/s"]
    """Of the rate; CPU then counts per GB or per request."""
    run: Callable[[Scene], Sample]
    fits: Callable[[Server], bool]
    environment: Callable[[Server, Path], Mapping[str, str]] = lambda _server, _work: {}
    base: str = ""
    """The load whose floors this one is compared with; its own without."""


def measured(running: Running, work: Callable[[], Mapping[str, Any]], *, settle: bool = True) -> Sample:
    """What `work` told, and what it cost the server."""
    if settle:
        _settle(running.dir)
    idle = running.memory("VmRSS")
    running.forget_peak()
    cpu, start = running.cpu(), time.monotonic()
    told = work()
    seconds = time.monotonic() - start
    cost = {"cpu": running.cpu() - cpu, "idle": idle, "peak": running.memory("VmHWM")}
    return {"seconds": seconds, **cost, **told}


def _settle(directory: Path) -> None:
    """Nothing waits to be written, and the pages of large files are free."""
    os.sync()
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.suffix != ".db" and path.is_file() and path.stat().st_size >= MIB:
                path.unlink()


def any_way(server: Server) -> Way:
    """By a form, or else as the server knows it. Raises Unusable."""
    way = server.form or server.raw
    if way is None:
        raise Unusable("takes no uploads")
    return way


def _raw_way(server: Server) -> Way:
    if server.raw is None:
        raise Unusable("takes forms only")
    return server.raw


def _path_way(server: Server) -> Way:
    """As the body, so that the path says where the file is and its bytes are no form; or else by a form."""
    return server.raw or any_way(server)


def one_upload(
    way_of: Callable[[Server], Way], *, chunked: bool = False, unix: bool = False
) -> Callable[[Scene], Sample]:
    """One large file by curl."""

    def run(scene: Scene) -> Sample:
        running, source = scene.running, scene.source
        way = way_of(running.server)
        plain = running.server.floor or not chunked  # the floor knows no chunks, and is the limit all the same

        def upload() -> dict[str, int]:
            arguments = way.curl(running.base, source, scene.fresh(), chunked=not plain)
            socket = ["--unix-socket", str(_socket(running))] if unix and running.server.unix else []
            curl(*socket, *arguments, source=None if plain else source)
            return {"bytes": source.stat().st_size, "requests": 1, "active": 1}

        upload()
        return measured(running, upload)

    return run


def _socket(running: Running) -> Path:
    return socket_path(running.dir.parent)


def socket_path(work: Path) -> Path:
    """Where a server listens that listens on a unix socket."""
    return work / "socket"


def many_uploads(many: Many) -> Callable[[Scene], Sample]:
    """Files by client.c, over many connections."""

    def run(scene: Scene) -> Sample:
        way = any_way(scene.running.server)
        warm = replace(many, seconds=many.seconds / 4, requests=max(many.connections, many.requests // 4), rate=0)
        warm.upload(scene.running, way, scene.block())

        def upload() -> dict[str, Any]:
            told = many.upload(scene.running, way, scene.block())
            return {**told, "bytes": told["requests"] * many.size, "active": many.connections}

        return measured(scene.running, upload)

    return run


def one_download(scene: Scene) -> Sample:
    """A large file by curl."""
    running = scene.running
    path = stored(running, _path_way(running.server), scene.source, scene.fresh())

    def download() -> dict[str, int]:
        curl("-o", "/dev/null", running.base + path)
        return {"bytes": scene.source.stat().st_size, "requests": 1, "active": 1}

    return measured(running, download, settle=False)


def many_downloads(many: Many) -> Callable[[Scene], Sample]:
    """A small file by client.c, again and again."""

    def run(scene: Scene) -> Sample:
        running = scene.running
        small = running.dir.parent / "small"
        small.write_bytes(os.urandom(KIB))
        path = stored(running, _path_way(running.server), small, next(scene.numbers))

        def download() -> dict[str, Any]:
            told = many.download(running, path)
            return {**told, "bytes": told["requests"] * KIB, "active": many.connections}

        replace(many, seconds=many.seconds / 4).download(running, path)
        return measured(running, download)

    return run


def commits_meanwhile(seconds: float) -> Callable[[Scene], Sample]:
    """Small files one after the other while a large one comes at 500 MB/s; the times are those of the small ones."""

    def run(scene: Scene) -> Sample:
        running = scene.running
        way, rate = any_way(running.server), 500 * MB
        large = Many(1, 1, seconds, int(rate * seconds), rate=rate)
        small = Many(1, 10**6, seconds * 0.6, KIB)
        small.upload(running, way, scene.block())

        def both() -> dict[str, Any]:
            beside = large.begin(running, way.request(large.size), scene.block())
            time.sleep(seconds * 0.2)
            if beside.poll() is not None:
                raise Failed("the large upload ended early")
            told = small.upload(running, way, scene.block())
            large_told = finish(beside)
            return {**told, "beside": large.size / large_told["seconds"] / MB, "active": 2}

        return measured(running, both)

    return run


def _has_raw(server: Server) -> bool:
    return server.raw is not None


def _unix(server: Server, work: Path) -> Mapping[str, str]:
    return server.unix(socket_path(work)) if server.unix else {}


def _tls(server: Server, work: Path) -> Mapping[str, str]:
    """With a certificate that is made once. Raises Unusable."""
    if server.tls is None:
        return {}
    certificate, key = work / "cert.pem", work / "key.pem"
    if shutil.which("openssl") is None:
        raise Unusable("there is no openssl to make a certificate")
    if not certificate.exists():
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench", "-days", "30"]
        command = ["openssl", "req", "-x509", *kind, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return server.tls(certificate, key)


def loads(scale: float) -> list[Load]:
    """All of them; `scale` shrinks what can be shrunk."""
    big = f"{scale:g} GiB"
    seconds = max(1.0, 6 * scale)
    part = max(1, int(64 * scale)) * MIB
    kib = {kind: many_uploads(Many(32, 10**6, seconds, KIB, kind)) for kind in ("random", "text")}
    slow = Many(256, 256, 600, int(4 * MB * 15 * scale / 256), rate=4 * MB / 256, segment=1460)
    mib = Many(8, max(16, int(512 * scale)), 600, MIB)
    side_by_side = Many(32, 32, 600, part)
    every = lambda _: True  # noqa: E731
    served = lambda server: server.locate is not None  # noqa: E731
    return [
        Load("1gib-form", f"{big} by multipart (curl -F)", "MB/s", one_upload(any_way), every),
        Load("1gib-put", f"{big} as the body (curl -T)", "MB/s", one_upload(_raw_way), _has_raw),
        Load(
            "1gib-chunked",
            f"{big} of unknown length (curl -T -)",
            "MB/s",
            one_upload(_raw_way, chunked=True),
            lambda server: _has_raw(server) and (server.chunked or server.floor),
            base="1gib-put",
        ),
        Load(
            "1gib-unix",
            f"{big} as the body through a unix socket; floors by TCP",
            "MB/s",
            one_upload(_raw_way, unix=True),
            lambda server: server.unix is not None or server.floor,
            environment=_unix,
            base="1gib-put",
        ),
        Load(
            "1gib-tls",
            f"{big} as the body by TLS; floors without",
            "MB/s",
            one_upload(_raw_way),
            lambda server: server.tls is not None or server.floor,
            environment=_tls,
            base="1gib-put",
        ),
        Load("1mib", "files of 1 MiB over 8 connections", "MB/s", many_uploads(mib), every),
        Load("32x64mib", f"32 uploads of {part // MIB} MiB at once", "MB/s", many_uploads(side_by_side), every),
        Load(
            "256-slow",
            "256 uploads at once, 4 MB/s in all, in segments of 1460 bytes",
            "MB/s",
            many_uploads(slow),
            every,
        ),
        Load("1kib-random", "files of 1 KiB, random, over 32 connections", "/s", kib["random"], every),
        Load("1kib-text", "files of 1 KiB, text, over 32 connections", "/s", kib["text"], every),
        Load(
            "commit-beside",
            "files of 1 KiB, one by one, beside an upload at 500 MB/s",
            "/s",
            commits_meanwhile(seconds),
            every,
        ),
        Load("download-1gib", f"download of {big}", "MB/s", one_download, served),
        Load(
            "download-1gib-tls",
            f"download of {big} by TLS",
            "MB/s",
            one_download,
            lambda server: server.tls is not None,
            environment=_tls,
        ),
        Load(
            "download-1kib",
            "downloads of 1 KiB over 32 connections",
            "/s",
            many_downloads(Many(32, 10**6, seconds, 0)),
            served,
        ),
    ]
