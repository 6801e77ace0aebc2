"""The units in deploy/, and what a server under systemd does; no systemd has to run."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process import Server, curl, eventually, free_port, lacking, strace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNITS = ("spool.service", "spool.socket")
MOST_EXPOSURE = 20
"""In tenths of what `systemd-analyze security` tells: 0 is nothing, 100 all."""

LISTEN = """
import os, socket, sys
family, address = sys.argv[1:3]
given = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
given.bind(address if family == "unix" else (address, 0))
given.listen() if family != "deaf" else None
os.dup2(given.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Runs a command with a socket, as systemd does."""
DENY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(65, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS, PR_SET_MDWE
    sys.exit("cannot")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command under NoNewPrivileges and MemoryDenyWriteExecute, as the kernel enforces them."""


def listening(family: str, address: str) -> list[str]:
    """The command that runs another one with such a socket."""
    return [sys.executable, "-c", LISTEN, family, address]


def tool(name: str) -> str:
    found = shutil.which(name)
    return found or lacking(f"{name} is not installed")


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units, whose program is one that is there."""
    for name in UNITS:
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/spool/bin/spool", shutil.which("true") or ""))
    return [str(tmp_path / name) for name in UNITS]


def use(server: Server) -> None:
    """A bit of everything that a server does."""
    form = curl("-F", "file=@-;filename=a.txt", f"{server.url}/files", stdin=b"hello").json["files"][0]
    curl("-T-", f"{server.url}/files/large", stdin=bytes(3_000_000))
    curl("-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 9", f"{server.url}/tus")
    assert curl(f"{server.url}/media/{form['id']}/a").body == b"hello"
    assert curl(f"{server.url}/metrics").status == curl(f"{server.url}/readyz").status == 200
    assert curl("-X", "DELETE", f"{server.url}/files/{form['id']}").status == 204


class TestUnits:
    def test_are_right(self, units: list[str]) -> None:
        done = subprocess.run([tool("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_leave_little_exposed(self, units: list[str]) -> None:
        command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", units[0]]
        done = subprocess.run([*command, "--no-pager"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_give_a_server_as_long_as_it_may_take_to_stop(self) -> None:
        text = (DEPLOY / "spool.service").read_text()
        assert "TimeoutStopSec=70s" in text  # 30 s of grace, 30 s for commits, and some
        assert "Type=notify" in text


def allowed_calls(unit: str) -> set[str]:
    """The system calls that the unit's filters let through."""
    sets = re.split(r"\n(?=@)", subprocess.check_output([tool("systemd-analyze"), "syscall-filter"], text=True))
    members = {block.split()[0]: re.findall(r"^ {4}([@\w-]+)", block, re.MULTILINE) for block in sets if block}

    def expand(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for member in members[name] for call in expand(member)}

    found: set[str] = set()
    for filter_ in re.findall(r"^SystemCallFilter=(.+)$", Path(unit).read_text(), re.MULTILINE):
        calls = set().union(*(expand(name) for name in filter_.removeprefix("~").split()))
        found = found - calls if filter_.startswith("~") else found | calls
    return found | expand("@default")


def test_server_makes_no_system_call_that_its_unit_forbids(tmp_path: Path) -> None:
    strace("fsync", "delay_enter=0")  # it is there
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace)]
    server = Server(tmp_path / "spool", prefix=prefix).start()
    try:
        use(server)
    finally:
        own = int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[0])
        os.kill(own, signal.SIGTERM)
        server.wait()
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"fsync", "openat", "accept4"} <= made
    roots = {"fchown"}  # SQLite gives its log to whoever has the index, if it may
    assert made - allowed_calls(str(DEPLOY / "spool.service")) - {"execve"} - roots == set()


