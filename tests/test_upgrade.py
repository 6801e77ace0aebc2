"""Spools that earlier versions have written, each as it was, under this one; see tests/fixtures/make.py."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.make import XATTR
from tests.process import Server, curl, lacking

FIXTURES = Path(__file__).parent / "fixtures"
ARCHIVES = sorted(FIXTURES.glob("*.tar.xz"))
MOST_BYTES = 100_000
SQL = Path(__file__).parent.parent / "spool" / "store" / "sqlite" / "sql"


class Old:
    """A spool that an earlier version has left, unpacked."""

    def __init__(self, archive: Path, root: Path) -> None:
        self.dir = root / "spool"
        self.schema = int(archive.name.partition("-")[2].partition(".")[0])
        self.known: dict[str, Any] = json.loads(archive.with_name(f"spool-{self.schema}.json").read_text())
        self.bearer = f"Authorization: Bearer {self.known['token']}"
        with tarfile.open(archive) as tar:
            tar.extractall(self.dir, filter="data")
            for entry in tar:
                for name, value in entry.pax_headers.items():
                    if name.startswith(XATTR):
                        with suppress(OSError):  # a file system that has none
                            os.setxattr(self.dir / entry.name, name.removeprefix(XATTR), value.encode())

    def version(self) -> int:
        with closing(sqlite3.connect(self.dir / "index.db")) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def has_labels(self) -> bool:
        return any(os.listxattr(path) for path in self.dir.glob("blobs/*/*"))

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "spool", *arguments, "--dir", str(self.dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def check_files(self, server: Server, *but: str) -> None:
        """Every file is there with its bytes and its record, but for these members, and no other is."""
        listed = curl("-H", self.bearer, f"{server.url}/files?limit=1000").json["files"]
        assert {record["id"] for record in listed} == {file["id"] for file in self.known["files"]}
        for file in self.known["files"]:
            record = curl("-H", self.bearer, f"{server.url}/files/{file['id']}").json
            told = {name: value for name, value in file.items() if name not in ("data", *but)}
            assert {name: record.get(name) for name in told} == told
            answer = curl("-H", self.bearer, f"{server.url}/media/{file['id']}/x")
            assert answer.body == base64.b64decode(file["data"])


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    return Old(request.param, tmp_path)


def test_fixtures_are_small_and_of_an_earlier_schema_or_this_one() -> None:
    assert ARCHIVES
    assert sum(path.stat().st_size for path in FIXTURES.iterdir() if path.is_file()) < MOST_BYTES
    newest = len(list(SQL.glob("*.sql")))
    assert all(int(re.findall(r"\d+", archive.name)[0]) <= newest for archive in ARCHIVES)


def test_old_spool_opens_with_all_its_files_whole(old: Old) -> None:
    assert old.version() == old.schema
    with Server(old.dir) as server:
        old.check_files(server)
        assert curl("-H", old.bearer, f"{server.url}/files/{old.known['gone']}").status == 404
        assert server.stop() == 0
    assert old.version() == len(list(SQL.glob("*.sql")))
    assert "cam1" in old.run("limit", "ls")
    assert "cam1" in old.run("token", "ls")
    assert json.loads(old.run("fsck", "--deep", "--json").splitlines()[-1])["findings"] == 0


def test_upload_that_an_old_version_began_goes_on(old: Old) -> None:
    upload = old.known["unfinished"]
    with Server(old.dir) as server:
        tus = ["-H", old.bearer, "-H", "Tus-Resumable: 1.0.0"]
        address = f"{server.url}/tus/{upload['id']}"
        assert curl("-I", *tus, address).headers["upload-offset"] == str(upload["offset"])
        rest = [f"Upload-Offset: {upload['offset']}", "Content-Type: application/offset+octet-stream"]
        options = [option for field in rest for option in ("-H", field)]
        assert curl("-X", "PATCH", *tus, *options, "--data-binary", "0123456789", address).status == 204
        assert curl("-L", "-H", old.bearer, address).body == b"ten bytes.0123456789"


def test_old_spool_takes_new_files_and_shares_with_old_ones(old: Old) -> None:
    with Server(old.dir) as server:
        before = len(server.blobs())
        twin = next(file for file in old.known["files"] if file["filename"] == "twin-1.bin")
        same = curl("-H", old.bearer, "-T-", f"{server.url}/files/third", stdin=base64.b64decode(twin["data"]))
        assert (same.status, same.json["sha256"]) == (201, twin["sha256"])
        assert len(server.blobs()) == before
        assert curl("-H", old.bearer, "-X", "DELETE", f"{server.url}/files/{twin['id']}").status == 204
        assert curl("-H", old.bearer, f"{server.url}/media/{same.json['id']}/x").status == 200


def test_old_labels_bring_back_a_lost_index(old: Old) -> None:
    if not old.has_labels():
        lacking("this file system has no extended attributes")
    (old.dir / "index.db").unlink()
    old.run("reindex")
    token = old.run("token", "create", "--name", "ops", "--scope", "read").strip()
    old.bearer = f"Authorization: Bearer {token}"
    with Server(old.dir) as server:
        old.check_files(server, "created_at")  # a label is written some milliseconds before the record
