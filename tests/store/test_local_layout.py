from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, Unavailable
from spool.store.local.layout import Layout, scan
from tests.process import strace

from .blobstore_suite import KEY

if TYPE_CHECKING:
    from pathlib import Path


def test_scan_tells_all_whoever_else_reads_the_directory(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for number in range(10):
        (tmp_path / str(number)).touch()
        with os.scandir(folder) as other:
            next(other)
            assert len(scan(folder, "")) == number + 1
    os.close(folder)


def test_link_of_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path, nameless=False)
    (tmp_path / "incoming" / KEY).write_bytes(b"data")
    with pytest.raises(Unavailable):
        layout.link(KEY, 3)
    with pytest.raises(NotFound):
        layout.read(KEY, staged=False)
    layout.close()


def test_store_does_without_nameless_files_that_cannot_get_a_name(tmp_path: Path) -> None:
    program = f"from spool.store.local.layout import *; print(Layout(Path({str(tmp_path)!r}), nameless=True).nameless)"
    command = [sys.executable, "-c", f"from pathlib import Path; {program}"]
    found = [
        subprocess.run([*prefix, *command], capture_output=True, check=True, text=True, timeout=60).stdout.strip()
        for prefix in ([], strace("linkat", "error=EXDEV"))
    ]
    assert found == ["True", "False"]
