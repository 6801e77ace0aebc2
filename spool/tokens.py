"""Tokens: how a principal proves itself."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from spool.model import Token, TokenId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def new_token(name: str, scopes: Iterable[str], now: datetime, expires_at: datetime | None) -> tuple[Token, str]:
    """A token and its secret: 256 random bits that nobody can be told again."""
    token = Token(TokenId(secrets.token_hex(8)), name, frozenset(scopes), now, expires_at)
    return token, f"spool_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """What the index keeps of a secret. It is too random to be guessed, so that a plain hash cannot be turned back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
