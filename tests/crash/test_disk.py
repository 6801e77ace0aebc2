"""A disk that is full, or read-only, and a process that has no descriptors left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from tests.crash.book import WAYS, check_bytes, content, listing, unaccounted, wait_for_accounts
from tests.crash.operation import UPLOADS, OneShot, Reply, Resumable, ask
from tests.process import Server, eventually, lacking, slowed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.book import Content

ENV = {"SPOOL_LIMITS_MIN_FREE_SPACE": "0", "SPOOL_SERVER_INTERIM_RESPONSES": "false"}
SIZES = (2_000_000, 100_000, 4_000, 0)


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A file system of its own at `directory`."""
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, check=False
    )
    if done.returncode:
        lacking(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def on_the_disk(folder: Path, sweep_interval: str = "1s") -> Server:
    """A server on the file system at `folder`/disk, and its log elsewhere."""
    server = Server(folder / "disk" / "spool", env={**ENV, "SPOOL_STORAGE_SWEEP_INTERVAL": sweep_interval})
    server.log_path = folder / "log"
    return server


def fill(server: Server, sizes: tuple[int, ...] = SIZES) -> list[Content]:
    """Uploads until there is room for none; what was taken."""
    taken = []
    for size in sizes:
        for number in range(10_000):
            file = content(f"{size}-{number}-{server.pid}", size)
            reply = ask(server, "PUT", f"/files/{file.name}", file.data)
            if reply.status != 201:
                break
            taken.append(file)
        assert reply.status == 507, reply.body
        reply.check_problem()
    return taken


def check_full(server: Server, taken: list[Content]) -> None:
    """All that was taken is listed and can be downloaded; any of it can be deleted, and then there is room again."""
    listed = listing(server)
    assert listed.keys() == {file.name for file in taken}
    check_bytes(server, taken, listed)
    for file in taken:
        assert ask(server, "DELETE", f"/files/{listed[file.name]['id']}").status == 204
    assert server.files() == []
    again = OneShot("again", 100_000)
    again.run(server)
    again.check(server, listing(server))
    assert again.upload.answered


@pytest.mark.parametrize(
    ("options", "sizes"),
    [("size=32m", SIZES), ("size=48m,nr_inodes=350", (4_000, 0))],
    ids=["bytes", "inodes"],
)
def test_full_disk_still_lists_serves_and_deletes(tmp_path: Path, options: str, sizes: tuple[int, ...]) -> None:
    with mounted(tmp_path / "disk", options), on_the_disk(tmp_path) as server:
        taken = fill(server, sizes)
        assert len(taken) > 10
        for kind, make in UPLOADS.items():
            operation = make(f"full-{kind}")
            operation.run(server)
            assert operation.replies[-1].status == 507
            operation.replies[-1].check_problem()
        server.kill()
        server.start()  # on a full disk
        check_full(server, taken)
        wait_for_accounts(server)
        print(f"\n{options}: {len(taken)} files, then 507")  # noqa: T201  # the numbers are worth reading


def test_disk_that_files_in_the_index_have_filled_has_room_once_they_are_deleted(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=20m"):
        server = Server(tmp_path / "disk" / "spool", env={**ENV, **WAYS[1], "SPOOL_STORAGE_SWEEP_INTERVAL": "1s"})
        server.log_path = tmp_path / "log"
        with server:
            taken = fill(server, (4_096,))
            assert not server.blobs()
            listed = listing(server)
            check_bytes(server, taken, listed)
            server.kill()
            server.start()  # on a full disk
            for file in taken:
                assert ask(server, "DELETE", f"/files/{listed[file.name]['id']}").status == 204
            eventually(lambda: (server.dir / "index.db").stat().st_size < 4_000_000, 30)
            for size in (1_000_000, 4_096):
                again = OneShot(f"again-{size}", size)
                again.run(server)
                again.check(server, listing(server))
                assert again.upload.answered, again.replies


def test_disk_that_others_have_filled_still_deletes(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=32m"), on_the_disk(tmp_path) as server:
        files = [content(f"file-{number}", 200_000) for number in range(10)]
        for file in files:
            assert ask(server, "PUT", f"/files/{file.name}", file.data).status == 201
        with (tmp_path / "disk" / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(65536))
        check_full(server, files)


def test_uploads_do_not_take_the_room_that_deleting_needed(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=32m"), on_the_disk(tmp_path, sweep_interval="1h") as server:
        fill(server)
        listed = listing(server)
        small = [record for record in listed.values() if record["size"] <= 100_000]
        for record in small:
            assert ask(server, "DELETE", f"/files/{record['id']}").status == 204
        assert not (server.dir / "index.db-reserve").exists()
        again = fill(server)
        assert sum(file.size for file in again) <= sum(record["size"] for record in small)
        for record in server.files():
            assert ask(server, "DELETE", f"/files/{record['id']}").status == 204
        server.restart()
        assert (server.dir / "index.db-reserve").stat().st_blocks * 512 >= 8 * 1024 * 1024


def test_read_only_disk_refuses_uploads_and_recovers(tmp_path: Path) -> None:
    # an open file keeps a file system from being remounted: only the kernel does that, after an error
    changing = "writev,pwrite64,linkat,unlinkat,ftruncate,utimensat,fsync,fdatasync"
    with Server(tmp_path / "spool", env=ENV) as server:
        before = OneShot("before", 5_000)
        before.run(server)
        upload = Resumable("resumed", "tus")
        assert upload.create(server)
        assert upload.append(server, upload.file.data[:1000])
        with slowed(server, changing, "error=EROFS"):
            for kind, make in UPLOADS.items():
                operation = make(f"refused-{kind}")
                operation.run(server)
                assert operation.replies[-1].status == 503
                operation.replies[-1].check_problem()
            assert not upload.append(server, upload.file.data[1000:])
            eventually(lambda: ask(server, "GET", "/readyz").status == 503)
            before.check(server, listing(server))
        upload.go_on(server)
        after = OneShot("after", 5_000)
        after.run(server)
        eventually(lambda: ask(server, "GET", "/readyz").status == 200)
        assert listing(server).keys() == {"before-0", "resumed", "after-0"}
        server.restart()
        wait_for_accounts(server)
        for kept in (before, upload, after):
            kept.check(server, listing(server))


@pytest.mark.parametrize("before", ["new", "stopped", "killed"])
def test_start_on_a_read_only_disk_says_so(tmp_path: Path, before: str) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=32m"):
        server = on_the_disk(tmp_path)
        if before != "new":
            with server:
                if before == "stopped":
                    assert server.stop() == 0
            server.log_path.unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert server.spawn().wait() == 1
        [line] = server.log().splitlines()
        assert line == f"spool: cannot use {disk / 'spool'}: Read-only file system"


def test_server_without_descriptors_refuses_uploads_and_recovers(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env=ENV) as server, ExitStack() as stack:
        before = len(server.descriptors())
        OneShot("warm", 5_000).run(server)
        [record] = server.files()
        eventually(lambda: len(server.descriptors()) <= before)
        connections = [stack.enter_context(closing(connection(server))) for _ in range(6)]
        limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (before - 100, limit[1]))
        spent = cpu(server.pid)
        waiting = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=20)))
        waiting.request("GET", "/healthz")  # on a connection that cannot be accepted
        check_refusals(connections, record["id"])
        eventually(lambda: server.log().count("out of system resource") > 1)  # asyncio tries again after a second
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limit)
        assert waiting.getresponse().status == 200
        print(f"\nwithout descriptors: {cpu(server.pid) - spent:.2f} s of processor time")  # noqa: T201  # worth reading
        stack.close()
        after = OneShot("after", 70_000)
        after.run(server)
        after.check(server, listing(server))
        assert after.upload.answered
        eventually(lambda: len(server.descriptors()) <= before)
        assert not unaccounted(server)
        assert "Logging error" not in server.log()


