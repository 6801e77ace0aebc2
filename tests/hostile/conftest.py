from __future__ import annotations

import resource

import pytest


@pytest.fixture(scope="session", autouse=True)
def many_descriptors() -> None:
    """As many as the system allows, for the clients of these tests."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
