"""The image, built as anyone builds it, and containers of it, through the real podman."""

from __future__ import annotations

import ast
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.process import curl, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.process import Answer

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim-bookworm"
HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "256m", "--memory-swap", "256m", "--pids-limit", "128"),
)

START_TIMEOUT = 60.0
STOP_GRACE = 30
RUN_TIMEOUT = 60.0
BUILD_TIMEOUT = 420.0


class Unusable(Exception):
    """What is missing for containers to be run here."""


class Podman:
    """The podman command, with a configuration that works here."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def try_run(self, *arguments: str, timeout: float = RUN_TIMEOUT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.environ,
            check=False,
        )

    def run(self, *arguments: str, timeout: float = RUN_TIMEOUT) -> str:
        """What it printed. An AssertionError with what it said if it failed."""
        done = self.try_run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def find_podman() -> Podman:
    """Podman as this machine has it configured, else with what works in a CI container. Raises Unusable."""
    if not shutil.which("podman"):
        raise Unusable("podman is not installed")
    said = ""
    for override in ({}, {"CONTAINERS_CONF": str(ROOT / ".ci" / "containers.conf")}):
        podman = Podman({**os.environ, **override})
        if podman.try_run("image", "exists", BASE).returncode:
            raise Unusable(f"podman has no image {BASE}: pull it, or make a stand-in with .ci/base-image")
        done = podman.try_run("run", "--rm", "--publish", "127.0.0.1::8080", "--memory", "64m", BASE, "true")
        if done.returncode == 0:
            return podman
        said = done.stderr
    raise Unusable(f"podman cannot run a container here: {said}")


def build(podman: Podman, tag: str, directory: Path) -> None:
    """Builds the image. This machine's certificates and its choice of index are there during the build only."""
    podman.run(
        *("build", "--network", "host", "--format", "docker", "--pull=never", "--layers=false", "--force-rm"),
        *(option for volume in _build_volumes(directory) for option in ("--volume", volume)),
        *("--tag", tag, str(ROOT)),
        timeout=BUILD_TIMEOUT,
    )


def _build_volumes(directory: Path) -> Iterator[str]:
    inside = "/etc/ssl/certs/ca-certificates.crt"
    settings = dict(_pip_settings())
    bundle = settings.pop("cert", None) or os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if bundle and Path(bundle).is_file():
        yield f"{Path(bundle).resolve()}:{inside}:ro"
        settings["cert"] = inside
    (directory / "pip.conf").write_text("[global]\n" + "".join(f"{key} = {settings[key]}\n" for key in settings))
    yield f"{directory}:/etc/xdg/pip:ro"


def _pip_settings() -> Iterator[tuple[str, str]]:
    """How pip reaches its index here; the environment comes last. Not what names a file or folder of this machine."""
    wanted = {"cert", "index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout"}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    lines = sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:"))
    for line in lines:
        name, _, quoted = line.partition("=")
        key = name.rpartition(".")[2]
        if key in wanted and "file:" not in quoted:
            yield key, ast.literal_eval(quoted)


class Container:
    """A container of the image with a volume at /data, hardened as README has it; gone, with its volume, at the end."""

    def __init__(self, podman: Podman, image: str, name: str) -> None:
        self.podman = podman
        self.name = name
        self._image = image
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
        self.podman.try_run("volume", "rm", "--force", self.name)

    def create(self) -> None:
        """A new container, ready to serve, with the volume that an earlier one of this name had."""
        where = ("--publish", f"127.0.0.1:{self.port}:8080", "--volume", f"{self.name}:/data")
        self.podman.run("run", "--detach", "--name", self.name, *where, *HARDENED, self._image)
        self.wait_until_ready()

    def remove(self) -> None:
        self.podman.try_run("rm", "--force", "--time", "0", self.name)

    def restart(self) -> None:
        self.podman.run("restart", "--time", str(STOP_GRACE), self.name)
        self.wait_until_ready()

    def stop(self) -> None:
        self.podman.run("stop", "--time", str(STOP_GRACE), self.name)

    def start(self) -> None:
        self.podman.run("start", self.name)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_until(lambda: curl(f"{self.url}/readyz", timeout=2).status == 200, START_TIMEOUT, self.log)

    def inspect(self, template: str) -> str:
        return self.podman.run("inspect", "--format", template, self.name).strip()

    def execute(self, *command: str) -> str:
        return self.podman.run("exec", self.name, *command)

    def log(self) -> str:
        done = self.podman.try_run("logs", self.name)
        return done.stdout + done.stderr

    def tokens(self) -> list[str]:
        """Every secret that was printed since the container was made."""
        return re.findall(r"\bspool_\S+", self.log())

    def ask(self, path: str, *options: str, token: str) -> Answer:
        return curl("-H", f"Authorization: Bearer {token}", *options, self.url + path)


def wait_until(check: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """Returns once `check` holds. An AssertionError with what `explain` says if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{explain()}"
        time.sleep(0.05)
