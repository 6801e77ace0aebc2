"""Uploads to a guest link, by `spool put` and from Python: with a real server, over a real proxy."""

from __future__ import annotations

import hashlib
import json
from asyncio import to_thread
from typing import TYPE_CHECKING

import pytest

from spool.client import Client, Guest
from spool.errors import BeyondGrant, Gone, NotFound, PassphraseRequired
from tests.client.command import Home, Terminal, finished
from tests.client.proxy import Proxy
from tests.client.test_client import stream
from tests.process import Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
PHRASE = "öffne dich"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("guests") / "spool") as running:
        home = Home(running.dir.with_name("admin"))
        home.run("token", "create", "--dir", running.dir, "--name", "ada", "--scope", "admin")
        yield running


@pytest.fixture
def operator(server: Server) -> Home:
    """Runs what is for the operator's directory."""
    return Home(server.dir.with_name("operator"), SPOOL_STORAGE_DIR=str(server.dir), SPOOL_SERVER_BASE_URL=server.url)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Has a token that no guest link is to see."""
    home = Home(tmp_path / "home", SPOOL_TOKEN="spool_x")
    (home.directory / "song.txt").write_text("la la la")
    (home.directory / "phrase").write_text(f"{PHRASE}\n")
    return home


def link(operator: Home, *arguments: str | Path) -> str:
    """The address of a new grant."""
    return operator.run("grant", "create", "--owner", "ada", *arguments).out.strip()


def guarded(operator: Home, home: Home) -> str:
    """That of one with a pass phrase."""
    return link(operator, "--passphrase-file", home.directory / "phrase")


def end_newest(operator: Home) -> None:
    operator.run("grant", "revoke", operator.run("grant", "ls").out.splitlines()[-1].split()[0])


def came(operator: Home) -> list[dict[str, object]]:
    """What is stored, newest first."""
    return [json.loads(line) for line in operator.run("ls", "--json").out.splitlines()]


# the command


def test_put_stores_the_file_for_the_owner_and_prints_what_deletes_it(operator: Home, home: Home) -> None:
    printed = home.run("put", "song.txt", "--to", link(operator), "--meta", "take=3")
    address, name = printed.out.split()
    assert (name, printed.err) == ("song.txt", "")
    [newest, *_] = came(operator)
    assert (newest["owner"], newest["filename"], newest["metadata"]) == ("ada", "song.txt", {"take": "3"})
    assert newest["sha256"] == hashlib.sha256(b"la la la").hexdigest()
    assert curl("-X", "DELETE", address).status == 204


def test_rm_deletes_by_what_put_printed_and_sends_no_token(server: Server, operator: Home, home: Home) -> None:
    first, second = (home.run("put", "song.txt", "--to", link(operator)).out.split()[0] for _ in range(2))
    with Proxy(server.port) as proxy:
        home.run("rm", first, second, "--to", proxy.url)
    assert [request.method for request in proxy.requests] == ["DELETE", "DELETE"]
    assert not any("authorization" in request.headers for request in proxy.requests)
    assert not {first.split("/")[4], second.split("/")[4]} & {file["id"] for file in came(operator)}
    secret = first.rpartition("/")[2]
    gone = home.run("rm", first, code=4).complaint
    assert gone.startswith(f"{first.removesuffix(secret)}...: ")
    assert gone.endswith("(not-found)")
    elsewhere = home.run("rm", first.replace("127.0.0.1", "localhost"), second, code=4)
    assert "another server" in elsewhere.err
    assert secret not in elsewhere.err


def test_rm_goes_on_when_the_answer_was_lost(server: Server, operator: Home, home: Home) -> None:
    address = home.run("put", "song.txt", "--to", link(operator)).out.split()[0]
    with Proxy(server.port) as proxy:
        proxy.cut_answer_to = {"DELETE"}
        home.run("rm", address, "--to", proxy.url)
    assert len(proxy.of("DELETE")) == 2


def test_put_tells_a_program_what_a_guest_knows(operator: Home, home: Home) -> None:
    home.environment["SPOOL_URL"] = f"{link(operator)}/"
    record = json.loads(home.run("put", "song.txt", "--json").out)
    assert {*record} == {"id", "filename", "size", "media_type", "sha256", "created_at", "expires_at", "delete_url"}
    assert (record["filename"], record["size"], record["media_type"]) == ("song.txt", 8, "text/plain")


def test_pass_phrase_is_read_from_a_file_or_a_variable(operator: Home, home: Home) -> None:
    address = guarded(operator, home)
    home.run("put", "song.txt", "--to", address, "--passphrase-file", "phrase")
    home.run("put", "song.txt", "--to", address, "--passphrase-file", "-", stdin=f"{PHRASE}\n")
    home.environment["SPOOL_PASSPHRASE"] = PHRASE
    home.run("put", "song.txt", "--to", address)


def test_pass_phrase_is_asked_for_at_a_terminal_and_not_shown(operator: Home, home: Home) -> None:
    with Terminal(home, "put", "song.txt", "--to", guarded(operator, home)) as terminal:
        eventually(lambda: "Pass phrase: " in terminal.shown)
        terminal.press(f"{PHRASE}\n")
        assert terminal.wait() == 0
    assert "song.txt" in terminal.shown
    assert PHRASE not in terminal.shown


def test_nobody_is_asked_for_a_pass_phrase_that_there_is_not(operator: Home, home: Home) -> None:
    with Terminal(home, "put", "song.txt", "--to", link(operator)) as terminal:
        assert terminal.wait() == 0
    assert "Pass phrase" not in terminal.shown


def test_end_of_the_terminal_is_no_pass_phrase(operator: Home, home: Home) -> None:
    with Terminal(home, "put", "song.txt", "--to", guarded(operator, home)) as terminal:
        eventually(lambda: "Pass phrase: " in terminal.shown)
        terminal.press("\x04")
        assert terminal.wait() == 4


def test_pass_phrase_that_is_wrong_or_missing_is_told_in_a_line(operator: Home, home: Home) -> None:
    address = guarded(operator, home)
    advice = "(passphrase-required); give it in SPOOL_PASSPHRASE, or by --passphrase-file"
    missing = home.run("put", "song.txt", "--to", address, code=4)
    assert missing.complaint == f"song.txt: this link asks for a pass phrase {advice}"
    (home.directory / "phrase").write_text("other")
    wrong = home.run("put", "song.txt", "--to", address, "--passphrase-file", "phrase", code=4)
    assert wrong.complaint == f"song.txt: this is not the pass phrase of this link {advice}"


def test_bounds_and_the_end_of_a_link_are_told_in_a_line(operator: Home, home: Home) -> None:
    address = link(operator, "--max-files=1", "--max-file-size=10", "--type=text/*")
    (home.directory / "long.txt").write_text("la la la la")
    (home.directory / "a.bin").write_bytes(bytes(range(10)))

    def complaint(name: str) -> str:
        return home.run("put", name, "--to", address, code=4).complaint

    assert complaint("long.txt") == "long.txt: the file is larger than 10 bytes (too-large)"
    assert complaint("a.bin").endswith("are not accepted here (bad-type)")
    home.run("put", "song.txt", "--to", address)
    assert complaint("song.txt").endswith("may come by this link (beyond-grant)")
    end_newest(operator)
    assert complaint("song.txt") == "song.txt: whoever gave out this link has revoked it (gone)"
    address = f"{address}x"
    assert complaint("song.txt") == "song.txt: there is no such link (not-found)"


def test_secret_is_neither_told_nor_kept(operator: Home, home: Home) -> None:
    address = link(operator).replace("127.0.0.1", "localhost")  # by which it is not told, so that it is ours
    secret = address.rpartition("/")[2]
    with Server(home.directory / "gone") as gone:
        nowhere = f"{gone.url}/g/{secret}"
    failed = home.run("put", "song.txt", "--to", nowhere, "--tries=1", code=5).complaint
    assert failed == f"song.txt: {nowhere.partition('/g/')[0]} cannot be reached: Connection refused"
    for arguments in (["ls"], ["rm", "x"], ["link", "x"], ["get", "x"], ["login"]):
        to = [address] if arguments == ["login"] else ["--to", address]
        refused = home.run(*arguments, *to, code=2).complaint
        assert refused == "this is a guest link, by which files come and none are shown: it is for `spool put`"


def test_pass_phrase_file_is_for_guest_links(server: Server, home: Home) -> None:
    arguments = ("put", "song.txt", "--to", server.url, "--passphrase-file", "phrase")
    assert "guest link" in home.run(*arguments, code=2).complaint
    assert "once only" in home.run("put", "-", "--passphrase-file", "-", code=2).complaint


def test_put_that_was_killed_goes_on(server: Server, operator: Home, home: Home) -> None:
    data = hashlib.shake_256(b"song").digest(8 * MIB)
    (home.directory / "a.bin").write_bytes(data)
    with Proxy(server.port) as proxy:
        arguments = ("put", "a.bin", "--to", f"{proxy.url}/g/{guarded(operator, home).rpartition('/')[2]}")
        home.environment["SPOOL_PASSPHRASE"] = PHRASE
        proxy.hold_at = 2 * MIB
        with home.start(*arguments) as process:
            eventually(lambda: proxy.held)
            process.kill()
            finished(process)
        [note] = home.notes
        assert arguments[-1].rpartition("/")[2] not in note.read_text()
        proxy.release()
        eventually(lambda: not proxy.ends)
        proxy.cut_answer_to = {"PATCH"}
        record = json.loads(home.run(*arguments, "--json").out)
    assert len(proxy.of("POST")) == 1
    assert len(proxy.of("PATCH")) == 3
    assert proxy.sent < len(data) + 3 * MIB
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["delete_url"] is None  # it was in the answer that was lost
    assert home.notes == []
    assert {request.headers["authorization"].split()[0] for request in proxy.requests} == {"Basic"}


# from Python


async def test_guest_learns_what_may_come_and_stores_a_stream(operator: Home) -> None:
    async with Guest(await to_thread(link, operator, "--note=Day 3", "--max-files=2", "--type=text/*")) as guest:
        invitation = await guest.invitation()
        assert (invitation.note, invitation.files_left, invitation.bytes_left) == ("Day 3", 2, None)
        assert (invitation.types, invitation.expires_at.tzinfo is None) == (["text/*"], False)
        sent = await guest.put(stream(b"la ", b"la"), filename="stream.txt")
        assert (sent.size, sent.media_type, sent.expires_at) == (5, "text/plain", None)
        assert (await guest.invitation()).files_left == 1
        await guest.put(stream(b"la"))
        with pytest.raises(BeyondGrant):
            await guest.put(stream(b"la"))


async def test_guest_deletes_what_it_sent(server: Server, operator: Home) -> None:
    async with Guest(await to_thread(link, operator)) as guest:
        sent = await guest.put(stream(b"la"))
        assert sent.delete_url is not None
        await guest.delete(sent.delete_url)
        with pytest.raises(NotFound):
            await guest.delete(sent.delete_url)
        known_otherwise = (await guest.put(stream(b"la"))).delete_url
        assert known_otherwise is not None
        await guest.delete(known_otherwise.replace("127.0.0.1", "spool.example.org"))
        with pytest.raises(ValueError, match="/d/"):
            await guest.delete(sent.id)
    assert sent.id not in {file["id"] for file in await to_thread(came, operator)}
    async with Client(server.url) as client:
        with pytest.raises(NotFound):
            await client.delete(sent.delete_url)
        with pytest.raises(ValueError, match="another server"):
            await client.delete(sent.delete_url.replace("127.0.0.1", "localhost"))


async def test_guest_is_told_why_not(operator: Home, home: Home) -> None:
    address = await to_thread(guarded, operator, home)
    async with Guest(address) as guest:
        with pytest.raises(PassphraseRequired):
            await guest.invitation()
    async with Guest(address, PHRASE) as guest:
        await to_thread(end_newest, operator)
        with pytest.raises(Gone):
            await guest.put(stream(b"la"))
    async with Guest(f"{address}x") as guest:
        with pytest.raises(NotFound):
            await guest.put(stream(b"la"))


@pytest.mark.parametrize("address", ["", "http://127.0.0.1", "http://127.0.0.1/g/", "127.0.0.1/g/x", "http://a/g/x?y"])
def test_what_is_no_guest_link_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="guest link"):
        Guest(address)
