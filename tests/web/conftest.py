"""A whole site in this process: the real router, the real store and index, a clock that tests set."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from aiohttp.test_utils import TestServer

from spool.admission import Admission, Capacity
from spool.attempts import Attempts
from spool.catalog import Catalog
from spool.config import load
from spool.guests import Guests
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.rates import Rates
from spool.resumption import Resumption
from spool.serve import make_application, make_site
from spool.sniff import MagicSniffer
from spool.store import open_blobs, open_index
from spool.tokens import hash_secret, new_token
from spool.web.connection import Runner, access_log
from spool.web.crowd import Crowd
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from aiohttp import web
    from aiohttp.test_utils import TestClient
    from pytest_aiohttp import AiohttpClient

    from spool.config import Config
    from spool.store import LocalStore, SqliteIndex
    from spool.web.site import Site

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE = 60
"""Seconds that a test waits for what must come at once."""

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
TEXT = b"hello, world\n"

Part = tuple[str, str | None, bytes]
"""A part of a form: its name, its filename if it is a file, its bytes."""


class Clock:
    """Ticks a millisecond whenever it is asked, so that no two files are of one time."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def slug(self) -> str:
        """Of the problem that this answer must be."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["type"]).removeprefix("/problems/")


@dataclass
class Tap:
    """A body whose rest is held back. Sent after a 100 Continue, its start shows that the upload was admitted."""

    first: bytes = b"first"
    rest: bytes = b"rest"
    started: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started.set()
        yield self.first
        await self.opened.wait()
        yield self.rest

    @property
    def whole(self) -> bytes:
        return self.first + self.rest


def form(*parts: Part, boundary: str = "limit") -> tuple[bytes, dict[str, str]]:
    """A form's body, and its headers."""
    body = b""
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@dataclass
class Spool:
    """A running site, and its client."""

    site: Site
    client: TestClient[Any, Any]
    blobs: LocalStore
    index: SqliteIndex
    clock: Clock
    dir: Path
    token: str | None = None
    """What `request` sends."""

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, token: str | None = None, **kw: Any
    ) -> Answer:
        sent = dict(headers or {})
        if token or self.token:
            sent["Authorization"] = f"Bearer {token or self.token}"
        async with asyncio.timeout(PATIENCE):
            async with self.client.request(method, path, headers=sent, allow_redirects=False, **kw) as answer:
                return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **kw: Any) -> Answer:
        return await self.request("GET", path, **kw)

    async def put(self, name: str = "a.txt", data: Any = TEXT, **kw: Any) -> Answer:
        return await self.request("PUT", f"/files/{name}", data=data, **kw)

    async def stored(self, name: str = "a.txt", data: Any = TEXT, **kw: Any) -> dict[str, Any]:
        """The record of a file that was put."""
        answer = await self.put(name, data, **kw)
        assert answer.status == 201, answer.body
        record: dict[str, Any] = answer.json
        return record

    async def post(self, *parts: Part, headers: Mapping[str, str] | None = None, **kw: Any) -> Answer:
        body, own = form(*parts)
        return await self.request("POST", "/files", data=body, headers={**own, **(headers or {})}, **kw)

    async def patch(self, record: Mapping[str, Any], change: object, **kw: Any) -> Answer:
        data = change if isinstance(change, bytes) else json.dumps(change).encode()
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self.request("PATCH", f"/files/{record['id']}", data=data, headers=headers, **kw)

    async def media(self, record: Mapping[str, Any], method: str = "GET", **headers: str) -> Answer:
        """The file's bytes; `If_Range="x"` sends the header If-Range."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request(method, f"/media/{record['id']}/x", headers=sent)

    async def listed(self, query: str = "") -> list[str]:
        """The filenames of a listing's first page."""
        answer = await self.get(f"/files{query}")
        assert answer.status == 200, answer.body
        return [record["filename"] for record in answer.json["files"]]

    async def new_token(self, *scopes: str, name: str = "ada", expires_at: datetime | None = None) -> str:
        token, secret = new_token(name, scopes, self.clock(), expires_at)
        await self.index.add_token(token, hash_secret(secret))
        return secret

    async def revoke(self, secret: str) -> None:
        token = await self.index.token(hash_secret(secret))
        assert token is not None
        await self.index.revoke(token.id)

    async def raw(self, request: bytes, *, half_close: bool = False) -> bytes:
        """What comes back, until the server closes, for these bytes on a connection of their own."""
        reader, writer = await asyncio.open_connection(self.client.host, self.client.port)
        with closing(writer):
            writer.write(request)
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                return await reader.read()

    def kept(self) -> list[Path]:
        """Every blob on the disk, staged ones too."""
        return [*self.dir.glob("blobs/*/*"), *self.dir.glob("incoming/*")]

    async def nothing_is_left(self) -> bool:
        """No file, no blob, and no upload that still holds anything."""
        return not await self.listed() and not self.kept() and not self.site.ingest.active


