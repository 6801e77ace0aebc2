"""The handler that aiohttp's documentation shows for large uploads: read_chunk, and write to a plain file."""

import itertools
import sys
from pathlib import Path

from aiohttp import web

PORT, DIRECTORY = int(sys.argv[1]), Path(sys.argv[2])
names = itertools.count()


async def store(request: web.Request) -> web.Response:
    reader = await request.multipart()
    field = await reader.next()
    name = f"{next(names)}.bin"
    with (DIRECTORY / name).open("wb") as file:
        while chunk := await field.read_chunk():  # 8192 bytes by default
            file.write(chunk)
    return web.Response(status=201, text=f"/files/{name}")


async def serve(request: web.Request) -> web.FileResponse:
    return web.FileResponse(DIRECTORY / request.match_info["name"])


app = web.Application()
app.add_routes([web.post("/files", store), web.get("/files/{name}", serve)])
web.run_app(app, host="127.0.0.1", port=PORT, print=None)
