"""The description as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool import __version__
from spool.web.api.refusals import headers, meaning, refusals
from spool.web.api.schemas import SCHEMAS
from spool.web.api.terms import HEADLESS, header, ref
from spool.web.problems import all_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spool.errors import SpoolError
    from spool.web.api.refusals import Refusal
    from spool.web.api.terms import Access, Answer, Body, Field, Group, Operation

    Object = dict[str, object]

ABOUT: Final = (
    "Spool stores the files that clients send it, lists them and serves them. 201 means that bytes, directories and "
    "index are on stable storage. Every GET address takes HEAD too. A method that an address does not take is "
    "answered with 405 and `Allow`; an address that there is not, with 404. Where `server.cors_origins` is set, every "
    "address answers preflights with 204. Every error is a problem (RFC 9457). `limits.max_file_size` and the like are "
    "settings of the server."
)
_BEARER: Final = (
    "A token as `spool token create` prints it, with the scope that the operation names, or `admin`. A server without "
    "any token that only its own machine can reach asks for none. A browser that signed in at `/login` sends a cookie "
    "in its place, and with every change the `form_token` of its pages, as a parameter or as `X-Form-Token`."
)
_SIGNATURE: Final = "Of an address that `GET /files/{id}/content` led to, where `server.media_base_url` is set."
_BASIC: Final = "The pass phrase of a grant that has one, as the password under any user name."
_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": _BEARER},
    "signature": {"type": "apiKey", "in": "query", "name": "signature", "description": _SIGNATURE},
    "passphrase": {"type": "http", "scheme": "basic", "description": _BASIC},
    "expires": {"type": "apiKey", "in": "query", "name": "expires", "description": "Until when the signature holds."},
}
_REQUEST_ID: Final = header("X-Request-ID", "Finds the request in the log.", required=True)
_RATE: Final = (
    header("RateLimit", "Where the principal stands in this minute, if its requests are limited."),
    header("RateLimit-Policy", "What it is allowed."),
)
_MAYBE_REQUEST_ID: Final = header("X-Request-ID", "Finds the request in the log, if its head could be read.")


def render(groups: Sequence[Group]) -> Object:
    """The whole document, ready to be written as JSON."""
    paths: dict[str, Object] = {}
    for group in groups:
        for operation in group.operations:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, group.name)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Spool",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group.name, "description": group.text} for group in groups],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "headers": {field.name: _header(field) for field in (_REQUEST_ID, *_RATE)},
            "responses": _refused(operation for group in groups for operation in group.operations),
            "securitySchemes": _SECURITY,
        },
        "x-problems": [_problem_type(kind) for kind in all_problems()],
    }


def _operation(operation: Operation, tag: str) -> Object:
    found = refusals(operation)
    answers: Object = {str(answer.status): _answer(answer) for answer in operation.answers}
    refused = {
        str(status): {"$ref": f"#/components/responses/{_name(operation, kinds)}"} for status, kinds in found.items()
    }
    assert not answers.keys() & refused.keys(), f"{operation.id} answers one status in two ways"
    return {
        "operationId": operation.id,
        "summary": operation.summary,
        **({"description": operation.text} if operation.text else {}),
        "tags": [tag],
        "security": _security(operation.access),
        "parameters": [_parameter(field) for field in operation.parameters],
        **({} if operation.body is None else {"requestBody": _body(operation.body)}),
        "responses": dict(sorted({**answers, **refused}.items())),
        "x-problems": {str(status): [refusal.kind.slug for refusal in kinds] for status, kinds in found.items()},
    }


def _security(access: Access) -> list[dict[str, list[str]]]:
    match access:
        case "public" | "link":
            return []
        case "any scope":
            return [{"token": []}]
        case "guest":
            return [{}, {"passphrase": []}]
        case "read or signature":
            return [{"token": ["read"]}, {"signature": [], "expires": []}]
    return [{"token": [access]}]


def _parameter(field: Field) -> Object:
    parameter: Object = {"name": field.name, "in": field.place, "description": field.text, "schema": field.schema}
    if field.required:
        parameter["required"] = True
    if field.example is not None:
        parameter["example"] = field.example
    return parameter


def _header(field: Field) -> Object:
    return {"description": field.text, "schema": field.schema, **({"required": True} if field.required else {})}


def _headers(fields: Iterable[Field]) -> Object:
    common = {field.name: {"$ref": f"#/components/headers/{field.name}"} for field in (_REQUEST_ID, *_RATE)}
    return {**common, **{field.name: _header(field) for field in fields}}


def _refused_headers(operation: Operation, refused: Sequence[Refusal]) -> Object:
    found = _headers(headers(refused, operation.speech))
    if any(refusal.kind in HEADLESS for refusal in refused):
        found[_REQUEST_ID.name] = _header(_MAYBE_REQUEST_ID)
    return found


def _body(body: Body) -> Object:
    content = {media_type: {"schema": schema} for media_type, schema in body.content.items()}
    return {"description": body.text, "content": content, "required": body.required}


def _answer(answer: Answer) -> Object:
    links = {link.operation: {"operationId": link.operation, "parameters": link.parameters} for link in answer.links}
    interim = answer.status < 200  # noqa: PLR2004
    return {
        "description": answer.text,
        "headers": {field.name: _header(field) for field in answer.headers} if interim else _headers(answer.headers),
        **(
            {"content": {name: {"schema": schema} for name, schema in answer.content.items()}} if answer.content else {}
        ),
        **({"links": links} if links else {}),
    }


def _refused(operations: Iterable[Operation]) -> Object:
    """The answers that are problems, each once: operations share them."""
    return {
        _name(operation, kinds): _refusal(operation, kinds)
        for operation in operations
        for kinds in refusals(operation).values()
    }


def _name(operation: Operation, refused: Sequence[Refusal]) -> str:
    kind = operation.speech + ("-head" if operation.method == "HEAD" else "")
    return ".".join([kind, str(refused[0].status), *(refusal.kind.slug for refusal in refused)])


def _refusal(operation: Operation, refused: Sequence[Refusal]) -> Object:
    answer: Object = {
        "description": ". ".join(refusal.kind.title for refusal in refused) + ".",
        "headers": _refused_headers(operation, refused),
    }
    if operation.method != "HEAD":
        told = {"type": {"enum": [refusal.type for refusal in refused]}, "status": {"const": refused[0].status}}
        schema = {"allOf": [ref("Problem"), {"properties": told}]}
        answer["content"] = {"application/problem+json": {"schema": schema}}
    return answer


def _problem_type(kind: type[SpoolError]) -> Object:
    told: Object = {"type": f"/problems/{kind.slug}", "title": kind.title, "status": kind.status}
    return {**told, "meaning": meaning(kind), **({"retryAfter": kind.retry_after} if kind.retry_after else {})}
