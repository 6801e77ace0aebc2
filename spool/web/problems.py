"""Every error is an `application/problem+json` document (RFC 9457), whoever raised it."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from spool import logs
from spool.errors import (
    BadRequest,
    ExpectationFailed,
    Internal,
    MethodNotAllowed,
    NotFound,
    PassphraseRequired,
    SpoolError,
    TooLarge,
    Unauthenticated,
    Unsatisfiable,
)
from spool.protocol.http import parse_request_id, problem_document
from spool.web.secret_paths import path_to_log
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from spool.protocol.resumable import ResponseHead

REQUEST_ID: Final = web.RequestKey("request_id", str)

PROBLEM: Final = web.ResponseKey("problem", str)
METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
"""Those that are counted by their names: a client may send any."""
_TAKES_FORMS: Final = re.compile("/files|/g/[^/]+")
"""Where `curl -T` without a slash at the end comes out."""

_log = logging.getLogger(__name__)


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request an id, its client's or a new one, and turns what the handler raises into an answer."""
    name = parse_request_id(request.headers.getall("X-Request-ID", ())) or request.app[SITE].traffic.next_id()
    request[REQUEST_ID] = name
    logs.REQUEST_ID.set(name)  # aiohttp runs each request in a task of its own, and so in a context of its own
    try:
        response = await handler(request)
    except SpoolError as error:
        response = problem_response(error, request)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004
            raise
        response = problem_response(_translate(error, request), request)
        _copy_allow(error, response)
    except ConnectionError:  # nobody is left to answer
        raise
    except Exception:  # noqa: BLE001  # the last resort: nothing else answers this client
        _log.exception("request.failed", {"request_id": request[REQUEST_ID], "path": path_to_log(request)})
        response = problem_response(Internal("something went wrong that nobody foresaw"), request)
    _count(request, response)
    unread = not request.content.at_eof()  # what is left of the body would be taken for the next request
    if not response.prepared and (unread or request.app[SITE].traffic.draining):
        response.force_close()
    return response


def _count(request: web.Request, response: web.StreamResponse) -> None:
    metrics = request.app[SITE].metrics
    method = request.method if request.method in METHODS else "other"
    metrics.requests[method, str(response.status)] += 1
    if (slug := response.get(PROBLEM)) is not None:
        metrics.problems[slug,] += 1


def problem_response(error: SpoolError, request: web.BaseRequest, head: ResponseHead | None = None) -> web.Response:
    """The answer for an error, with the headers that its status asks for; `head` is how a dialect words it."""
    document = problem_document(error, request.get(REQUEST_ID))
    status = error.status
    if head is not None:
        status = document["status"] = head.status
        document["type"] = head.problem_type or document["type"]
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = _challenge(error, request)
    if isinstance(error, Unsatisfiable):
        headers["Content-Range"] = f"bytes */{error.members['size']}"
    response = web.Response(
        status=status,
        body=json.dumps(document).encode(),
        content_type="application/problem+json",
        headers={**headers, **(head.headers if head else {})},
    )
    response[PROBLEM] = error.slug
    return response


def _challenge(error: Unauthenticated, request: web.BaseRequest) -> str:
    """How to prove who asks. Upon Basic a browser would ask in a window of its own: scripts of our pages do better."""
    if not isinstance(error, PassphraseRequired):
        return 'Bearer realm="spool"'
    return (
        'FormBased realm="spool"' if "X-Requested-With" in request.headers else 'Basic realm="spool", charset="UTF-8"'
    )


def _translate(error: web.HTTPException, request: web.Request) -> SpoolError:
    """What aiohttp raises itself, which comes from the router and from reading small bodies."""
    match error:
        case web.HTTPMethodNotAllowed(method="PUT") if _TAKES_FORMS.fullmatch(request.path):
            detail = "a PUT goes below this address: end it with a slash or with the file's name"
            return MethodNotAllowed(detail, allowed=sorted(error.allowed_methods))
        case web.HTTPNotFound():
            advice = ": a file is put below /files/" if request.method == "PUT" else ""  # curl -T to the bare server
            return NotFound(f"there is nothing at this address{advice}")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(f"this address does not take {error.method}", allowed=sorted(error.allowed_methods))
        case web.HTTPRequestEntityTooLarge():
            return TooLarge("the request body is too large")
        case web.HTTPExpectationFailed():
            return ExpectationFailed("the only expectation that is met is 100-continue")
    return BadRequest(error.reason)


def _copy_allow(error: web.HTTPException, response: web.Response) -> None:
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]


def all_problems() -> list[type[SpoolError]]:
    """Every problem type, in the order of their slugs."""
    found: list[type[SpoolError]] = []
    waiting = SpoolError.__subclasses__()
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: kind.slug)
