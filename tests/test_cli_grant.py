"""`spool grant` as a person runs it."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from spool.store import open_index
from spool.tokens import hash_secret, is_passphrase
from tests.test_cli import complaint, misuse, spool

if TYPE_CHECKING:
    from pathlib import Path

    from spool.model import Grant


def kept(directory: Path, secret: str) -> Grant:
    async def read() -> Grant:
        async with aclosing(await open_index(directory)) as index:
            grant = await index.grant_of(hash_secret(secret))
            assert grant is not None
            return grant

    return asyncio.run(read())


def test_address_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("öffne dich\nsecond line\n")
    arguments = "--owner ada --note Hello --max-files 3 --max-size 1GiB --max-file-size 5MB --type image/* --type a/b"
    directory = tmp_path / "spool"
    printed = spool(
        "grant", "create", "--dir", directory, *arguments.split(), "--passphrase-file", tmp_path / "phrase",
        SPOOL_SERVER_BASE_URL="https://spool.example.org",
    ).stdout  # fmt: skip
    address, _, secret = printed.strip().rpartition("/")
    assert address == "https://spool.example.org/g"
    grant = kept(directory, secret)
    assert (grant.owner, grant.note, grant.max_files, grant.types) == ("ada", "Hello", 3, ("image/*", "a/b"))
    assert (grant.max_size, grant.max_file_size) == (2**30, 5 * 10**6)
    assert (grant.expires_at - grant.created_at).days == 7
    assert grant.passphrase
    assert is_passphrase("öffne dich", grant.passphrase)
    assert all(secret.encode() not in path.read_bytes() for path in directory.glob("index.db*"))


def test_without_an_address_of_its_own_the_one_it_listens_on_is_printed(tmp_path: Path) -> None:
    printed = spool("grant", "create", "--dir", tmp_path, "--owner=ada").stdout
    assert re.fullmatch(r"http://127\.0\.0\.1:8080/g/[\w-]{43}\n", printed)


def test_owner_whom_nobody_knows_is_told(tmp_path: Path) -> None:
    spool("token", "create", "--dir", tmp_path, "--name", "ada", "--scope", "read")
    assert spool("grant", "create", "--dir", tmp_path, "--owner=ada").stderr == ""
    made = spool("grant", "create", "--dir", tmp_path, "--owner=adda")
    assert "/g/" in made.stdout
    [line] = made.stderr.splitlines()
    assert line.startswith("spool: nothing is known of 'adda', in whose name guests will upload")
    assert spool("grant", "create", "--dir", tmp_path, "--owner=adda").stderr == ""  # by the grant before


def test_address_of_a_server_with_a_certificate_begins_with_https(tmp_path: Path) -> None:
    settings = {"SPOOL_SERVER_TLS_CERT": "cert.pem", "SPOOL_SERVER_TLS_KEY": "key.pem"}
    printed = spool("grant", "create", "--dir", tmp_path, "--owner=ada", **settings).stdout
    assert printed.startswith("https://127.0.0.1:8080/g/")


def test_listing_shows_all_but_the_secret(tmp_path: Path) -> None:
    secrets = [
        spool("grant", "create", "--dir", tmp_path, "--owner", owner, "--note", "a\x1b[31mb").stdout.rpartition("/")[2]
        for owner in ("ada", "bob")
    ]
    lines = spool("grant", "ls", "--dir", tmp_path).stdout.splitlines()
    assert [line.split()[1:8] for line in lines] == [
        [owner, "0/100", "files", "0/any", "bytes", "expires", line.split()[7]]
        for owner, line in zip(("ada", "bob"), lines, strict=True)
    ]
    assert not any(secret.strip() in line or "\x1b" in line for secret in secrets for line in lines)
    assert spool("grant", "ls", "--dir", tmp_path, "--owner", "bob").stdout.splitlines() == lines[1:]


def test_revoked_grant_is_told_so(tmp_path: Path) -> None:
    spool("grant", "create", "--dir", tmp_path, "--owner=ada")
    id_ = spool("grant", "ls", "--dir", tmp_path).stdout.split()[0]
    assert spool("grant", "revoke", "--dir", tmp_path, id_).stdout == ""
    assert spool("grant", "ls", "--dir", tmp_path).stdout.split()[6] == "revoked"
    assert "no such grant" in complaint("grant", "revoke", "--dir", tmp_path, "x", code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--owner= "],
        ["--owner=a", "--max-files=100001"],
        ["--owner=a", "--note", "x" * 4097],
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, arguments: list[str]) -> None:
    assert misuse("grant", "create", "--dir", tmp_path, *arguments)


@pytest.mark.parametrize("text", ["\nsecond", "x" * 1025])
def test_pass_phrase_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "phrase").write_text(text)
    arguments = ("grant", "create", "--dir", tmp_path, "--owner=ada", "--passphrase-file", tmp_path / "phrase")
    assert "pass phrase" in complaint(*arguments, code=2)


def test_audit_log_tells_who_made_and_revoked_it(tmp_path: Path) -> None:
    spool("grant", "create", "--dir", tmp_path, "--owner", "ada", "--note", "Hello")
    id_ = spool("grant", "ls", "--dir", tmp_path).stdout.split()[0]
    spool("grant", "revoke", id_, "--dir", tmp_path)
    lines = spool("audit", "--dir", tmp_path).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["grant.created", "grant.revoked"]
    assert all(f"via=command subject={id_} owner=ada" in line for line in lines)
