"""The description of the interface against what it describes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from spool.model import Sort
from spool.protocol import rufh, tus
from spool.web import cors, routes
from spool.web.api import GROUPS, document, page
from spool.web.api.refusals import refusals
from spool.web.files import PARAMETERS
from spool.web.problems import all_problems
from tests.test_docs import HTTP, members, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spool.errors import SpoolError
    from tests.web.conftest import Spool

DOCUMENT: dict[str, Any] = json.loads(json.dumps(document.render(GROUPS)))
PAGE = page.render(GROUPS)
OPERATIONS = [operation for group in GROUPS for operation in group.operations]
GENERAL = {"bad-request", "internal", "unavailable"}


def described() -> set[tuple[str, str]]:
    """Every method and path; the names of parameters mean nothing to a router."""
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)) for path, item in DOCUMENT["paths"].items() for method in item
    }


def routed() -> Iterator[tuple[str, str]]:
    """The same of the routes. One whose last segment may be empty is two paths to OpenAPI."""
    groups = (routes.PUBLIC, routes.UPLOAD, routes.READ, routes.READ_OR_SIGNATURE, routes.DELETE, routes.METRICS)
    for group in (*groups, routes.ANYBODY, routes.GRANT, routes.GUEST, routes.SECRET):
        for method, path, _ in group:
            plain = re.sub(r"\{[^/]*?(?:\[[^\]]*\])?\*?\}", "{}", path)
            for each in [method] + ["HEAD"] * (method == "GET"):
                yield each, plain
                if method == "PUT" and path.endswith("*}"):
                    yield each, plain.removesuffix("{}")


def operations() -> dict[str, dict[str, Any]]:
    return {o["operationId"]: o for item in DOCUMENT["paths"].values() for o in item.values()}


def resolved(response: dict[str, Any]) -> dict[str, Any]:
    name = response.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["responses"][name] if name else response


def all_headers() -> set[str]:
    """Every header that is described, of requests and of answers."""
    found = {p["name"] for o in operations().values() for p in o["parameters"] if p["in"] == "header"}
    for operation in operations().values():
        for response in operation["responses"].values():
            found |= set(resolved(response)["headers"])
    return found


class TestDocument:
    def test_is_valid(self) -> None:
        assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []

    def test_has_every_route_and_no_other(self) -> None:
        assert described() == set(routed())

    def test_asks_for_the_scope_that_the_route_asks_for(self) -> None:
        scopes = {
            "any": routes.ANYBODY,
            "upload": routes.UPLOAD,
            "read": [*routes.READ, *routes.READ_OR_SIGNATURE],
            "delete": routes.DELETE,
            "grant": routes.GRANT,
            "guest": routes.GUEST,
            "link": routes.SECRET,
            "metrics": routes.METRICS,
        }
        expected = {
            (method, re.sub(r"\{[^}]*\}", "{}", path)): scope
            for scope, group in scopes.items()
            for method, path, _ in group
        }
        for operation in OPERATIONS:
            key = operation.method, re.sub(r"\{[^}]*\}", "{}", operation.path)
            if key[0] == "PUT" and key[1].endswith("/"):
                key = "PUT", key[1] + "{}"
            if operation.method == "HEAD" and key not in expected:
                key = "GET", key[1]
            assert expected.get(key, "public") == operation.access.partition(" ")[0], operation.id

    def test_ids_are_unique(self) -> None:
        assert len(operations()) == len(OPERATIONS) == sum(len(item) for item in DOCUMENT["paths"].values())

    def test_parameters_in_the_path_are_those_of_the_path(self) -> None:
        for operation in OPERATIONS:
            named = {field.name for field in operation.parameters if field.place == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", operation.path)), operation.id

    def test_listing_has_every_parameter_that_is_known(self) -> None:
        for name in ("listFiles", "latestFile"):
            assert [p["name"] for p in operations()[name]["parameters"]] == list(PARAMETERS)
        assert set(PARAMETERS) == set(table(HTTP, "### `GET /files`"))

    def test_listing_has_every_order(self) -> None:
        sort = next(p for p in operations()["listFiles"]["parameters"] if p["name"] == "sort")
        assert sort["schema"]["enum"] == list(get_args(Sort))

    @pytest.mark.parametrize(
        "heading", ["### `POST /tus`, `POST /tus/`", "## The draft", "### `GET /media/{id}/{filename}`"]
    )
    def test_has_every_header_of_the_tables(self, heading: str) -> None:
        named = {name for cell in table(HTTP, heading) for name in cell.replace("`", "").split(", ")}
        assert named - all_headers() - {"Content-Type"} == set()

    def test_has_every_header_that_pages_of_other_origins_may_send_or_read(self) -> None:
        named = {name for names in (cors._ALLOWED, cors._EXPOSED) for name in names.split(", ")}
        # what every request may have, or what is described in another place than among headers
        assert named - all_headers() == {"Authorization", "Content-Type", "X-Requested-With"}

    def test_has_every_header_that_a_dialect_reads(self) -> None:
        source = Path(tus.__file__).read_text() + Path(rufh.__file__).read_text()
        known = {name.lower() for name in all_headers()}
        read = set(re.findall(r'"((?:upload|tus)-[a-z-]+)"', source)) - {"concatenation"}
        assert read - known == set()

    def test_answer_names_its_request(self) -> None:
        for operation in operations().values():
            for status, response in operation["responses"].items():
                assert status == "104" or "X-Request-ID" in resolved(response)["headers"]


class TestProblems:
    @pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.slug)
    def test_type_is_placed(self, kind: type[SpoolError]) -> None:
        """A new type of problem has to be placed: in `Operation.raises`, or for all in `terms.ANYWHERE`."""
        assert any(refusal.kind is kind for o in OPERATIONS for found in refusals(o).values() for refusal in found)

    def test_types_are_listed(self) -> None:
        listed = {(p["type"], p["title"], p["status"], p.get("retryAfter")) for p in DOCUMENT["x-problems"]}
        assert listed == {(f"/problems/{k.slug}", k.title, k.status, k.retry_after) for k in all_problems()}

    def test_members_are_described(self) -> None:
        raised = {name.replace("-", "_") for names in members().values() for name in names}
        known = {name.replace("-", "_") for name in DOCUMENT["components"]["schemas"]["Problem"]["properties"]}
        assert raised - known == set()

    def test_answer_lists_its_types(self) -> None:
        for operation in operations().values():
            if operation["responses"]["400"]["$ref"].partition("-head.")[1]:
                continue
            for status, slugs in operation["x-problems"].items():
                told = resolved(operation["responses"][status])["content"]["application/problem+json"]["schema"]
                assert len(told["allOf"][1]["properties"]["type"]["enum"]) == len(slugs)
                assert told["allOf"][1]["properties"]["status"]["const"] == int(status)

    def test_dialects_have_words_of_their_own(self) -> None:
        appended = operations()["appendTus"]["x-problems"]
        assert "too-many" in appended["503"]
        assert "completed-upload" in appended["413"]
        assert "completed-upload" in appended["403"]
        types = resolved(operations()["appendUpload"]["responses"]["409"])["content"]["application/problem+json"]
        assert "https://iana.org/assignments/http-problem-types#mismatching-upload-offset" in json.dumps(types)

    def test_every_operation_may_fail(self) -> None:
        for operation in operations().values():
            assert {slug for slugs in operation["x-problems"].values() for slug in slugs} >= GENERAL

    @pytest.mark.parametrize(("kind", "name"), [("unauthenticated", "WWW-Authenticate"), ("too-many", "Retry-After")])
    def test_answer_has_the_header_of_its_problem(self, kind: str, name: str) -> None:
        for operation in operations().values():
            for status, slugs in operation["x-problems"].items():
                if slugs == [kind]:
                    assert resolved(operation["responses"][status])["headers"][name]["required"]


class _Page(HTMLParser):
    """What the page holds, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def parsed(text: str) -> _Page:
    reader = _Page()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