def test_server_works_without_memory_that_is_written_and_run(tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-c", DENY, shutil.which("true") or ""], check=False).returncode:
        lacking("this kernel has no PR_SET_MDWE")
    with Server(tmp_path / "spool", prefix=[sys.executable, "-c", DENY]) as server:
        use(server)
        assert server.stop() == 0


class TestSocketActivation:
    def test_given_socket_is_listened_on(self, tmp_path: Path) -> None:
        with Server(tmp_path / "spool", "--port", "1", prefix=listening("inet", "127.0.0.1")) as server:
            assert server.port > 1
            assert curl(f"{server.url}/files").status == 200  # no token: nobody else can connect
            server.put("a", b"hello")
            assert server.stop() == 0

    def test_given_socket_that_others_reach_needs_a_token(self, tmp_path: Path) -> None:
        """Whatever the configuration says: it is not what is listened on."""
        with Server(tmp_path / "spool", "--host", "127.0.0.1", prefix=listening("inet", "0.0.0.0")) as server:
            assert curl(f"http://127.0.0.1:{server.port}/files").status == 401
            assert "admin token, shown only now" in server.log()

    def test_given_unix_socket_is_listened_on_and_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with Server(tmp_path / "spool", prefix=listening("unix", str(path))) as server:
            assert server.url == f"unix:{path}"
            assert curl("--unix-socket", str(path), "http://localhost/files").status == 200
            assert server.stop() == 0
        assert path.is_socket()  # its maker's to remove

    @pytest.mark.parametrize("given", [["deaf", "127.0.0.1"]])
    def test_given_descriptor_that_takes_no_connections_is_told_in_a_line(
        self, tmp_path: Path, given: Sequence[str]
    ) -> None:
        server = Server(tmp_path / "spool", prefix=listening(*given)).spawn()
        assert server.wait() == 1
        assert "spool: descriptor 3, which LISTEN_FDS names, takes no connections" in server.log()
        assert "Traceback" not in server.log()

    def test_descriptors_of_another_process_are_not_taken(self, tmp_path: Path) -> None:
        with Server(tmp_path / "spool", env={"LISTEN_FDS": "1", "LISTEN_PID": "1"}) as server:
            assert curl(f"{server.url}/files").status == 200

    def test_client_that_comes_while_the_server_starts_waits_for_it(self, tmp_path: Path) -> None:
        """systemd-socket-activate is what systemd does, by its own hands: it starts a server for the first client."""
        port = free_port()
        command = [tool("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", sys.executable, "-m", "spool", "serve"]
        activated = subprocess.Popen(
            [*command, "--dir", str(tmp_path / "spool")], stderr=subprocess.PIPE, env={**os.environ}
        )
        try:
            assert activated.stderr is not None
            assert b"Listening on" in activated.stderr.readline()
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/readyz")
                assert connection.getresponse().status == 200
        finally:
            activated.terminate()
            activated.communicate(timeout=60)


class Listener:
    """What systemd is to a service: a socket on which it hears how it is."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(60)

    def hear(self) -> str:
        return self.socket.recv(1024).decode()

    def rest(self) -> int:
        """How many messages come until none comes for a second."""
        self.socket.settimeout(1)
        for count in range(100):
            try:
                self.hear()
            except TimeoutError:
                return count
        raise AssertionError("it is told again and again")


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Listener, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@spool-test-{os.getpid()}"
    listener = Listener(name.replace("@", "\0", 1) if name.startswith("@") else name)
    with closing(listener.socket):
        yield listener, name


class TestNotification:
    def test_tells_that_it_is_ready_and_that_it_stops(self, tmp_path: Path, listener: tuple[Listener, str]) -> None:
        heard, name = listener
        with Server(tmp_path / "spool", env={"NOTIFY_SOCKET": name}) as server:
            assert heard.hear() == "READY=1"
            assert curl(f"{server.url}/readyz").status == 200
            server.terminate()
            assert heard.hear() == "STOPPING=1"
            assert server.wait() == 0

    def test_tells_that_it_is_not_stuck(self, tmp_path: Path, listener: tuple[Listener, str]) -> None:
        heard, name = listener
        env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        with Server(tmp_path / "spool", env=env) as server:
            assert [heard.hear() for _ in range(4)] == ["READY=1", *["WATCHDOG=1"] * 3]
            server.signal(signal.SIGSTOP)
            eventually(server.stopped)
            assert heard.rest() < 10  # then it is stuck, and systemd would restart it

    def test_serves_where_nobody_listens(self, tmp_path: Path) -> None:
        with Server(tmp_path / "spool", env={"NOTIFY_SOCKET": str(tmp_path / "nothing")}) as server:
            assert curl(f"{server.url}/readyz").status == 200
            assert server.stop() == 0
            assert [event["level"] for event in server.events("systemd.unheard")] == ["warning"] * 2
