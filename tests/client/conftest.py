from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client.command import Home
from tests.client.proxy import Proxy
from tests.process import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "spool") as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Home:
    """Knows the server."""
    return Home(tmp_path / "home", SPOOL_URL=server.url)


@pytest.fixture
def far(proxy: Proxy, tmp_path: Path) -> Home:
    """Knows the server by the proxy only."""
    return Home(tmp_path / "home", SPOOL_URL=proxy.url)
