"""deploy/compose.yaml as it stands, brought up by podman-compose: Spool, and nginx in front of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.container.podman import BUILD_TIMEOUT, ROOT, START_TIMEOUT, wait_until
from tests.e2e.test_proxy import certify
from tests.process import curl, free_port

if TYPE_CHECKING:
    from tests.container.podman import Podman
    from tests.process import Answer

FILE = ROOT / "deploy" / "compose.yaml"
NGINX: str = yaml.safe_load(FILE.read_text())["services"]["proxy"]["image"]
USER = 10001
RECOVERY_TIMEOUT = 150.0
"""Seconds; of these nginx may wait for 40 until the kernel asks anew who has an address, and the rest is for load."""


class Composition:
    """Both containers, on a free port of the loopback interface; gone, with all that they had, at the end."""

    def __init__(self, podman: Podman, image: str, directory: Path) -> None:
        self.podman = podman
        self.project = f"spool-test-compose-{os.getpid()}"
        self._image = image
        self._tls = directory / "tls"
        self._added = [f"localhost/{self.project}_spool"]
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._environ = {
            **podman.environ,
            "PUBLIC_URL": self.url,
            "PUBLISH": f"127.0.0.1:{self.port}",
            "TLS_DIR": str(self._tls),
            "NET": f"10.89.{random.randrange(100, 250)}",
        }
        self.token = ""

    def __enter__(self) -> Self:
        self.certify()
        self.podman.run("tag", self._image, self._added[0])
        if self.podman.try_run("image", "exists", NGINX).returncode:
            self._make_nginx()
        try:
            self.token = self.compose("run", "--rm", "spool", *self._create_token()).split()[-1]
            self.compose("up", "--detach", "--no-build")
            self.wait_until_ready(START_TIMEOUT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--timeout", "0")
        for image in self._added:
            self.podman.try_run("rmi", "--force", image)

    def certify(self) -> None:
        """A new certificate, in the place of one that there was."""
        certify(self._tls)
        for path in (self._tls, *self._tls.iterdir()):
            os.chown(path, USER, USER)

    def _make_nginx(self) -> None:
        build = ("build", "--network", "host", "--format", "docker", "--pull=never", "--layers=false", "--force-rm")
        self.podman.run(*build, "--tag", NGINX, str(Path(__file__).with_name("nginx")), timeout=BUILD_TIMEOUT)
        self._added.append(NGINX)

    @staticmethod
    def _create_token() -> tuple[str, ...]:
        """As doc/operate.md has it."""
        return ("token", "create", "--name", "admin", "--scope", "admin", "--dir", "/data")

    def compose(self, *arguments: str) -> str:
        """What podman-compose printed. An AssertionError with what it said if it failed."""
        command = [sys.executable, "-m", "podman_compose", "--project-name", self.project, "--file", str(FILE)]
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
            env=self._environ,
            check=False,
        )
        assert done.returncode == 0, f"podman-compose {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait_until_ready(self, seconds: float) -> None:
        wait_until(lambda: self.curl("/readyz", timeout=3).status == 200, seconds, lambda: self.log("proxy"))

    def container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def execute(self, service: str, *command: str) -> str:
        return self.podman.run("exec", self.container(service), *command)

    def log(self, service: str) -> str:
        done = self.podman.try_run("logs", self.container(service))
        return done.stdout + done.stderr

    def curl(self, path: str, *options: str, **more: Any) -> Answer:
        return curl("-k", "-H", f"Authorization: Bearer {self.token}", *options, self.url + path, **more)

    def temporary(self) -> int:
        """Bytes that the proxy has in its one place to write to, also those of files that have no name any more."""
        blocks, free, size = self.execute("proxy", "stat", "-f", "-c", "%b %f %S", "/tmp").split()
        return (int(blocks) - int(free)) * int(size)
