from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "spool") as running:
        yield running
