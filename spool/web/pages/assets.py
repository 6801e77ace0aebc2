"""What the pages are made with: `GET /ui/{version}/{name}`, from memory."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from aiohttp import web

from spool.errors import NotFound

_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Assets:
    """Every file of `spool/web/ui/`, under an address that changes with any of them."""

    def __init__(self) -> None:
        """Reads them all."""
        folder = resources.files("spool.web").joinpath("ui")
        names = sorted(file.name for file in folder.iterdir() if file.name.endswith(tuple(_TYPES)))
        self._files = {name: folder.joinpath(name).read_bytes() for name in names}
        digest = hashlib.sha256()
        for name, data in self._files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        self.version = digest.hexdigest()[:16]

    def address(self, name: str) -> str:
        """Where the file is. Raises KeyError if there is none."""
        return f"/ui/{self.version}/{name if self._files[name] else ''}"

    def read(self, name: str) -> bytes:
        """Raises NotFound."""
        if name not in self._files:
            raise NotFound("there is nothing at this address")
        return self._files[name]


ASSETS: Final = web.AppKey("assets", Assets)


async def asset(request: web.Request) -> web.Response:
    """`GET /ui/{version}/{name}`. Of another version than ours, so that it must not be kept, too."""
    assets, name = request.app[ASSETS], request.match_info["name"]
    current = request.match_info["version"] == assets.version
    return web.Response(
        body=assets.read(name),
        content_type=_TYPES["." + name.rpartition(".")[2]],
        charset="utf-8",
        headers={
            "Cache-Control": "public, max-age=31536000, immutable" if current else "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )
