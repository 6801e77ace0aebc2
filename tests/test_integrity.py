"""`spool fsck` as a person runs it, and beside a server that takes and deletes files."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from tests.process import EFFORT, Server, curl, eventually
from tests.store.index_suite import a_file
from tests.test_cli import ORPHAN, blob, fill, misuse, spool

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 4


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """One sound file, one of which the blob is gone, and a blob that no file has."""
    sound = a_file("sound", key="01" + "b" * 30, size=4, sha256=sha256(b"data").hexdigest())
    lost = a_file("lost", key="02" + "c" * 30, filename="song\x1b[31m.mp3")
    fill(tmp_path / "spool", sound, lost, orphans=(ORPHAN, sound.key))
    return tmp_path / "spool"


def test_sound_spool_ends_with_0(tmp_path: Path) -> None:
    fill(tmp_path)
    [summary] = spool("fsck", "--dir", tmp_path).stdout.splitlines()
    assert summary.startswith("0 files, 0 blobs")


def test_findings_are_printed_one_a_line_and_end_with_3(damaged: Path) -> None:
    lines = spool("fsck", "--dir", damaged, code=3).stdout.splitlines()
    assert lines == [
        f"orphan   {ORPHAN}  no record names this blob of 4 bytes",
        f"missing  02{'c' * 30}  id-lost  song\\x1b[31m.mp3  its blob is gone",
        "2 files, 2 blobs and 0 resumable uploads checked, 0 bytes read: 2 findings, 0 of them repaired",
    ]
    assert blob(damaged, ORPHAN).exists()


def test_json_has_one_object_a_line(damaged: Path) -> None:
    lines = [
        json.loads(line) for line in spool("fsck", "--dir", damaged, "--deep", "--json", code=3).stdout.splitlines()
    ]
    assert [line["kind"] for line in lines] == ["orphan", "missing", "summary"]
    assert lines[1] == {
        "kind": "missing",
        "detail": "its blob is gone",
        "key": "02" + "c" * 30,
        "id": "id-lost",
        "filename": "song\x1b[31m.mp3",
        "repaired": False,
    }
    summary = {"files": 2, "blobs": 2, "uploads": 0, "read": 4, "findings": 2, "repaired": 0}
    assert lines[2] == {"kind": "summary", **summary}


def test_repair_ends_with_3_until_nothing_is_damaged(damaged: Path) -> None:
    assert "1 of them repaired" in spool("fsck", "--dir", damaged, "--repair", code=3).stdout
    assert not blob(damaged, ORPHAN).exists()
    with Server(damaged) as server:
        assert curl(f"{server.url}/media/id-lost/song").status == 410
        assert curl("-X", "DELETE", f"{server.url}/files/id-lost").status == 204
    assert spool("fsck", "--dir", damaged, "--repair").returncode == 0


def test_spool_that_is_not_there_cannot_be_checked(tmp_path: Path) -> None:
    assert "there is no spool" in spool("fsck", "--dir", tmp_path / "none", code=2).stderr
    assert "unrecognized arguments" in misuse("fsck", "--depp")


def test_server_scrubs_and_marks(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_STORAGE_SCRUB_INTERVAL": "1s"}) as server:
        record = curl("-T", "-", f"{server.url}/files/a.bin", stdin=b"what was uploaded").json
        [path] = server.dir.glob("blobs/*/*")
        eventually(lambda: any(event["blobs"] for event in server.events("scrub.done")))
        path.write_bytes(b"what was UPLOADED")
        eventually(lambda: server.events("blob.damaged"))
        assert curl("-L", record["content_url"]).status == 410
        path.write_bytes(b"what was uploaded")
        eventually(lambda: server.events("blob.healed"))
        assert curl("-L", record["content_url"]).status == 200


class Client(threading.Thread):
    """Uploads and deletes, some bytes shared and some files of long ago, until it is told to stop."""

    def __init__(self, server: Server, number: int, over: threading.Event) -> None:
        super().__init__()
        self.rounds = 0
        self._server = server
        self._number = number
        self._over = over

    def run(self) -> None:
        with closing(HTTPConnection("127.0.0.1", self._server.port, timeout=60)) as connection:
            while not self._over.is_set():
                own = f"{self._number} {self.rounds}".encode()
                ids = [self._put(connection, data) for data in (own, b"shared", own)]
                for path in self._server.dir.glob("blobs/*/*"):
                    try:
                        os.utime(path, (0, 0))  # so that its age does not excuse it
                    except FileNotFoundError:
                        continue
                for file in ids:
                    connection.request("DELETE", f"/files/{file}")
                    connection.getresponse().read()
                self.rounds += 1

    def _put(self, connection: HTTPConnection, data: bytes) -> Any:
        connection.request("PUT", "/files/a.bin", data)
        return json.load(connection.getresponse())["id"]


def test_check_beside_a_busy_server_finds_nothing(tmp_path: Path) -> None:
    over = threading.Event()
    with Server(tmp_path / "spool") as server:
        clients = [Client(server, number, over) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for _ in range(4 * EFFORT):
                assert "0 findings" in spool("fsck", "--deep", "--dir", server.dir).stdout
        finally:
            over.set()
            for client in clients:
                client.join(60)
    assert min(client.rounds for client in clients) > 0
