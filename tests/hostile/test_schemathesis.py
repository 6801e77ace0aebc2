"""Requests made from /openapi.json, valid and not, one by one and in sequences that follow its links."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spool.web.problems import all_problems
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent.parent
CONFIG = Path(__file__).with_name("schemathesis.toml")
KNOWN = 10 * EFFORT
"""How many of each kind are there from the start."""
EXAMPLES = 5 * EFFORT
"""Requests for each operation and phase that are not given by the document alone."""
SEQUENCES = 30 * EFFORT
PATIENCE = 240 * EFFORT


def _furnish(server: Server, directory: Path, token: Mapping[str, str]) -> None:
    """Files and uploads that requests can be about, whose ids the configuration names."""

    def create(method: str, path: str, body: bytes = b"", **headers: str) -> str:
        sent = {**token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(server.url + path, body, sent, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(response.headers["Location"].rpartition("/")[2])

    ids = {
        "files": [create("PUT", f"/files/{i}.txt", b"hello") for i in range(KNOWN)],
        "tus": [create("POST", "/tus", Tus_Resumable="1.0.0", Upload_Length="5") for _ in range(KNOWN)],
        "uploads": [create("POST", "/files", Upload_Complete="?0") for _ in range(KNOWN)],
        "problems": [kind.slug for kind in all_problems()],
    }
    ids |= _furnish_secrets(server, ids["files"], token)
    for name, values in ids.items():
        (directory / f"{name}.txt").write_text("\n".join(map(json.dumps, values)))
    counts = f"[phases.stateful.generation]\nmax-examples = {SEQUENCES}\n"
    (directory / "schemathesis.toml").write_text(CONFIG.read_text() + counts)


def _furnish_secrets(server: Server, files: list[str], token: Mapping[str, str]) -> dict[str, list[str]]:
    """Grants and links that requests can be about, by their ids and their secrets."""

    def make(path: str) -> tuple[str, str]:
        sent = {**token, "Content-Type": "application/json"}
        request = urllib.request.Request(server.url + path, b"{}", sent, method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            made = json.load(response)
        return made["id"], made["url"].rpartition("/")[2]

    grants, links = [make("/grants") for _ in range(KNOWN)], [make(f"/files/{file}/links") for file in files[:KNOWN]]
    found = {"grants": [made for made, _ in grants], "invitations": [secret for _, secret in grants]}
    return {**found, "links": [made for made, _ in links], "downloads": [secret for _, secret in links]}


def _document(server: Server, directory: Path, *, tokens: bool) -> Path:
    """What the server says of itself; where there is no token, that it asks for none."""
    document = server.get("/openapi.json")
    if not tokens:
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["security"] = []
    path = directory / "openapi.json"
    path.write_text(json.dumps(document))
    return path


def _run(server: Server, directory: Path, document: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(directory / "schemathesis.toml"), "run"]
    done = subprocess.run(
        [*command, str(document), "--url", server.url, "--max-examples", str(EXAMPLES), *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    print(done.stdout)  # noqa: T201  # the numbers are worth reading
    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert tested
    assert len(set(tested.groups())) == 1, "every operation is tried"


def _held(server: Server) -> Counter[str]:
    """The connections, staged bytes and blobs that are open, and the directories and listening sockets, which stay."""
    kinds = (re.search(r"^socket:|/incoming|/blobs", target) for target in server.descriptors())
    return Counter(kind[0] for kind in kinds if kind)


def _assert_nothing_is_left(server: Server) -> None:
    """No request met a fault, what has bytes has a row, and what is listed has bytes."""
    assert server.events("request.failed") == []
    with closing(sqlite3.connect(server.dir / "index.db")) as index:
        files = {key for (key,) in index.execute("SELECT key FROM files UNION SELECT key FROM hidden")}
        uploads = {key for (key,) in index.execute("SELECT key FROM uploads WHERE state <> 'finished'")}
    blobs = server.blobs().keys()
    assert blobs - files - uploads == set()
    assert files - blobs == set()


def _new_token(server: Server) -> str:
    command = [sys.executable, "-m", "spool", "token", "create", "--dir", str(server.dir), "--name=ada"]
    done = subprocess.run([*command, "--scope=admin"], capture_output=True, check=True, text=True, timeout=60)
    return next(word for word in done.stdout.split() if word.startswith("spool_"))


@pytest.mark.parametrize(("tokens", "phases"), [(True, "examples,coverage,fuzzing,stateful"), (False, "coverage")])
def test_server_does_what_its_description_says(tmp_path: Path, tokens: bool, phases: str) -> None:  # noqa: FBT001
    with Server(tmp_path / "spool") as server:
        at_rest = _held(server)
        token = {"Authorization": f"Bearer {_new_token(server)}"} if tokens else {}
        _furnish(server, tmp_path, token)
        sent = [part for name, value in token.items() for part in ("--header", f"{name}: {value}")]
        _run(server, tmp_path, _document(server, tmp_path, tokens=tokens), "--phases", phases, *sent)
        eventually(lambda: _held(server) <= at_rest)
        _assert_nothing_is_left(server)
