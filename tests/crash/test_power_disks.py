"""A power cut on real file systems, under load: ext4 and xfs are shut down without their log, btrfs is copied as it is.

What these write out by themselves, and in which order, is theirs to choose: they forgive what the strict file system of
`test_power` does not, and do what that one cannot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from tests.crash.book import WAYS
from tests.crash.verdict import Verdict
from tests.crash.workload import History, work
from tests.process import EFFORT, Server, eventually, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CUTS: Final = 3 * EFFORT
STEPS: Final = 1000
"""More than a client can do before the cut."""
FIRST, LAST = 5, 80
"""The cut comes when so many answers have been given, at least and at most."""
SIZE: Final = 400 * 1024 * 1024  # xfs wants 300
MAKE: Final = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
OPTIONS: Final = {"ext4": "loop,commit=600", "xfs": "loop", "btrfs": "loop,commit=600"}
"""Left to themselves they are to write out as little as they can."""
SHUT_DOWN: Final = 0x8004587D  # _IOR('X', 125, u32): XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN
WITHOUT_LOG: Final = 2
ENVIRONMENT: Final = {"SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB"}


class Volume:
    """A file system in an image of its own, mounted at `point`."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.point = directory / "volume"
        self.image = directory / "image"
        if shutil.which(MAKE[kind][0]) is None:
            lacking(f"{MAKE[kind][0]} is not installed")
        self.point.mkdir(parents=True)
        with self.image.open("wb") as image:
            image.truncate(SIZE)
        subprocess.run([*MAKE[kind], str(self.image)], check=True, capture_output=True)

    def mount(self) -> None:
        command = ["mount", "-t", self.kind, "-o", OPTIONS[self.kind], str(self.image), str(self.point)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            lacking(f"cannot mount {self.kind} here: {mounted.stderr.strip()}")

    def unmount(self, *flags: str) -> None:
        """Also when a process that was just killed still has something open for a moment."""
        command = ["umount", *flags, str(self.point)]
        eventually(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0, 30)

    def cut(self, server: Server) -> None:
        """The power fails under the server: what was not written out is lost. The volume is mounted again."""
        if self.kind == "btrfs":  # it knows no shutdown
            server.signal(signal.SIGSTOP)
            left = self.image.with_name("left")
            subprocess.run(["cp", "--sparse=always", str(self.image), str(left)], check=True)
            server.kill()
            self.unmount()
            left.replace(self.image)
        else:
            # Stopped first: an fsync that is under way when the volume is shut down may return as if it had succeeded.
            server.signal(signal.SIGSTOP)
            eventually(server.stopped)
            fd = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.ioctl(fd, SHUT_DOWN, struct.pack("I", WITHOUT_LOG))
            finally:
                os.close(fd)
            server.kill()
            self.unmount()
        self.mount()


@contextmanager
def mounted(kind: str, directory: Path) -> Iterator[Volume]:
    volume = Volume(kind, directory)
    volume.mount()
    try:
        yield volume
    finally:
        if volume.point.is_mount():
            volume.unmount("--lazy")
        volume.image.unlink()


def run(kind: str, directory: Path, random: Random, way: dict[str, str]) -> Counter[str]:
    """One cut, and what the server is found to keep."""
    history, clock = History(), count(1).__next__
    with mounted(kind, directory) as volume:
        server = Server(volume.point / "data" / "spool", env={**ENVIRONMENT, **way})
        server.log_path = directory / "server.log"
        with ThreadPoolExecutor(1) as pool:
            with server:
                working = pool.submit(work, server, clock, history, steps=STEPS)
                enough = random.randint(FIRST, LAST)
                eventually(lambda: len(history.answers()) >= enough or working.done(), 60)
                assert not working.done(), working.result()
                volume.cut(server)
            assert True not in working.result(60)
        with server:
            return Verdict(server, history, clock()).judge()


@pytest.mark.parametrize("kind", sorted(MAKE))
def test_power_cut_on_a_real_file_system_breaks_no_promise(tmp_path: Path, kind: str) -> None:
    judged: Counter[str] = Counter()
    for number in range(CUTS):
        judged += run(kind, tmp_path / str(number), Random(f"{kind} {number}"), WAYS[number % 2])
    print(f"\n{kind}: {CUTS} cuts; judged: {dict(judged)}")  # noqa: T201  # the numbers are worth reading
    assert judged["acknowledged"] >= CUTS


@pytest.mark.parametrize("kind", sorted(MAKE))
def test_cut_loses_what_was_not_synced(tmp_path: Path, kind: str) -> None:
    """The cut is one: a test that power failed on a file system which keeps everything would show nothing."""
    with mounted(kind, tmp_path) as volume:
        with Server(volume.point / "spool", env=ENVIRONMENT) as server:
            (volume.point / "not-synced").write_bytes(b"bytes")
            with (volume.point / "synced").open("wb") as file:
                file.write(b"bytes")
                file.flush()
                os.fsync(file.fileno())
            (volume.point / "not-synced-either").write_bytes(b"bytes")
            volume.cut(server)
        assert (volume.point / "synced").read_bytes() == b"bytes"
        for name in ("not-synced", "not-synced-either"):
            try:
                assert (volume.point / name).read_bytes() != b"bytes"
            except OSError as error:
                assert error.errno == errno.ENOENT  # noqa: PT017