class TestPage:
    def test_names_every_operation(self) -> None:
        reader = parsed(PAGE)
        for operation in OPERATIONS:
            assert operation.id in reader.values("id")
            assert f"{operation.method} {operation.path}" in reader.text

    def test_names_every_problem(self) -> None:
        assert {kind.slug for kind in all_problems()} <= set(parsed(PAGE).values("id"))

    def test_links_lead_somewhere_within_this_server(self) -> None:
        reader = parsed(PAGE)
        ids = reader.values("id")
        assert len(set(ids)) == len(ids)
        assert {link for link in reader.values("href") if link.removeprefix("#") not in ids} == {"/openapi.json"}

    def test_fetches_and_runs_nothing(self) -> None:
        reader = parsed(PAGE)
        assert set(reader.tags) & {"script", "link", "img", "iframe", "object", "embed", "form", "base"} == set()
        assert {name for name, _ in reader.attributes} <= {
            "id",
            "href",
            "class",
            "lang",
            "charset",
            "name",
            "content",
            "aria-label",
        }
        assert "url(" not in PAGE
        assert "@import" not in PAGE
        assert "://" not in PAGE

    def test_style_is_the_one_that_its_policy_lets_through(self) -> None:
        style = PAGE.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in page.POLICY
        assert page.POLICY.startswith("default-src 'none'; ")

    def test_text_is_escaped(self) -> None:
        assert page._inline('<b> `a & "b"`') == "&lt;b&gt; <code>a &amp; &quot;b&quot;</code>"

    def test_headings_are_in_order(self) -> None:
        levels = [int(tag[1]) for tag in parsed(PAGE).tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    def test_is_small(self) -> None:
        assert len(PAGE.encode()) < 100_000


class TestAddresses:
    async def test_document_is_public(self, spool: Spool) -> None:
        await spool.new_token("read")
        answer = await spool.get("/openapi.json")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json == DOCUMENT

    async def test_page_is_public_and_under_its_policy(self, spool: Spool) -> None:
        await spool.new_token("read")
        answer = await spool.get("/docs")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"] == page.POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.body.decode() == PAGE

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
    async def test_other_method_is_told_those_that_there_are(self, spool: Spool, method: str) -> None:
        answer = await spool.request(method, "/openapi.json")
        assert (answer.status, answer.slug) == (405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET,HEAD"

    @pytest.mark.parametrize("path", ["/nothing", "/docs/", "/openapi.json/x", "/tus/a/b", "/uploads", "/media/a"])
    async def test_other_address_is_not_found(self, spool: Spool, path: str) -> None:
        answer = await spool.get(path)
        assert (answer.status, answer.slug) == (404, "not-found")

    @pytest.mark.parametrize(
        "head", [b"GET /docs HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", b"SPOOL /docs HTTP/1.1\r\n\r\n"]
    )
    async def test_answer_to_a_head_that_cannot_be_read_is_described(self, spool: Spool, head: bytes) -> None:
        answer = await spool.raw(head)
        assert b" 400 " in answer.partition(b"\r\n")[0]
        assert b"X-Request-ID" not in answer
        described = resolved(operations()["docs"]["responses"]["400"])
        assert not described["headers"]["X-Request-ID"].get("required")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems/bad-request"
