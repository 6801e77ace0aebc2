"""The words that operations are described in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from spool.errors import (
    BadRequest,
    Forbidden,
    Internal,
    PassphraseRequired,
    RateLimited,
    SpoolError,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Schema = Mapping[str, object]
"""A JSON Schema (2020-12)."""
Access = Literal[
    "public", "any scope", "upload", "read", "delete", "grant", "metrics", "read or signature", "guest", "link"
]
"""Who may: everybody, every principal, those of a scope, also whoever has a signed address, or knows a secret one."""
Speech = Literal["plain", "tus", "rufh"]
"""How problems are worded: as they are, or by a dialect of resumable uploads."""

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
ADDRESS: Final[Schema] = {"type": "string", "format": "uri-reference"}
BYTES: Final[Schema] = {"type": "string", "format": "binary"}
"""What a client sends, as generators of clients know it."""
ANYTHING: Final[Schema] = {"description": "The bytes."}
"""What a client gets. JSON Schema says nothing of bytes (OpenAPI 3.1, §4.8.14.2), nor of a file that is JSON."""


def ref(name: str) -> Schema:
    """The schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of a request, or a header of an answer."""

    name: str
    text: str
    schema: Schema
    place: Literal["path", "query", "header"] = "header"
    required: bool = False
    example: str | int | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brings."""

    content: Mapping[str, Schema]
    """By media type."""
    text: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """Where an answer leads: an operation, with values for its parameters, as runtime expressions or constants."""

    operation: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One status that is no problem."""

    status: int
    text: str
    content: Mapping[str, Schema] | None = None
    headers: Sequence[Field] = ()
    links: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class At:
    """A problem that is answered with another status than its own."""

    kind: type[SpoolError]
    status: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One method at one address."""

    id: str
    method: str
    path: str
    summary: str
    access: Access
    answers: Sequence[Answer]
    text: str = ""
    parameters: Sequence[Field] = ()
    body: Body | None = None
    raises: Sequence[type[SpoolError] | At] = ()
    """The problems that are its own; see `problems` for all of them."""
    speech: Speech = "plain"
    like: str = ""
    """The id of an operation that it only repeats; `summary` says how it differs."""

    @property
    def problems(self) -> list[type[SpoolError] | At]:
        """Every problem that it can answer with."""
        guard = GUARDS.get(self.access, GUARD)
        return list(dict.fromkeys([*ANYWHERE, *guard, *self.raises]))


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that are told of together."""

    name: str
    text: str
    operations: Sequence[Operation]


ANYWHERE: Final = (BadRequest, Internal, Unavailable)
"""What every address may answer: to a head that cannot be read, after a fault, and while the server shuts down."""
HEADLESS: Final = (BadRequest, Internal)
"""Of these, what may be answered before there is a request that could have an id."""
GUARD: Final = (Unauthenticated, Forbidden, RateLimited)
"""What every address that is not public may answer to who may not."""
GUARDS: Final[Mapping[Access, Sequence[type[SpoolError]]]] = {
    "public": (),
    "link": (),
    "guest": (PassphraseRequired, RateLimited, Forbidden),
}
"""Where it is something else."""


def head(operation: Operation, *, without: Sequence[int | str] = ()) -> Operation:
    """The HEAD of a GET: the same but for the bodies, and for the statuses and parameters in `without`."""
    answers = [replace(a, content=None, links=()) for a in operation.answers if a.status not in without]
    return replace(
        operation,
        id="head" + operation.id[0].upper() + operation.id[1:],
        method="HEAD",
        summary=f"{operation.summary}: the head only",
        answers=answers,
        parameters=[field for field in operation.parameters if field.name not in without],
        raises=[kind for kind in operation.raises if (kind.status not in without)],
        like=operation.id,
    )


def again(operation: Operation, path: str, number: int) -> Operation:
    """The same operation at another address."""
    summary = f"The same as {operation.method} {operation.path}"
    return replace(operation, id=f"{operation.id}{number}", path=path, summary=summary, like=operation.id)


def path(name: str, text: str) -> Field:
    """A parameter in the path."""
    return Field(name, text, TEXT, "path", required=True)


def query(name: str, text: str, schema: Schema = TEXT, *, example: str | int | None = None) -> Field:
    """A parameter in the query."""
    return Field(name, text, schema, "query", example=example)


def header(
    name: str, text: str, schema: Schema = TEXT, *, required: bool = False, example: str | int | None = None
) -> Field:
    """A header, of a request or of an answer."""
    return Field(name, text, schema, required=required, example=example)
