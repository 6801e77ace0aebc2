"""Requests to one server, and its answers."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import aiohttp

from spool import __version__
from spool.client.failures import StrangeAnswer, Unreachable, Untrusted
from spool.client.problems import parse_problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

_CONNECT_TIMEOUT: Final = 15.0
_STALL_TIMEOUT: Final = 60.0
"""Seconds in which a piece of a body must be taken or given, and most questions answered."""
_COMMIT_TIMEOUT: Final = 300.0
"""Seconds for the answer to the last byte: the server may have to read all of the file once more."""
_REFUSALS: Final = 400


class Answer(NamedTuple):
    """An answer below 400, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object that it holds. Raises StrangeAnswer."""
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise StrangeAnswer(f"the answer is {self.status} without JSON, which is not from a Spool") from error
        if not isinstance(document, dict):
            raise StrangeAnswer("the answer is not a JSON object, as it is from a Spool")
        return document


class Connection:
    """To one server, by as many connections as are needed. What proves who asks goes below its address only."""

    def __init__(self, url: str, authorization: str | None) -> None:
        """`url` is the address of the server, or of a grant there, without a slash at its end."""
        self.url = url
        self._authorization = authorization
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": f"spool/{__version__}", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
        )
        self._session._retry_connection = False  # noqa: SLF001  # what is tried again, and how often, is ours to say
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Sequence[tuple[str, str]] = (),
        body: AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """The answer to one request; `path` begins with a slash. Raises SpoolError, Unreachable, StrangeAnswer.

        `headers` of a request with a body must have its Content-Length. What reading `body` raises is raised as it is.
        """
        sending = None if body is None else _Sending(body)
        try:
            async with (
                asyncio.timeout(None) if sending is None else sending.deadline,
                self._request(method, self.url + path, headers, query, sending) as response,
            ):
                answer = Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError) as error:
            if sending is not None and sending.error is not None:
                raise sending.error from error
            raise _failure(self.url, error) from error
        return _checked(answer)

    @asynccontextmanager
    async def fetch(self, address: str, headers: Mapping[str, str], method: str = "GET") -> AsyncIterator[Download]:
        """An answer of 200 or 206 whose body is read piece by piece; `address` is a path, or a whole address.

        Raises SpoolError, Unreachable, StrangeAnswer, also while the body is read.
        """
        url = self.url + address if address.startswith("/") else address
        try:
            async with self._request(method, url, headers) as response:
                if response.status not in (200, 206):
                    _checked(Answer(response.status, response.headers, await response.read()))
                    raise StrangeAnswer(f"the answer is {response.status}, which says nothing of the bytes")
                yield Download(response.status, response.headers, response.content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(self.url, error) from error

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        query: Sequence[tuple[str, str]] = (),
        sending: _Sending | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("a Client is used within `async with`")
        response = await self._session.request(
            method,
            url,
            params=list(query) or None,
            headers={**(headers or {}), **self._proof(url)},
            data=None if sending is None else sending.pieces(),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=_CONNECT_TIMEOUT,
                sock_read=_STALL_TIMEOUT if sending is None else _COMMIT_TIMEOUT,
            ),
        )
        try:
            yield response
        finally:
            response.release()  # which ends what is still being sent or read, and then the connection

    def _proof(self, url: str) -> dict[str, str]:
        if self._authorization is None or not f"{url}/".startswith(f"{self.url}/"):
            return {}
        return {"Authorization": self._authorization}


class Download(NamedTuple):
    """The head of an answer, and the way to its body."""

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body to its proper end; raises as `Connection.fetch` does if there is none."""
        async for piece in self.content.iter_any():
            yield piece


class _Sending:
    """A body on its way out: aiohttp neither times it nor tells its errors from those of the connection."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.deadline = asyncio.timeout(None)
        self.error: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        try:
            async for piece in self._body:
                self.deadline.reschedule(clock() + _STALL_TIMEOUT)
                yield piece
                self.deadline.reschedule(None)  # however long the next piece takes is not the server's fault
        except Exception as error:
            self.error = error
            raise


def _checked(answer: Answer) -> Answer:
    if answer.status >= _REFUSALS:
        raise parse_problem(answer.status, answer.headers, answer.body)
    if "Location" in answer.headers and answer.status in (301, 302, 303, 307, 308):
        raise StrangeAnswer(f"the server sends elsewhere, to {answer.headers['Location']}: use that address")
    return answer


def _failure(url: str, error: Exception) -> Unreachable:
    server = url.partition("/g/")[0]  # what follows is a secret
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        advice = "if it is of an authority of your own, name the file of that in SSL_CERT_FILE"
        return Untrusted(f"the certificate of {server} is not trusted: {reason}; {advice}")
    return Unreachable(f"{server} cannot be reached: {_reason(error)}")


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the connection was lost"
        case TimeoutError():
            return "it does not answer"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError(strerror=str(text)) if text:
            return text
    return str(error) or type(error).__name__
