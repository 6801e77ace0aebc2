from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, Unavailable
from spool.store.local.layout import Layout, scan

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
