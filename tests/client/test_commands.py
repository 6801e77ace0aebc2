"""The commands that talk to a server, in a pipe and in a terminal: what they do, and what they say when it fails."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from spool.cli.completion import SHELLS
from spool.client import Untrusted
from spool.client.patience import Patience
from tests.authority import Authority
from tests.client.command import Home, Terminal, finished
from tests.client.proxy import Proxy
from tests.process import Server, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that everybody on the machine may use."""
    with Server(tmp_path_factory.mktemp("shared") / "spool") as running:
        yield running


@pytest.fixture
def home(shared: Server, tmp_path: Path) -> Home:
    return Home(tmp_path / "home", SPOOL_URL=shared.url)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a token."""
    with Server(tmp_path_factory.mktemp("locked") / "spool") as running:
        token(running, "admin")
        yield running


def token(server: Server, *scopes: str) -> str:
    home = Home(server.dir.with_name("operator"))
    flags = [flag for scope in scopes for flag in ("--scope", scope)]
    return home.run("token", "create", "--dir", server.dir, "--name", "ada", *flags).out.strip()


@contextmanager
def limited(directory: Path, **settings: str) -> Iterator[tuple[Server, Home]]:
    environment = {f"SPOOL_{name}".upper(): value for name, value in settings.items()}
    with Server(directory / "spool", env=environment) as server:
        yield server, Home(directory / "home", SPOOL_URL=server.url)


def song(home: Home, name: str = "song.txt", text: str = "la la la") -> Path:
    (home.directory / name).write_text(text)
    return home.directory / name


def stored(home: Home, *arguments: str | Path) -> dict[str, object]:
    """The record of the one file that is put."""
    record: dict[str, object] = json.loads(home.run("put", "--json", *arguments).out)
    return record


# put


def test_put_prints_the_address_and_the_name(home: Home, shared: Server) -> None:
    done = home.run("put", song(home))
    address, name = done.out.split()
    assert (name, done.err) == ("song.txt", "")
    assert shared.get(address.removeprefix(shared.url))["filename"] == "song.txt"


def test_put_says_what_was_said_of_the_file(home: Home, shared: Server) -> None:
    file = song(home, 'süß; "x" %41.txt')
    record = stored(home, file, "--meta", "tag=a", "--meta", "tag=b=c", "--meta", "title=ö", "--expires", "7d")
    assert record.keys() == shared.get(f"/files/{record['id']}").keys()
    assert record["filename"] == file.name
    assert record["metadata"] == {"tag": ["a", "b=c"], "title": "ö"}
    assert re.match(r"\d{4}-", str(record["expires_at"]))
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_put_gives_a_file_another_name(home: Home) -> None:
    assert stored(home, song(home), "--name", "other.txt")["filename"] == "other.txt"


def test_put_takes_an_empty_file(home: Home) -> None:
    assert stored(home, song(home, text=""))["size"] == 0


def test_put_reads_a_pipe(home: Home) -> None:
    with home.start("put", "-", "--name", "piped.txt", "--json", stdin=subprocess.PIPE) as process:
        done = finished(process, "la la la")
    assert done.err == ""
    record = json.loads(done.out)
    assert (record["filename"], record["size"]) == ("piped.txt", 8)


def test_put_reads_what_was_redirected(home: Home) -> None:
    with song(home).open("rb") as file, home.start("put", "-", "--json", stdin=file.fileno()) as process:
        record = json.loads(finished(process).out)
    assert (record["filename"], record["size"]) == ("unnamed", 8)


def test_put_reads_a_named_pipe(home: Home) -> None:
    script = 'exec "$0" -m spool put --json <(printf "la la la")'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], env=home.environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["size"] == 8


def test_put_of_many_files_runs_as_many_as_it_may(shared: Server, tmp_path: Path) -> None:
    with Proxy(shared.port) as proxy:
        home = Home(tmp_path / "home", SPOOL_URL=proxy.url)
        files = [song(home, f"{n}.txt", str(n) * MIB) for n in range(7)]
        proxy.hold_at = 2
        with home.start("put", "-j", "3", "--json", *files) as process:
            eventually(lambda: len(proxy.of("PATCH")) == 3)
            assert len(proxy.of("POST")) == 3
            proxy.release()
            done = finished(process)
    assert {json.loads(line)["filename"] for line in done.out.splitlines()} == {file.name for file in files}


def test_one_file_that_fails_does_not_keep_others_from_being_stored(home: Home) -> None:
    done = home.run("put", "nothing", song(home), "--json", code=1)
    assert json.loads(done.out)["filename"] == "song.txt"
    assert done.complaint == "nothing: No such file or directory"


def test_progress_is_shown_in_a_terminal(home: Home) -> None:
    (home.directory / "[red]a.bin").write_bytes(bytes(3 * MIB))
    with Terminal(home, "put", "[red]a.bin") as terminal:
        assert terminal.wait() == 0
    assert f"{ESCAPE}[?25l" in terminal.shown
    assert terminal.shown.count("[red]a.bin") > 1  # beside the bar, and with the result
    assert re.search(r"http://\S+/files/\w+", terminal.shown)


def test_nothing_but_the_result_is_written_to_a_pipe(home: Home) -> None:
    with home.start("put", song(home)) as process:
        done = finished(process)
    assert ESCAPE not in done.out
    assert done.err == ""


def test_ctrl_c_ends_a_put_that_waits_for_a_terminal(home: Home) -> None:
    with Terminal(home, "put", "-", "--name", "typed.txt") as terminal:
        eventually(lambda: ESCAPE in terminal.shown)
        terminal.press("la la la\n\x03")
        assert terminal.wait() == 130
    assert "spool: interrupted\r\n" in terminal.shown


def test_interrupt_ends_a_put_that_waits_for_a_pipe(home: Home) -> None:
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb"),
        os.fdopen(writer, "wb", 0) as pipe,
        home.start("put", "-", stdin=reader) as process,
    ):
        pipe.write(b"la la la")
        eventually(lambda: waiting(reader) == 0)
        process.send_signal(signal.SIGINT)
        done = finished(process, timeout=60)
    assert (done.code, done.complaint) == (130, "interrupted")


def waiting(descriptor: int) -> int:
    """How many bytes are there to be read."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["put", "a", "--meta", "novalue"], "KEY=VALUE"),
        (["put", "a", "--meta", "expires_at=2030-01-01"], "--expires"),
        (["put", "a", "--expires", "soon"], "duration"),
        (["put", "a", "-j", "0"], "from 1 up"),
        (["put", "a", "b", "--name", "c"], "one FILE"),
        (["put", "-", "-"], "once"),
        (["put", "a", "--to", "spool.example.org"], "--to"),
        (["ls", "--to", "http://127.0.0.1", "--dir", "x"], "--dir"),
        (["get"], "ID|URL"),
        (["get", "x", "-o", "-"], "standard output"),
        (["login", "spool.example.org"], "spool.example.org"),
    ],
)
def test_misuse_is_told(home: Home, arguments: list[str], what: str) -> None:
    assert what in home.run(*arguments, code=2).err.splitlines()[-1]


