"""What operators ask, and programs that met a problem."""

from __future__ import annotations

from typing import Final

from spool.errors import NotFound, StorageFull
from spool.web.api.terms import TEXT, Answer, Group, Operation, head, header, path, ref

_POLICY: Final = header("Content-Security-Policy", "Nothing runs, and nothing is fetched.", required=True)

_OPERATIONS: Final = (
    Operation(
        id="healthz",
        method="GET",
        path="/healthz",
        summary="Whether the process lives",
        access="public",
        answers=(Answer(200, "It lives.", {"application/json": ref("Alive")}),),
    ),
    Operation(
        id="readyz",
        method="GET",
        path="/readyz",
        summary="Whether an upload that came now could be stored",
        access="public",
        answers=(Answer(200, "It could.", {"application/json": ref("Ready")}),),
        raises=(StorageFull,),
    ),
    Operation(
        id="metrics",
        method="GET",
        path="/metrics",
        summary="What has been counted since the start, for Prometheus",
        access="metrics",
        answers=(Answer(200, "In the text format, or that of OpenMetrics.", {"text/plain": TEXT}),),
        text='With `server.metrics = "public"` it needs no token.',
    ),
    Operation(
        id="problem",
        method="GET",
        path="/problems/{slug}",
        summary="What a problem type means",
        access="public",
        parameters=(path("slug", "As in the `type` of a problem."),),
        answers=(Answer(200, "Its meaning.", {"application/json": ref("ProblemType")}),),
        raises=(NotFound,),
    ),
    Operation(
        id="openapi",
        method="GET",
        path="/openapi.json",
        summary="This description, as OpenAPI 3.1",
        access="public",
        answers=(Answer(200, "The document.", {"application/json": {"type": "object"}}),),
    ),
    Operation(
        id="docs",
        method="GET",
        path="/docs",
        summary="This description, as a page",
        access="public",
        answers=(Answer(200, "The page.", {"text/html": TEXT}, (_POLICY,)),),
    ),
)

OPERATIONS: Final = Group(
    "Operations",
    "Open to everybody, but for the metrics.",
    tuple(operation for each in _OPERATIONS for operation in (each, head(each))),
)