def connection(server: Server) -> HTTPConnection:
    """One that has been accepted."""
    made = HTTPConnection("127.0.0.1", server.port, timeout=20)
    made.request("GET", "/healthz")
    assert made.getresponse().read()
    return made


def check_refusals(connections: list[HTTPConnection], id: str) -> None:
    """What needs a descriptor is refused, and what does not works."""
    form = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n--B--\r\n'
    asked = [
        ("PUT", "/files/refused", b"x" * 5_000, {}),
        ("POST", "/files", form, {"Content-Type": "multipart/form-data; boundary=B"}),
        ("POST", "/tus", b"x" * 10, {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}),
        ("GET", f"/media/{id}/x", None, {}),
        ("GET", "/readyz", None, {}),
        ("GET", "/files", None, {}),
    ]
    for connection, (method, path, body, headers) in zip(connections, asked, strict=True):
        if method == "POST" and path == "/tus":
            headers["Content-Type"] = "application/offset+octet-stream"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        reply = Reply(response.status, response.headers, response.read())
        if path == "/files" and method == "GET":
            assert [file["filename"] for file in json.loads(reply.body)["files"]] == ["warm-0"]
        else:
            assert reply.status == 503, (path, reply)
            reply.check_problem()


def cpu(pid: int) -> float:
    """Seconds of processor time that the process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
