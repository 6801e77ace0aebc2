"""What a run leaves behind: no secret in any log or file, and nothing that others of the machine may read."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.process import Server, curl

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOOL: Final = Path(__file__).parent.parent.parent / "spool"
MEDIA: Final = "https://media.example.org"


class Run:
    """A server under the loosest umask, with an upload on its way and a backup, and the secrets that were used."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.copy = server.dir.with_name("copy")
        self.token = self.command("token", "create", "--name=ada", "--scope=admin").split()[-1]
        self.wrong = "spool_" + "w" * 43
        self.signature = ""
        self.secrets: list[str] = []

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "spool", *arguments, "--dir", str(self.server.dir)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def curl(self, *arguments: str, token: str = "") -> dict[str, str]:
        *options, path = arguments
        answer = curl("-H", f"Authorization: Bearer {token or self.token}", *options, self.server.url + path)
        assert answer.status, answer.stderr
        return {**answer.headers, "body": answer.body.decode("latin-1")}

    def uploads(self) -> None:
        for path in ("/files/a", "/files/a?expires_at=no"):
            self.curl("-X", "PUT", "--data-binary", "hello", path)
        self.curl("-F", "f=@-;filename=b", "/files")
        self.curl("-X", "POST", "-H", "Upload-Complete: ?0", "--data-binary", "half", "/files")
        self.curl("-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 5", "/tus")

    def refusals(self) -> None:
        self.curl("/files", token=self.wrong)
        self.curl(f"/files?access_token={self.token}")
        self.curl("-u", f"ada:{self.token}", "/files", token=self.wrong)
        self.curl("-H", f"Cookie: token={self.token}", "/nowhere")
        self.curl("-X", "PUT", "-H", "Content-Encoding: gzip", "--data-binary", "hello", "/files/a")

    def downloads(self) -> str:
        """The signature that was used."""
        found = re.search(r'"id": "(\w+)"', self.curl("/files?limit=1")["body"])
        assert found
        address = self.curl(f"/files/{found[1]}/content")["location"]
        assert address.startswith(MEDIA)
        assert curl(self.server.url + address.removeprefix(MEDIA)).status == 200
        return address.partition("signature=")[2]

    def strangers(self) -> list[str]:
        """The secrets by which people without a token came and went."""
        made = self.command("grant", "create", "--owner=ada").strip().rpartition("/")[2]
        secrets = [made]
        found = re.search(r'"id": "(\w+)"', self.curl("/files?limit=1")["body"])
        assert found
        for path in ("/grants", f"/files/{found[1]}/links"):
            body = self.curl("-H", "Content-Type: application/json", "-d", "{}", path)["body"]
            secrets.append(json.loads(body)["url"].rpartition("/")[2])
        assert curl(f"{self.server.url}/l/{secrets[-1]}").status == 200
        for arguments in (["-T", "-", f"/g/{made}/x"], ["-I", f"/g/{made}"], *([path] for path in mistaken(made))):
            curl("--path-as-is", *arguments[:-1], self.server.url + arguments[-1], stdin=b"by a guest")
        curl("-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 5", f"{self.server.url}/g/{made}/tus")
        receipt = curl("-F", "f=@-;filename=b", f"{self.server.url}/g/{made}", stdin=b"another").json["files"][0]
        secrets.append(receipt["delete_url"].rpartition("/")[2])
        curl(f"{self.server.url}/d/{receipt['id']}/{secrets[-1]}")
        return secrets


def mistaken(secret: str) -> list[str]:
    """Addresses at which nothing is served, as people, proxies and attackers make them of one where something is."""
    starts = ("/g//", "/G/", "/g/./", "/g/../", "/g/x/../", "/%67/", "/%2567/", "/g%2f", "//g/", "/", "/files/")
    ids = ("", "0f" * 16 + "/", "./" + "0f" * 16 + "//")
    return [f"/g/{secret}/nowhere", *(start + secret for start in starts), *(f"/D/{id_}{secret}" for id_ in ids)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    before = os.umask(0)
    try:
        # Made before it starts, so that it prints no token of its own.
        directory = tmp_path_factory.mktemp("secrets") / "spool"
        server = Server(directory, env={"SPOOL_SERVER_MEDIA_BASE_URL": MEDIA, "SPOOL_LOG_LEVEL": "debug"})
        made = Run(server)
        with server:
            made.uploads()
            made.refusals()
            made.signature = made.downloads()
            made.secrets = made.strangers()
            made.command("backup", str(made.copy))
            made.command("fsck", "--deep")
            yield made
    finally:
        os.umask(before)


def test_no_secret_is_in_the_log(run: Run) -> None:
    log = run.server.log()
    assert "request.finished" in log
    assert "Traceback" not in log
    assert len(run.secrets) == 4
    secrets = (run.token, run.wrong, run.signature, *run.secrets, "access_token")
    assert [secret for secret in secrets if secret in log] == []


def test_no_token_is_on_the_disk(run: Run) -> None:
    places = [path for home in (run.server.dir, run.copy) for path in home.rglob("*") if path.is_file()]
    assert {"index.db", "index.db-wal", "lock"} <= {path.name for path in places}
    secrets = [secret.encode() for secret in (run.token, *run.secrets)]
    assert [path for path in places for secret in secrets if secret in path.read_bytes()] == []


def test_nothing_is_for_others_of_the_machine(run: Run) -> None:
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for home in (run.server.dir, run.copy)
        for path in (home, *home.rglob("*"))
    }
    names = {path.name for path in modes}
    assert {"index.db", "index.db-wal", "index.db-shm", "index.db-reserve", "lock", "incoming", "00"} <= names
    assert any(path.parent.name == "incoming" for path in modes)
    expected = {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    assert modes == expected


def equalities(text: str) -> list[str]:
    """Where a source compares a secret, or what proves one, as `==` and `in` do: byte by byte until they differ."""
    words = re.compile(r"secret|signature|password|hmac|hash_secret|_sign\b")
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, (ast.Eq, ast.NotEq)) for operator in node.ops)
        and words.search(ast.unparse(node))
    ]


@pytest.mark.parametrize("name", ["tokens.py", "web", "store"])
def test_secret_is_compared_in_constant_time_or_by_its_hash(name: str) -> None:
    sources = [SPOOL / name] if name.endswith(".py") else sorted((SPOOL / name).rglob("*.py"))
    assert sources
    assert [found for path in sources for found in equalities(path.read_text())] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if signature == self._sign(id, 1): pass", 1),
        ("assert token.secret != given", 1),
        ("if hmac.compare_digest(self._sign(id), signature): pass", 0),
        ("if secret is None: pass", 0),
    ],
)
def test_comparison_byte_by_byte_is_found(source: str, found: int) -> None:
    assert len(equalities(source)) == found


def test_token_is_looked_up_by_its_hash_alone() -> None:
    auth = ast.parse((SPOOL / "web" / "auth.py").read_text())
    asked = [
        ast.unparse(node.args[0])
        for node in ast.walk(auth)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "site.index.token"
    ]
    assert asked == ["hash_secret(secret.strip())"]