def test_command_that_knows_no_server_says_how_to_name_one(tmp_path: Path) -> None:
    line = Home(tmp_path / "home").run("put", "a", code=2).complaint
    assert all(way in line for way in ("--to", "SPOOL_URL", "spool login"))


# refusals


def test_wrong_token_is_told(locked: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", SPOOL_URL=locked.url, SPOOL_TOKEN="spool_wrong")
    line = home.run("put", song(home), code=4).complaint
    assert line.startswith(f"{home.directory}/song.txt: ")
    assert "unauthenticated" in line
    assert "spool login" in line


def test_token_without_the_scope_is_told(locked: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", SPOOL_URL=locked.url, SPOOL_TOKEN=token(locked, "upload"))
    assert home.run("ls", code=4).complaint == "this needs a token with the scope 'read' (forbidden)"


def test_token_that_may_only_upload_can_upload(locked: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", SPOOL_URL=locked.url, SPOOL_TOKEN=token(locked, "upload"))
    assert stored(home, song(home))["owner"] == "ada"


def test_full_disk_is_told_at_once(tmp_path: Path) -> None:
    with limited(tmp_path, limits_min_free_space="900 TiB") as (_, home):
        assert home.run("put", song(home), code=4).complaint.endswith("(storage-full)")


def test_file_that_is_too_large_is_told(tmp_path: Path) -> None:
    with limited(tmp_path, limits_max_file_size="7") as (_, home):
        assert home.run("put", song(home), code=4).complaint.endswith("(too-large)")


def test_type_that_is_refused_is_told_and_not_sent_to_its_end(tmp_path: Path) -> None:
    with limited(tmp_path, policy_deny_types="application/zip") as (server, home), Proxy(server.port) as proxy:
        home.environment["SPOOL_URL"] = proxy.url
        path = home.directory / "large.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("zeros", bytes(48 * MIB))
        line = home.run("put", path, code=4).complaint
        assert line.endswith("(bad-type)")
        assert "application/zip" in line
        assert proxy.sent < 40 * MIB
        assert home.notes == []


@pytest.mark.parametrize("arguments", [["put", "song.txt"], ["get", "x"], ["ls"], ["rm", "x"]])
def test_server_that_is_not_there_is_told(tmp_path: Path, arguments: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    home = Home(tmp_path / "home", SPOOL_URL=url)
    song(home)
    tries = [] if arguments == ["ls"] else ["--tries", "2"]
    line = home.run(*arguments, *tries, code=5).complaint
    assert line.endswith(f"{url} cannot be reached: Connection refused")


def test_certificate_that_is_not_trusted_is_told_with_the_mend(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    with Server(tmp_path / "spool", env=authority.environment) as server:
        home = Home(tmp_path / "home", SPOOL_URL=server.url)
        line = home.run("put", song(home), code=5).complaint
        assert "is not trusted: " in line
        assert "SSL_CERT_FILE" in line
        trusting = Home(tmp_path / "home", SPOOL_URL=server.url, SSL_CERT_FILE=str(authority.trusted))
        assert finished(trusting.start("put", song(home))).code == 0  # a process of its own reads that variable anew


async def test_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    with pytest.raises(Untrusted):
        await Patience(6).wait(Untrusted("it is not"))


def test_server_that_vanishes_is_told_and_the_upload_goes_on_when_it_is_back(tmp_path: Path) -> None:
    settings = {"SPOOL_SERVER_PORT": str(free_port())}
    with Server(tmp_path / "spool", env=settings) as server, Proxy(server.port) as proxy:
        home = Home(tmp_path / "home", SPOOL_URL=proxy.url)
        path = home.directory / "a.bin"
        path.write_bytes(bytes(8 * MIB))
        proxy.hold_at = 2 * MIB
        with home.start("put", path, "--tries", "2") as process:
            eventually(lambda: proxy.held)
            server.kill()
            proxy.release()
            done = finished(process)
        assert done.code == 5
        assert "cannot be reached" in done.complaint
        server.start()
        home.run("put", path)
        assert len(proxy.of("POST")) == 1
        assert [file["size"] for file in server.files()] == [8 * MIB]


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """The address of a server that gives everybody this answer."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                client.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


def plain(status: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (plain("404 Not Found", b"<html>", "Content-Type: text/html"), "404 with text/html, which is not from a Spool"),
        (plain("200 OK", b"hello"), "not from a Spool"),
        (plain("200 OK", b"[1]"), "from a Spool"),
        (plain("301 Moved", b"", "Location: https://spool.example.org/"), "https://spool.example.org/"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be reached"),
    ],
)
def test_server_that_is_no_spool_is_told(tmp_path: Path, answer: bytes, what: str) -> None:
    with stranger(answer) as url:
        assert what in Home(tmp_path / "home", SPOOL_URL=url).run("ls", code=5).complaint


def test_proxy_that_does_not_reach_the_server_is_told(tmp_path: Path) -> None:
    with stranger(plain("502 Bad Gateway", b"<html>", "Content-Type: text/html")) as url:
        home = Home(tmp_path / "home", SPOOL_URL=url)
        assert "502" in home.run("put", song(home), "--tries", "1", code=5).complaint


# get


def test_get_keeps_the_name_and_replaces_nothing(home: Home) -> None:
    name = str(stored(home, song(home))["id"])
    assert home.run("get", name, code=1).complaint == f"{name}: song.txt exists; name another file with -o"
    song(home).unlink()
    assert home.run("get", name).out == "song.txt\n"
    assert song(home).read_text() == "la la la"


@pytest.mark.parametrize("address", ["url", "content_url", "media"])
def test_get_takes_an_address(home: Home, address: str) -> None:
    record = stored(home, song(home))
    record["media"] = str(record["url"]).replace("/files/", "/media/") + "/song.txt"
    del home.environment["SPOOL_URL"]
    copy = song(home, "copy.txt", "is replaced")
    home.run("get", str(record[address]), "-o", copy)
    assert copy.read_text() == "la la la"


def test_get_of_a_signed_address_needs_no_token(tmp_path: Path) -> None:
    port = str(free_port())
    settings = {"SPOOL_SERVER_PORT": port, "SPOOL_SERVER_MEDIA_BASE_URL": f"http://127.0.0.1:{port}"}
    with Server(tmp_path / "spool", env=settings) as server:
        home = Home(tmp_path / "home", SPOOL_URL=server.url, SPOOL_TOKEN=token(server, "admin"))
        record = stored(home, song(home))
        head = subprocess.run(
            [
                "curl",
                "-sI",
                "-H",
                f"Authorization: Bearer {home.environment['SPOOL_TOKEN']}",
                str(record["content_url"]),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        signed = re.search(r"(?i)location: (\S+)", head)
        assert signed
        assert "signature=" in signed[1]
        del home.environment["SPOOL_TOKEN"]
        home.run("get", signed[1], "-o", "copy.txt")
        assert (home.directory / "copy.txt").read_text() == "la la la"
        assert home.run("get", signed[1] + "0", "-o", "other.txt", code=4).complaint.endswith("(forbidden)")


def test_get_of_what_is_not_there_is_told(home: Home) -> None:
    assert home.run("get", "nothing", code=4).complaint == "nothing: There is no such file (not-found)"


def record_of(name: str, data: bytes, sha256: str) -> bytes:
    members = {"id": "x", "filename": name, "size": len(data), "media_type": "text/plain", "declared_type": None}
    members |= {"sha256": sha256, "created_at": "2026-01-01T00:00:00Z", "expires_at": None, "owner": "o"}
    return json.dumps(members | {"metadata": {}, "damage": None, "grant": None, "url": "", "content_url": ""}).encode()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", ".evil", "e\x1b[2Jvil", "", "..", "a/../../evil"])
def test_name_that_a_server_gives_does_not_leave_the_directory(tmp_path: Path, name: str) -> None:
    record = record_of(name, b"", hashlib.sha256().hexdigest())
    with stranger(plain("200 OK", record)) as url:
        home = Home(tmp_path / "home", SPOOL_URL=url)
        done = home.run("get", "x")
        [made] = home.directory.iterdir()
        assert not made.name.startswith(".")
        assert ESCAPE not in made.name + done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_bytes_that_are_not_those_of_the_record_are_not_kept(tmp_path: Path) -> None:
    data = record_of("a.txt", b"", "0" * 64)
    data = data.replace(b'"size": 0', b'"size": ' + str(len(data) + 2).encode())
    with stranger(plain("200 OK", data)) as url:  # the record is the content, too
        home = Home(tmp_path / "home", SPOOL_URL=url)
        assert "SHA-256" in home.run("get", "x", code=3).complaint
        assert list(home.directory.iterdir()) == []


# ls and rm


def test_ls_asks_the_server_that_is_named(home: Home, shared: Server) -> None:
    record = stored(home, song(home, "listed.txt"))
    [line] = home.run("ls", "--filename", "listed.txt").out.splitlines()
    assert line.split()[2:] == [record["id"], "text/plain", "listed.txt"]
    assert line == home.run("ls", "--filename", "listed.txt", "--dir", shared.dir).out.strip()
    assert json.loads(home.run("ls", "--filename", "listed.txt", "--json").out) == record


def test_ls_lists_a_directory_if_one_is_named(home: Home, tmp_path: Path) -> None:
    assert "no spool in" in home.run("ls", "--dir", tmp_path / "nowhere", code=2).complaint
    home.environment["SPOOL_STORAGE_DIR"] = str(tmp_path / "nowhere")
    assert "no spool in" in home.run("ls", code=2).complaint
    home.run("ls", "--to", home.environment["SPOOL_URL"])


def test_ls_of_a_server_stops_at_the_limit(home: Home) -> None:
    for name in "ab":
        stored(home, song(home, name))
    assert len(home.run("ls", "--limit", "1").out.splitlines()) == 1


def test_ls_writes_nothing_that_moves_the_cursor(tmp_path: Path) -> None:
    listing = b'{"files": [' + record_of(f"{ESCAPE}[2J\n", b"", "") + b'], "next": null}'
    with stranger(plain("200 OK", listing)) as url:
        out = Home(tmp_path / "home", SPOOL_URL=url).run("ls").out
    assert ESCAPE not in out
    assert len(out.splitlines()) == 1


def test_rm_deletes_and_tells_what_was_not_there(home: Home, shared: Server) -> None:
    ids = [str(stored(home, song(home, name))["id"]) for name in "ab"]
    done = home.run("rm", ids[0], "nothing", f"{shared.url}/files/{ids[1]}", code=4)
    assert done.complaint == "nothing: There is no such file (not-found)"
    assert {file["id"] for file in shared.files()} & set(ids) == set()


# login


def test_login_keeps_the_token_to_its_owner(locked: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("login", locked.url + "/", stdin=token(locked, "upload", "read") + "\n")
    assert stat.S_IMODE(home.login.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.login.parent.stat().st_mode) == 0o700
    record = stored(home, song(home))
    assert record["id"] in home.run("ls").out


def test_login_reads_the_token_from_a_terminal_and_does_not_show_it(locked: Server, tmp_path: Path) -> None:
    home, secret = Home(tmp_path / "home"), token(locked, "read")
    with Terminal(home, "login", locked.url) as terminal:
        eventually(lambda: "Token: " in terminal.shown)
        terminal.press(secret + "\n")
        assert terminal.wait() == 0
    assert secret not in terminal.shown
    assert secret in home.login.read_text()


def test_login_with_a_wrong_token_changes_nothing(locked: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("login", locked.url, stdin=token(locked, "read"))
    before = home.login.read_bytes()
    assert "unauthenticated" in home.run("login", locked.url, stdin="spool_wrong", code=4).complaint
    assert home.login.read_bytes() == before


def test_variables_go_before_the_login(locked: Server, shared: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("login", locked.url, stdin=token(locked, "read"))
    home.environment["SPOOL_TOKEN"] = "spool_wrong"
    assert "unauthenticated" in home.run("ls", code=4).complaint
    home.environment["SPOOL_URL"] = shared.url
    del home.environment["SPOOL_TOKEN"]
    home.run("ls")


def test_token_of_the_login_is_sent_to_its_server_only(locked: Server, shared: Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("login", locked.url, stdin=token(locked, "read"))
    with Proxy(shared.port) as proxy:
        home.run("ls", "--to", proxy.url)
        assert "authorization" not in proxy.requests[0].headers
    with Proxy(locked.port) as proxy:
        home.environment["SPOOL_TOKEN"] = token(locked, "read")
        home.run("ls", "--to", proxy.url)
        assert "authorization" in proxy.requests[0].headers


def test_login_that_cannot_be_read_is_told(home: Home) -> None:
    home.login.parent.mkdir(parents=True)
    home.login.write_text("url = [")
    assert "spool login" in home.run("put", "a", code=2).complaint


# completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_flags(home: Home, shell: str) -> None:
    script = home.run("completion", shell).out
    assert "token" in script
    assert "expires" in script


def test_bash_completes_commands_flags_and_files(home: Home) -> None:
    (home.directory / "completion").write_text(home.run("completion", "bash").out)
    song(home)

    def complete(*words: str) -> set[str]:
        line = " ".join(words)
        script = (
            "source completion; "
            f'COMP_WORDS=({line} ""); [[ "{line}" == *" " ]] || unset "COMP_WORDS[-1]"; '
            f'COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; '
            '_shtab_spool; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=home.directory, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert {"put", "get", "rm", "link", "login"} <= complete("spool", "")
    assert complete("spool", "put", "--exp") == {"--expires"}
    assert complete("spool", "link", "--re") == {"--revoke"}
    assert "song.txt" in complete("spool", "put", "so")
