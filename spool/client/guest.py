"""A guest: who has the address of a grant, and no token."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from spool.client.connection import Connection
from spool.client.deletion import delete_by
from spool.client.failures import StrangeAnswer
from spool.client.file import Sent
from spool.client.patience import persist
from spool.client.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ADDRESS: Final = re.compile(r"(https?://[^\s?#]+/g/[^\s/?#]+)/?")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the owner of a grant tells its guests."""

    note: str
    expires_at: datetime
    types: list[str]
    """Globs, of which the detected media type must match one; every type if there is none."""
    max_file_size: int
    """In bytes."""
    files_left: int
    bytes_left: int | None
    """None is without limit."""


class Guest(Uploader[Sent]):
    """Stores files by a grant; what was stored is its owner's, and there is no way to the bytes."""

    def __init__(
        self, address: str, passphrase: str | None = None, *, state: Path | None = None, tries: int = 6
    ) -> None:
        """`address` is that of the grant, which ends with `/g/` and its secret; `state` and `tries` are as a Client's.

        Raises ValueError.
        """
        match = _ADDRESS.fullmatch(address)
        if not match:
            raise ValueError("this is not the address of a guest link, which ends with /g/ and a secret")
        connection = Connection(match[1], None if passphrase is None else _proof(passphrase))
        super().__init__(connection, Sent, place="/", state=state, tries=tries)

    async def invitation(self) -> Invitation:
        """What may come by the grant. Raises NotFound, Gone, PassphraseRequired."""
        return _parse_invitation((await persist(self._tries, lambda: self._connection.ask("GET", ""))).json())

    async def delete(self, delete_url: str) -> None:
        """A file that a guest sent is gone, durably; its `Sent` has the address, which works as long as the grant does.

        Raises NotFound, but not for what an earlier try of this call has deleted; ValueError for another address.
        """
        server = self._connection.url.rpartition("/g/")[0]
        await delete_by(delete_url, server=server, tries=self._tries)


def is_guest_link(address: str) -> bool:
    """Whether this is the address of a grant, and none of a server."""
    return _ADDRESS.fullmatch(address) is not None


def _proof(passphrase: str) -> str:
    """The pass phrase as the password of Basic authentication (RFC 7617)."""
    return f"Basic {base64.b64encode(b'guest:' + passphrase.encode('utf-8', 'surrogateescape')).decode()}"


def _parse_invitation(document: Mapping[str, Any]) -> Invitation:
    """Members that are unknown are passed over. Raises StrangeAnswer."""
    try:
        known = {field.name: document[field.name] for field in fields(Invitation)}
        known["expires_at"] = datetime.fromisoformat(known["expires_at"])
    except (KeyError, TypeError, ValueError) as error:
        raise StrangeAnswer(f"this is not what a guest link says: {error!r}") from error
    return Invitation(**known)