class _Server(TestServer):
    """As `spool.serve` runs it; aiohttp's own test server does not hand a runner's options on."""

    __test__ = False

    async def _make_runner(self, **kwargs: Any) -> Runner:
        return Runner(
            self.app,
            self.app[SITE].limits,
            Crowd(self.app[SITE].limits.max_connections, 10**6),
            auto_decompress=False,
            lingering_time=1,
            access_log_class=access_log(self.app[SITE].addresses),
            access_log=logging.getLogger("spool.access"),
            **kwargs,
        )


class Serve(Protocol):
    def __call__(
        self, settings: Mapping[str, object] | None = None, prepare: Callable[[web.Application], object] | None = None
    ) -> Awaitable[Spool]:
        """A site with these settings, as "section.key"; `prepare` gets the application before it starts."""


@pytest.fixture
async def serve(tmp_path: Path, aiohttp_client: AiohttpClient) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            settings: Mapping[str, object] | None = None,
            prepare: Callable[[web.Application], object] = lambda _: None,
        ) -> Spool:
            config, _ = load(None, {"storage.dir": str(tmp_path / "spool"), **(settings or {})}, {})
            sniffer = await stack.enter_async_context(aclosing(MagicSniffer()))
            blobs = await stack.enter_async_context(aclosing(await open_blobs(config.storage.dir)))
            index = await stack.enter_async_context(aclosing(await open_index(config.storage.dir)))
            clock = Clock()
            site = await make_site(config, blobs, index, sniffer)
            site = await _set_clock(site, config, sniffer, clock)
            app = make_application(site, config.server.cors_origins)
            prepare(app)
            client = await aiohttp_client(_Server(app))
            stack.push_async_callback(client.close)  # before what it uses is closed
            return Spool(site, client, blobs, index, clock, config.storage.dir)

        yield start


async def _set_clock(site: Site, config: Config, sniffer: MagicSniffer, clock: Clock) -> Site:
    """The site, with whatever tells the time made anew; admission is as `make_site` makes it."""
    limits = config.limits

    async def free() -> int:
        promised = await site.index.promised()
        return await site.blobs.free() - promised

    admission = Admission(
        Capacity(limits.max_uploads, limits.min_free_space), free, site.index.usage, site.index.grant_usage
    )
    rates = Rates(site.index, clock)
    await rates.restore()
    ingest = Ingest(
        blobs=site.blobs,
        files=site.index,
        inventory=site.index,
        sniffer=sniffer,
        policy=site.policy,
        admission=admission,
        clock=clock,
        metrics=site.metrics,
        dedupe=config.storage.dedupe,
        inline_max=config.storage.inline_max,
    )
    resumption = Resumption(
        ingest=ingest,
        blobs=site.blobs,
        uploads=site.index,
        files=site.index,
        grants=site.index,
        policy=site.policy,
        clock=clock,
        ttl=limits.upload_ttl,
    )
    catalog, idempotency = Catalog(site.blobs, site.index, clock), Idempotency(site.index, clock)
    return replace(
        site,
        ingest=ingest,
        resumption=resumption,
        catalog=catalog,
        idempotency=idempotency,
        rates=rates,
        guests=Guests(site.index, rates, clock, site.allowance),
        attempts=Attempts(clock),
        clock=clock,
    )


@pytest.fixture
async def spool(serve: Serve) -> Spool:
    """A site as it is without configuration: no tokens, open to this machine."""
    return await serve()


class Ear(logging.Handler):
    """Hears every log record."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._loop.call_soon_threadsafe(self._news.set)

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [record.args for record in self.records if record.msg == name and isinstance(record.args, dict)]

    async def event(self, name: str, count: int = 1) -> Mapping[str, Any]:
        """The last of `count` events of this name, once there are as many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events(name)) < count:
                self._news.clear()
                await self._news.wait()
        return self.events(name)[count - 1]

    @property
    def tracebacks(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.exc_info]


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    """Ask for it before the site: aiohttp looks only once whether anybody wants its access log."""
    root, ours = logging.getLogger(), logging.getLogger("spool")
    ear = Ear()
    level = ours.level
    root.addHandler(ear)
    ours.setLevel(logging.DEBUG)
    yield ear
    ours.setLevel(level)
    root.removeHandler(ear)


@pytest.fixture
def one_thousand() -> bytes:
    """1000 bytes, of which no ten follow one another twice."""
    return b"".join(b"%04d\r\n" % i for i in range(167))[:1000]
