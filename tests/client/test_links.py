"""Links to files, by `spool link` and from Python: with a real server and with a strange one."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.client import Client, StrangeAnswer
from spool.errors import BadRequest, Forbidden, NotFound
from tests.client.command import Home
from tests.client.test_client import problem, stubbed
from tests.process import Server, curl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SONG = b"la la la"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("links") / "spool") as running:
        yield running


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Home:
    return Home(tmp_path / "home", SPOOL_URL=server.url)


@pytest.fixture
def file(server: Server) -> dict[str, Any]:
    return server.put("song.txt", SONG)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


def token(server: Server, name: str, *scopes: str) -> str:
    home = Home(server.dir.with_name("operator"))
    flags = [flag for scope in scopes for flag in ("--scope", scope)]
    return home.run("token", "create", "--dir", server.dir, "--name", name, *flags).out.strip()


def listed(home: Home, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in home.run("link", file, "--list", "--json").out.splitlines()]


# commands


def test_link_prints_an_address_that_gives_the_file(home: Home, file: dict[str, Any]) -> None:
    done = home.run("link", file["id"])
    assert done.err == ""
    [address] = done.out.splitlines()
    assert curl(address).body == SONG


def test_link_takes_the_address_of_a_file(server: Server, file: dict[str, Any], tmp_path: Path) -> None:
    [address] = Home(tmp_path / "nowhere").run("link", file["url"]).out.splitlines()
    assert address.startswith(f"{server.url}/l/")


def test_link_ends_when_it_was_said_to(home: Home, file: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    link = json.loads(home.run("link", file["id"], "--expires", "12h", "--downloads", "1", "--json").out)
    ends = datetime.fromisoformat(link["expires_at"])
    assert before + timedelta(hours=11) < ends < before + timedelta(hours=13)
    assert link["max_downloads"] == 1
    assert [curl(link["url"]).status for _ in range(2)] == [200, 410]
    [told] = listed(home, file["id"])
    assert told == {name: link[name] for name in link if name != "url"} | {"downloads": 1}


def test_list_is_for_people_and_tells_no_address(home: Home, file: dict[str, Any]) -> None:
    address = home.run("link", file["id"], "--downloads", "3").out.strip()
    home.run("link", file["id"])
    curl(address)
    newest, first = home.run("link", file["id"], "--list").out.splitlines()
    assert re.fullmatch(r"\w+  local +  any downloads  expires \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", newest)
    assert re.fullmatch(r"\w+  local +  1/3 downloads  expires \S+", first)
    assert address.rpartition("/")[2] not in first


def test_revoked_link_gives_nothing_and_is_listed_as_such(home: Home, file: dict[str, Any]) -> None:
    kept, revoked = (json.loads(home.run("link", file["id"], "--json").out) for _ in range(2))
    done = home.run("link", file["id"], "--revoke", revoked["id"])
    assert (done.out, done.err) == ("", "")
    assert curl(revoked["url"]).status == 410
    assert curl(kept["url"]).body == SONG
    states = {line.split()[0]: line.split()[-2] for line in home.run("link", file["id"], "--list").out.splitlines()}
    assert states == {kept["id"]: "expires", revoked["id"]: "revoked"}


@pytest.mark.parametrize("arguments", [[], ["--list"], ["--revoke", "x"]])
def test_file_that_is_not_there_is_told(home: Home, arguments: list[str]) -> None:
    assert home.run("link", "nosuch", *arguments, code=4).complaint == "nosuch: There is no such file (not-found)"


def test_link_that_is_not_there_is_told(home: Home, file: dict[str, Any]) -> None:
    line = home.run("link", file["id"], "--revoke", "nosuch", code=4).complaint
    assert line == f"{file['id']}: there is no such link (not-found)"


def test_link_for_more_downloads_than_there_may_be_is_told(home: Home, file: dict[str, Any]) -> None:
    assert home.run("link", file["id"], "--downloads", "1000001", code=4).complaint.endswith("(bad-request)")


def test_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", SPOOL_URL="http://127.0.0.1:1")
    line = home.run("link", "x", "--tries", "1", code=5).complaint
    assert line == "x: http://127.0.0.1:1 cannot be reached: Connection refused"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--downloads", "0"], "from 1 up"),
        (["--expires", "soon"], "duration"),
        (["--list", "--revoke", "x"], "not allowed with"),
        (["--list", "--downloads", "1"], "--list"),
        (["--revoke", "x", "--expires", "1h"], "--revoke"),
    ],
)
def test_misuse_is_told(home: Home, arguments: list[str], what: str) -> None:
    assert what in home.run("link", "x", *arguments, code=2).err.splitlines()[-1]


def test_link_of_another_cannot_be_revoked(tmp_path: Path) -> None:
    with Server(tmp_path / "spool") as server:
        ada, bob = (
            Home(tmp_path / name, SPOOL_URL=server.url, SPOOL_TOKEN=token(server, name, "read", "upload"))
            for name in ("ada", "bob")
        )
        (ada.directory / "song.txt").write_bytes(SONG)
        file = json.loads(ada.run("put", "--json", "song.txt").out)["id"]
        link = json.loads(ada.run("link", file, "--json").out)
        assert "forbidden" in bob.run("link", file, "--revoke", link["id"], code=4).complaint
        assert curl(link["url"]).body == SONG
        own = json.loads(bob.run("link", file, "--json").out)
        assert own["created_by"] == "bob"
        bob.run("link", file, "--revoke", own["id"])


# Python


async def test_link_from_python_has_all_that_its_record_says(client: Client, server: Server) -> None:
    file = await client.put(io.BytesIO(SONG), filename="song.txt")
    before = datetime.now(UTC)
    made = await client.link(file.id, expires=timedelta(hours=1), downloads=2)
    assert (made.file_id, made.created_by, made.max_downloads, made.downloads) == (file.id, "local", 2, 0)
    assert before + timedelta(minutes=50) < made.expires_at < before + timedelta(minutes=70)
    assert made.url.startswith(f"{server.url}/l/")
    assert made.url not in repr(made)
    assert curl(made.url).body == SONG

    [link] = await client.links(file.url)
    assert (link.id, link.downloads, link.revoked_at) == (made.id, 1, None)
    await client.revoke_link(file.id, made.id)
    await client.revoke_link(file.id, made.id)
    [link] = await client.links(file.id)
    assert link.revoked_at is not None
    assert curl(made.url).status == 410


async def test_link_without_limits_lasts_as_long_as_the_server_says(client: Client) -> None:
    file = await client.put(io.BytesIO(SONG))
    made = await client.link(file.id)
    assert (made.max_downloads, made.downloads, made.revoked_at) == (None, None, None)
    assert made.expires_at - made.created_at == timedelta(days=7)


async def test_links_of_what_is_not_there_are_not_found(client: Client) -> None:
    for question in (client.link("nosuch"), client.links("nosuch"), client.revoke_link("nosuch", "x")):
        with pytest.raises(NotFound):
            await question


async def test_link_that_the_server_refuses_is_not_asked_for_again() -> None:
    async with stubbed(problem("bad-request", 400)) as (client, stub):
        with pytest.raises(BadRequest):
            await client.link("x", downloads=0)
    assert len(stub.asked) == 1


async def test_link_is_asked_for_again_when_the_answer_was_lost() -> None:
    known = {"id": "l", "file_id": "x", "created_by": "o", "revoked_at": None, "max_downloads": 1, "downloads": 0}
    known |= {"created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-08T00:00:00Z", "url": "u", "new": 1}
    async with stubbed(None, (201, {}, json.dumps(known).encode())) as (client, stub):
        assert (await client.link("x", downloads=1)).url == "u"
    assert [head.split()[:2] for head in stub.asked] == [["POST", "/files/x/links"]] * 2


@pytest.mark.parametrize("answer", [{}, {"links": {}}, {"links": [{"id": "x"}]}, {"links": [7]}])
async def test_answer_that_is_no_list_of_links_is_not_taken_for_one(answer: object) -> None:
    async with stubbed((200, {}, json.dumps(answer).encode())) as (client, _):
        with pytest.raises(StrangeAnswer):
            await client.links("x")


async def test_name_of_a_link_does_not_lead_elsewhere() -> None:
    async with stubbed(problem("forbidden", 403)) as (client, stub):
        with pytest.raises(Forbidden):
            await client.revoke_link("x", "../../y?z")
    assert stub.asked[0].split()[:2] == ["DELETE", "/files/x/links/..%2F..%2Fy%3Fz"]
