from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta

from spool.model import FileId
from spool.tokens import (
    hash_passphrase,
    hash_secret,
    is_passphrase,
    is_secret,
    new_grant,
    new_link,
    new_secret,
    new_token,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_token_says_what_it_was_made_for() -> None:
    token, _ = new_token("cam1", ["upload", "read", "upload"], NOON, NOON + timedelta(days=1))
    assert token.name == "cam1"
    assert token.scopes == {"upload", "read"}
    assert token.created_at == NOON
    assert token.expires_at == NOON + timedelta(days=1)


def test_secret_holds_256_bits_behind_a_prefix_that_scanners_find() -> None:
    _, secret = new_token("cam1", ["upload"], NOON, None)
    prefix, _, random = secret.partition("_")
    assert prefix == "spool"
    assert len(base64.urlsafe_b64decode(random + "=")) == 32


def test_secrets_and_ids_never_repeat() -> None:
    made = [new_token("cam1", ["upload"], NOON, None) for _ in range(100)]
    assert len({token.id for token, _ in made}) == 100
    assert len({secret for _, secret in made}) == 100


def test_token_does_not_give_its_secret_away() -> None:
    token, secret = new_token("cam1", ["upload"], NOON, None)
    assert secret.removeprefix("spool_") not in repr(token)


def test_hash_is_the_hex_sha256_of_the_secret() -> None:
    assert hash_secret("spool_x") == hashlib.sha256(b"spool_x").hexdigest()


def test_hash_takes_what_a_header_may_hold() -> None:
    assert hash_secret("\udcff") == hashlib.sha256(b"\xff").hexdigest()


def test_secrets_of_addresses_hold_256_bits_and_need_no_escape() -> None:
    made = [new_grant("ada", NOON, NOON, max_files=1)[1], new_link(FileId("x"), "ada", NOON, NOON)[1], new_secret()]
    for secret in made:
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32


def test_secret_is_known_by_its_hash() -> None:
    secret = new_secret()
    assert is_secret(secret, hash_secret(secret))
    assert not is_secret(secret + "x", hash_secret(secret))
    assert not is_secret(secret, None)
    assert not is_secret("", None)


def test_pass_phrase_is_kept_salted_and_slowly() -> None:
    kept = [hash_passphrase("öffne dich") for _ in range(2)]
    assert kept[0] != kept[1]
    assert all(is_passphrase("öffne dich", hash_) for hash_ in kept)
    assert not is_passphrase("öffne dich ", kept[0])
    salt, _, key = kept[0].partition("$")
    assert key == hashlib.scrypt("öffne dich".encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=5, dklen=32).hex()
