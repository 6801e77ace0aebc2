"""Uploads and downloads that are killed or cut off go on, and no byte that the server told of is sent again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.client.command import Home, Terminal, finished
from tests.process import EFFORT, curl, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client.proxy import Proxy, Request
    from tests.process import Server

MIB = 1024 * 1024
LARGE = (1024 if EFFORT >= 20 else 200) * MIB
KILLS = min(4 * EFFORT, 40)
SEED = 20261125


def make_file(path: Path, size: int) -> str:
    """Fills it with bytes of which no two MiB are equal; their SHA-256."""
    rng, digest = random.Random(SEED), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            piece = rng.randbytes(min(MIB, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def require_nothing_sent_twice(requests: list[Request], size: int) -> int:
    """Each append begins where the server last said that it stands; how many bytes were sent in vain."""
    told, sent = None, 0
    for request in requests:
        if request.method == "PATCH":
            assert told is not None
            assert int(request.headers["upload-offset"]) == told
            sent += request.sent
        if "upload-offset" in request.answer:
            offset = int(request.answer["upload-offset"])
            assert told is None or offset >= told
            told = offset
    return sent - size


def assert_stored_once(server: Server, path: Path, sha256: str) -> None:
    [record] = server.files()
    assert (record["filename"], record["size"], record["sha256"]) == (path.name, path.stat().st_size, sha256)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "large.bin"
    return path, make_file(path, LARGE)


def test_put_that_is_killed_at_random_goes_on_until_done(
    server: Server, proxy: Proxy, far: Home, large: tuple[Path, str]
) -> None:
    path, sha256 = large
    rng = random.Random(SEED)
    for _ in range(KILLS):
        how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
        proxy.release(proxy.sent + rng.randrange(MIB, LARGE * 3 // 4 // KILLS))
        with far.start("put", path) as process:
            eventually(lambda: proxy.held)
            process.send_signal(how)
            done = finished(process)
        if how == signal.SIGINT:
            assert (done.code, done.complaint) == (130, "interrupted; run the same command again to go on")
        if rng.random() < 0.5:
            proxy.cut()
        proxy.release()
        eventually(lambda: not proxy.ends)  # what was on its way has come to its end
    done = far.run("put", path)
    in_vain = require_nothing_sent_twice(proxy.requests, LARGE)
    assert len(proxy.of("POST")) == 1
    assert len(proxy.of("PATCH")) == KILLS + 1
    assert done.out.split()[1] == path.name
    assert_stored_once(server, path, sha256)
    assert far.notes == []
    sys.stdout.write(f"{KILLS} kills: {in_vain} bytes of {LARGE} were sent in vain\n")


def test_put_over_a_network_that_is_lost_again_and_again_is_done_in_one_run(
    server: Server, proxy: Proxy, far: Home, tmp_path: Path
) -> None:
    path, size = tmp_path / "a.bin", 24 * MIB
    sha256 = make_file(path, size)
    proxy.cut_up = [4 * MIB, 9 * MIB, 15 * MIB]
    far.run("put", path, "--tries", "2")  # in a row, without progress
    require_nothing_sent_twice(proxy.requests, size)
    assert proxy.cut_up == []
    assert len(proxy.of("POST")) == 1
    assert_stored_once(server, path, sha256)


def test_put_whose_last_answer_is_lost_stores_one_file(server: Server, proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    sha256 = make_file(path, MIB)
    proxy.cut_answer_to = {"PATCH"}
    done = far.run("put", path, "--json")
    assert json.loads(done.out)["sha256"] == sha256
    assert [request.sent for request in proxy.of("PATCH")] == [MIB, 0]
    assert_stored_once(server, path, sha256)


def test_put_that_was_killed_after_the_last_byte_is_told_of_its_file(
    server: Server, proxy: Proxy, far: Home, tmp_path: Path
) -> None:
    path = tmp_path / "a.bin"
    sha256 = make_file(path, MIB)
    proxy.hold_at = MIB
    with far.start("put", path) as process:
        eventually(lambda: proxy.held)
        process.kill()
        finished(process)
    proxy.release()
    eventually(server.files)
    far.run("put", path)
    assert [request.sent for request in proxy.of("PATCH")] == [MIB, 0]
    assert_stored_once(server, path, sha256)


def interrupt(home: Home, proxy: Proxy, *arguments: str | Path) -> None:
    """Ends a put in the middle of its file, which it can go on with."""
    proxy.release(proxy.sent + 2 * MIB)
    with home.start("put", *arguments) as process:
        eventually(lambda: proxy.held)
        process.kill()
        finished(process)
    proxy.release()
    assert len(home.notes) == 1


def test_file_that_changed_since_is_sent_from_its_start(
    server: Server, proxy: Proxy, far: Home, tmp_path: Path
) -> None:
    path = tmp_path / "a.bin"
    make_file(path, 8 * MIB)
    interrupt(far, proxy, path)
    with path.open("r+b") as file:
        file.write(b"another head")
    far.run("put", path)
    assert len(proxy.of("POST")) == 2
    assert_stored_once(server, path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_put_with_other_metadata_is_another_upload(server: Server, proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    make_file(path, 8 * MIB)
    interrupt(far, proxy, path, "--meta", "take=1")
    far.run("put", path, "--meta", "take=2")
    assert [file["metadata"] for file in server.files()] == [{"take": "2"}]
    assert len(proxy.of("POST")) == 2


def test_upload_that_the_server_gave_up_is_sent_anew(server: Server, proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    sha256 = make_file(path, 8 * MIB)
    interrupt(far, proxy, path)
    upload = proxy.of("PATCH")[0].path
    assert curl("-X", "DELETE", server.url + upload).status == 204
    far.run("put", path)
    assert_stored_once(server, path, sha256)


def test_bytes_that_changed_behind_the_time_of_a_file_are_found(proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    make_file(path, 8 * MIB)
    interrupt(far, proxy, path)
    state = path.stat()
    with path.open("r+b") as file:
        file.write(b"another head")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    done = far.run("put", path, code=3)
    assert "SHA-256" in done.complaint
    assert far.notes == []


def test_file_that_grows_while_it_is_sent_is_not_stored(
    server: Server, proxy: Proxy, far: Home, tmp_path: Path
) -> None:
    path = tmp_path / "a.bin"
    make_file(path, 8 * MIB)
    proxy.hold_at = 2 * MIB
    with far.start("put", path) as process:
        eventually(lambda: proxy.held)
        with path.open("ab") as file:
            file.write(b"more")
        proxy.release()
        done = finished(process)
    assert (done.code, done.complaint) == (1, f"{path}: the file changed while it was being sent")
    assert server.files() == []


def test_two_processes_do_not_send_the_same_file(server: Server, proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    sha256 = make_file(path, 8 * MIB)
    proxy.hold_at = 2 * MIB
    with far.start("put", path) as process:
        eventually(lambda: proxy.held)
        with far.start("put", path) as second:
            done = finished(second, timeout=60)
        assert (done.code, "another process" in done.complaint) == (1, True)
        proxy.release()
        assert finished(process).code == 0
    assert_stored_once(server, path, sha256)


def test_stream_over_a_network_that_is_lost_is_sent_from_memory(
    server: Server, proxy: Proxy, far: Home, tmp_path: Path
) -> None:
    path, size = tmp_path / "a.bin", 40 * MIB
    sha256 = make_file(path, size)
    proxy.cut_up = [5 * MIB, 20 * MIB, 37 * MIB]
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        with far.start("put", "-", "--name", "a.bin", stdin=cat.stdout.fileno()) as process:
            cat.stdout.close()
            done = finished(process)
    assert done.code == 0, done.err
    require_nothing_sent_twice(proxy.requests, size)
    assert_stored_once(server, path, sha256)


def test_ctrl_c_in_a_terminal_tells_how_to_go_on(server: Server, proxy: Proxy, far: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    sha256 = make_file(path, 8 * MIB)
    proxy.hold_at = 2 * MIB
    with Terminal(far, "put", path) as terminal:
        eventually(lambda: proxy.held)
        terminal.press("\x03")
        assert terminal.wait() == 130
    assert terminal.shown.splitlines()[-1].endswith("spool: interrupted; run the same command again to go on")
    proxy.release()
    far.run("put", path)
    require_nothing_sent_twice(proxy.requests, 8 * MIB)
    assert_stored_once(server, path, sha256)


# downloads


@pytest.fixture
def stored(server: Server, tmp_path: Path) -> dict[str, str]:
    make_file(tmp_path / "a.bin", 8 * MIB)
    record: dict[str, str] = server.put("a.bin", (tmp_path / "a.bin").read_bytes())
    return record


def part_of(home: Home, record: dict[str, str]) -> Path:
    return home.directory / f".spool-{record['sha256'][:32]}.part"


def is_copy(home: Home, record: dict[str, str]) -> bool:
    data = (home.directory / "a.bin").read_bytes()
    return hashlib.sha256(data).hexdigest() == record["sha256"] and not part_of(home, record).exists()


def test_get_over_a_network_that_is_lost_is_done_in_one_run(proxy: Proxy, far: Home, stored: dict[str, str]) -> None:
    proxy.cut_down = [2 * MIB, 5 * MIB]
    assert far.run("get", stored["id"]).out == "a.bin\n"
    assert is_copy(far, stored)
    first, second, third = [request for request in proxy.of("GET") if request.path.startswith("/media/")]
    assert "range" not in first.headers
    assert second.headers["range"] != third.headers["range"]
    assert (second.status, third.status) == (206, 206)


def test_get_that_was_killed_goes_on(proxy: Proxy, far: Home, stored: dict[str, str]) -> None:
    proxy.cut_down = [3 * MIB]
    far.run("get", stored["id"], "--tries", "1", code=5)
    size = part_of(far, stored).stat().st_size
    assert 0 < size < 8 * MIB
    assert not (far.directory / "a.bin").exists()
    far.run("get", stored["id"])
    last = proxy.of("GET")[-1]
    assert (last.headers["range"], last.received) == (f"bytes={size}-", 8 * MIB - size)
    assert is_copy(far, stored)


def test_get_finds_that_its_partial_file_was_damaged(proxy: Proxy, far: Home, stored: dict[str, str]) -> None:
    proxy.cut_down = [3 * MIB]
    far.run("get", stored["id"], "--tries", "1", code=5)
    with part_of(far, stored).open("r+b") as file:
        file.write(b"damage")
    far.run("get", stored["id"])
    assert is_copy(far, stored)


def test_get_finds_a_partial_file_that_is_too_long(far: Home, stored: dict[str, str]) -> None:
    part_of(far, stored).write_bytes(bytes(9 * MIB))
    far.run("get", stored["id"])
    assert is_copy(far, stored)


def test_get_finds_a_partial_file_that_is_whole(
    proxy: Proxy, far: Home, stored: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.bin").rename(part_of(far, stored))
    far.run("get", stored["id"])
    assert is_copy(far, stored)
    assert proxy.received < MIB
