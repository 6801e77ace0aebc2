"""The pages in a real Chromium, against the real server."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.clients.conftest import installed_packages
from tests.process import Server, eventually, free_port, lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

    NewPage = Callable[..., Page]

PATIENCE: Final = 60_000
"""Milliseconds that a test waits for what must come."""
INSECURE: Final = "spool.test"
"""A name of this machine of which a browser does not think that it is safe without TLS."""
ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    f"--host-resolver-rules=MAP {INSECURE} 127.0.0.1",
)
_EXPECTED: Final = re.compile(
    r"Failed to load resource|net::ERR_|You are using an in-browser|ERR_INTERNET|blocked by CORS policy"
    r"|Cross-Origin-Opener-Policy header has been ignored"
)
"""What a browser writes of a server that is killed or a request that is refused, on its console."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """On a port that it keeps over restarts."""
    with Server(tmp_path / "spool", env={"SPOOL_SERVER_PORT": str(free_port())}) as running:
        yield running


@pytest.fixture(scope="package")  # its event loop must not be there for other tests
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        lacking("chromium is not installed")
    try:
        from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415
    except ImportError:
        lacking("playwright is not installed")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: Browser, server: Server) -> Iterator[NewPage]:
    """Opens a page of a browser of its own. A script that fails, or a policy that is broken, fails the test."""
    faults: list[str] = []
    with ExitStack() as stack:

        def make(path: str | None = "/", **options: Any) -> Page:
            context: BrowserContext = chromium.new_context(base_url=address(server), **options)
            context.set_default_timeout(PATIENCE)
            stack.callback(context.close)
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: _note(faults, message.type, message.text))
            if path is not None:
                page.goto(path)
            return page

        yield make
    assert faults == []


def _note(faults: list[str], kind: str, text: str) -> None:
    if kind in ("error", "warning") and not _EXPECTED.search(text):
        faults.append(text)


def address(server: Server) -> str:
    return server.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def page(new_page: NewPage) -> Page:
    return new_page()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, as text."""
    return (installed_packages() / "node_modules" / "axe-core" / "axe.min.js").read_text()


def token(server: Server, *scopes: str, name: str = "ada") -> str:
    command = [sys.executable, "-m", "spool", "token", "create", "--dir", str(server.dir), "--name", name]
    command += [part for scope in scopes for part in ("--scope", scope)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout.split()[-1]


def sign_in(page: Page, secret: str) -> None:
    page.goto("/login")
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


def sample(path: Path, size: int) -> str:
    """A file of random bytes at `path`; its SHA-256."""
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def stored(server: Server, count: int = 1) -> dict[str, dict[str, Any]]:
    """The records of so many files, by name, once they are there."""

    def found() -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = server.get("/files")["files"]
        return files if len(files) == count else []

    return {record["filename"]: record for record in eventually(found)}


def paste(page: Page, size: int) -> None:
    """A picture of so many bytes, as browsers name it."""
    page.evaluate(
        """size => {
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([new Uint8Array(size)], "image.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
    }""",
        size,
    )


def throttle(page: Page, bytes_per_second: int) -> None:
    """How fast the page may send from the next request on; -1 is as fast as it can."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    session.send("Network.emulateNetworkConditions", conditions)
