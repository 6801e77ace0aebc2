"""A client that uploads one file after the other, in every way there is."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.crash.book import FORM, Upload, content, form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from tests.crash.book import Content

SIZES = (0, 1, 5_000, 60_000, 400_000, 3_000_000)


@dataclass
class Uploader:
    """Uploads until the server is gone, or says that it is going."""

    port: int
    prefix: str
    random: Random
    kinds: Sequence[str] = ("form", "put", "chunked")
    may_refuse: bool = False
    """The server is about to stop: it may say so, instead of taking an upload."""
    uploads: list[Upload] = field(default_factory=list)

    def run(self) -> None:
        """Returns when the connection is lost; anything else that goes wrong it raises."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            for number in count():
                kind = self.random.choice(self.kinds)
                amount = self.random.randint(1, 3) if kind == "form" else 1
                upload = Upload([self._content(f"{self.prefix}-{number}-{index}") for index in range(amount)])
                self.uploads.append(upload)
                _send(connection, kind, upload)
                self._read_answer(connection.getresponse(), upload)
        except (OSError, HTTPException):
            return
        finally:
            connection.close()

    def _content(self, name: str) -> Content:
        return content(name, self.random.randint(0, self.random.choice(SIZES)), self.random.randrange(SIZES[-1]))

    def _read_answer(self, response: HTTPResponse, upload: Upload) -> None:
        if self.may_refuse and response.status in (408, 503):
            assert response.headers["Content-Type"].startswith("application/problem+json")
            assert json.loads(response.read())["status"] == response.status
            upload.refused = True
            return
        assert response.status == 201, response.read()
        upload.answered = True
        if "Tus-Resumable" in response.headers:
            assert int(response.headers["Upload-Offset"]) == upload.files[0].size
            assert "Content-Location" in response.headers
            response.read()
        else:
            body: dict[str, Any] = json.loads(response.read())
            records = body.get("files", [body])
            assert [record["sha256"] for record in records] == [file.sha256 for file in upload.files]


def _send(connection: HTTPConnection, kind: str, upload: Upload) -> None:
    [first, *_] = upload.files
    if kind == "form":
        connection.request("POST", "/files", form(upload.files), FORM)
    elif kind == "put":
        connection.request("PUT", f"/files/{first.name}", first.data)
    elif kind == "chunked":
        connection.request("PUT", f"/files/{first.name}", _pieces(first.data), encode_chunked=True)
    elif kind == "slow":
        connection.request("PUT", f"/files/{first.name}", _drops(first.data), encode_chunked=True)
    else:
        connection.request("POST", "/tus", first.data, tus_creation(first))
    upload.sent = True


def tus_creation(file: Content) -> dict[str, str]:
    """The head of a request that creates an upload by tus, with or without bytes."""
    return {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(file.size),
        "Upload-Metadata": f"filename {base64.b64encode(file.name.encode()).decode()}",
        "Content-Type": "application/offset+octet-stream",
    }


def _drops(data: bytes) -> Iterator[bytes]:
    """In two seconds or more, if there are enough."""
    step = max(1, len(data) // 20)
    for start in range(0, len(data), step):
        time.sleep(0.1)
        yield data[start : start + step]


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
