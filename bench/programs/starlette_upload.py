"""Starlette's UploadFile, copied to a file in a thread, under uvicorn."""

import itertools
import shutil
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

PORT, DIRECTORY = int(sys.argv[1]), Path(sys.argv[2])
names = itertools.count()


def copy(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)


async def store(request: Request) -> PlainTextResponse:
    async with request.form() as form:
        name = f"{next(names)}.bin"
        await run_in_threadpool(copy, form["file"], DIRECTORY / name)
    return PlainTextResponse(f"/{name}", status_code=201)


uvicorn.run(Starlette(routes=[Route("/", store, methods=["POST"])]), host="127.0.0.1", port=PORT, log_level="warning")
