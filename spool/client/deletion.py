"""Deleting a file: with a token, or by the address that a guest was told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from spool.client.connection import Connection
from spool.client.failures import Failure
from spool.client.patience import Patience
from spool.errors import NotFound, SpoolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ADDRESS: Final = re.compile(r"(https?://[^\s?#]+)(/d/[0-9a-f]+/)([^\s/?#]+)")


def split_delete_url(address: str) -> Sequence[str] | None:
    """The server in a `delete_url`, the path there but for its secret, and the secret; None for another address."""
    match = _ADDRESS.fullmatch(address)
    return match and match.groups()


async def delete_by(delete_url: str, *, server: str, tries: int) -> None:
    """The file is gone, durably; `server` is asked, whatever it calls itself, and gets no token.

    Raises NotFound; ValueError for another address.
    """
    found = split_delete_url(delete_url)
    if found is None:
        raise ValueError("this is not the address by which a guest deletes a file, which has /d/, an id and a secret")
    _, path, secret = found
    async with Connection(server, None) as connection:
        await delete_at(connection, f"{path}{secret}", tries)


async def delete_at(connection: Connection, path: str, tries: int) -> None:
    """What is at the path is gone, durably. Raises NotFound, but not for what an earlier try has deleted."""
    patience = Patience(tries)
    while True:
        try:
            await connection.ask("DELETE", path)
        except NotFound:
            if patience.failed:
                return
            raise
        except (SpoolError, Failure) as error:
            await patience.wait(error)
        else:
            return
