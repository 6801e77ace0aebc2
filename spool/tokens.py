"""Secrets: those of tokens, grants, links and files, and the pass phrases of grants. What is kept of them is a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from spool.model import Grant, GrantId, Link, LinkId, Token, TokenId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from spool.model import FileId

_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 5}
"""16 MiB, and some 200 ms of one processor: what a guess costs whoever has stolen the index."""


def new_secret() -> str:
    """256 random bits, in characters that an address takes as they are."""
    return secrets.token_urlsafe(32)


def new_token(name: str, scopes: Iterable[str], now: datetime, expires_at: datetime | None) -> tuple[Token, str]:
    """A token and its secret: 256 random bits that nobody can be told again."""
    token = Token(TokenId(secrets.token_hex(8)), name, frozenset(scopes), now, expires_at)
    return token, f"spool_{new_secret()}"


def new_grant(owner: str, now: datetime, expires_at: datetime, *, max_files: int) -> tuple[Grant, str]:
    """A grant without any other bound, and its secret, likewise."""
    return Grant(GrantId(secrets.token_hex(8)), owner, "", now, expires_at, max_files), new_secret()


def new_link(file_id: FileId, created_by: str, now: datetime, expires_at: datetime) -> tuple[Link, str]:
    """A link without a limit on downloads, and its secret, likewise."""
    return Link(LinkId(secrets.token_hex(8)), file_id, created_by, now, expires_at), new_secret()


def hash_secret(secret: str) -> str:
    """What the index keeps of a secret. It is too random to be guessed, so that a plain hash cannot be turned back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def is_secret(secret: str, hash_: str | None) -> bool:
    """Whether this is the secret with this hash, in a time that does not depend on it."""
    return hmac.compare_digest(hash_secret(secret), hash_ or "")


def hash_passphrase(passphrase: str) -> str:
    """What the index keeps of a pass phrase, which a person chose: salted, and slow to make. It blocks."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_scrypt(passphrase, salt).hex()}"


def is_passphrase(passphrase: str, hash_: str) -> bool:
    """Whether `hash_passphrase` made this of the pass phrase, in a time that does not depend on it. It blocks."""
    salt, _, key = hash_.partition("$")
    return hmac.compare_digest(_scrypt(passphrase, bytes.fromhex(salt)), bytes.fromhex(key))


def _scrypt(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode("utf-8", "surrogateescape"), salt=salt, dklen=32, **_SCRYPT)
