"""Uploads are gone with their last reference: what waits for the collector of cycles would hold its bytes meanwhile."""

from __future__ import annotations

import base64
import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.conftest import form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.web.conftest import Spool

BODY = bytes(100_000)
FORM, FORM_TYPE = form(("f", "a.bin", BODY))
TUS = {
    "Tus-Resumable": "1.0.0",
    "Upload-Length": str(len(BODY)),
    "Content-Type": "application/offset+octet-stream",
    "Upload-Metadata": f"filename {base64.b64encode(b'a').decode()}",
}
WRONG = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"
MADE_OF = ("spool.model", "spool.protocol.multipart", "spool.web.body", "spool.web.upload", "aiohttp.web")


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def cycles() -> list[str]:
    """What a request is made of, and only the collector could free."""
    gc.collect()
    found = {type(each) for each in gc.garbage}
    return sorted(each.__qualname__ for each in found if each.__module__.startswith(MADE_OF))


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (201, "PUT", "/files/a.bin", BODY, {}),
        (201, "PUT", "/files/a.bin", BODY[:1000], {}),
        (201, "POST", "/files", FORM, FORM_TYPE),
        (201, "POST", "/tus", BODY, TUS),
        (400, "PUT", "/files/a.bin", BODY, {"Content-Digest": WRONG}),
        (400, "POST", "/files", FORM[:-20], FORM_TYPE),
        (413, "PUT", "/files/a.bin", BODY, {"Content-Length": "99999999999999999"}),
    ],
)
@pytest.mark.usefixtures("uncollected")
async def test_upload_leaves_no_cycles(  # noqa: PLR0913, PLR0917  # a table reads best
    spool: Spool, status: int, method: str, path: str, body: bytes, headers: dict[str, Any]
) -> None:
    answer = await spool.request(method, path, data=body, headers=headers)
    assert answer.status == status, answer.body
    assert cycles() == []
