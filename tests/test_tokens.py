from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

from spool.tokens import hash_secret, new_token

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
