from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.container.podman import Container, Podman, Unusable, build, find_podman

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def podman() -> Podman:
    try:
        return find_podman()
    except Unusable as error:
        if os.environ.get("SPOOL_TEST_REQUIRE_ALL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tag = f"localhost/spool-test:{os.getpid()}"
    build(podman, tag, tmp_path_factory.mktemp("pip"))
    yield tag
    podman.try_run("rmi", "--force", tag)


@pytest.fixture
def container(podman: Podman, image: str) -> Iterator[Container]:
    with Container(podman, image, f"spool-test-{os.getpid()}") as running:
        yield running
