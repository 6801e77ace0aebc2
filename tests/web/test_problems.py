from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

import pytest
from aiohttp import web

from spool.errors import Internal, SpoolError
from spool.web.problems import all_problems
from tests.web.conftest import TEXT

if TYPE_CHECKING:
    from tests.web.conftest import Ear, Serve, Spool

SECRET: Final = "the password is swordfish"
MEMBERS: Final = {"type", "title", "status", "detail"}


async def boom(_request: web.Request) -> web.Response:
    raise RuntimeError(SECRET)


async def exit_early(_request: web.Request) -> web.Response:
    raise web.HTTPRequestEntityTooLarge(10, 20)


def with_faulty_routes(app: web.Application) -> None:
    app.router.add_get("/boom", boom)
    app.router.add_get("/early", exit_early)


class TestDocument:
    @pytest.mark.parametrize("path", ["/nowhere", "/files/a/b/c", "/healthz?", "/files"])
    async def test_of_an_unknown_expectation_where_no_route_is(self, spool: Spool, path: str) -> None:
        for expectation in (b"<x>", b"\xc1"):
            head = b"DELETE %s HTTP/1.1\r\nHost: localhost\r\nExpect: %s\r\n" % (path.encode(), expectation)
            answer = await spool.raw(head + b"Connection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 417")
            assert b"application/problem+json" in answer
            assert expectation not in answer

    @pytest.mark.parametrize(
        "host", [b"\xff@localhost", "\u212a".encode(), b"localhost/x", b"a b", b"<script>@localhost"]
    )
    async def test_of_a_host_that_is_none(self, spool: Spool, host: bytes) -> None:
        head = b"PUT /files/a HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nConnection: close\r\n" % host
        for draft in (b"", b"Upload-Complete: ?1\r\nUpload-Draft-Interop-Version: 8\r\n"):
            answer = await spool.raw(head + draft + b"\r\nhello")
            assert answer.startswith(b"HTTP/1.1 400")
            assert b"/problems/bad-request" in answer
        assert await spool.listed() == []

    async def test_of_an_unknown_address(self, spool: Spool) -> None:
        for path in ("/nowhere", "/files/a/b/c", "/media", "/media/x", "//files", "/files//", "/%2e%2e/files"):
            answer = await spool.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 404"), path
            assert b"/problems/not-found" in answer

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("DELETE", "/files", "GET,HEAD,OPTIONS,POST"),
            ("PUT", "/files", "GET,HEAD,OPTIONS,POST"),
            ("PUT", "/", "GET,HEAD,POST"),
            ("POST", "/files/x", "DELETE,GET,HEAD,PATCH,PUT"),
            ("POST", "/files/latest", "DELETE,GET,HEAD,PATCH,PUT"),
            ("DELETE", "/media/x/y", "GET,HEAD"),
            ("POST", "/healthz", "GET,HEAD"),
            ("OPTIONS", "/healthz", "GET,HEAD"),
            ("GET", "/files/", "POST,PUT"),
        ],
    )
    async def test_of_a_wrong_method_lists_those_that_work(
        self, spool: Spool, method: str, path: str, allowed: str
    ) -> None:
        answer = await spool.request(method, path)
        assert (answer.status, answer.slug) == (405, "method-not-allowed")
        assert answer.headers["Allow"] == allowed
        assert answer.json["allowed"] == allowed.split(",")

    @pytest.mark.parametrize("path", ["/files", "/g/secret"])
    async def test_of_a_put_that_lacks_its_slash_says_so(self, spool: Spool, path: str) -> None:
        answer = await spool.request("PUT", path)
        assert answer.status == 405
        assert "end it with a slash" in answer.json["detail"]
        assert "slash" not in (await spool.request("DELETE", path)).json["detail"]

    async def test_of_a_put_to_the_bare_server_says_where_files_go(self, spool: Spool) -> None:
        answer = await spool.request("PUT", "/song.mp3")
        assert answer.status == 404
        assert answer.json["detail"].endswith("a file is put below /files/")

    @pytest.mark.parametrize("expectation", ["miracles", "100-continue, miracles", "200-ok"])
    @pytest.mark.parametrize("path", ["/files/x", "/files"])
    async def test_of_an_expectation_that_cannot_be_met(self, spool: Spool, path: str, expectation: str) -> None:
        method = "PUT" if path == "/files/x" else "POST"
        answer = await spool.request(method, path, data=TEXT, headers={"Expect": expectation})
        assert (answer.status, answer.slug) == (417, "expectation-failed")

    async def test_holds_what_rfc_9457_asks_for(self, spool: Spool) -> None:
        answer = await spool.get("/files/nothing")
        assert answer.json.keys() == {*MEMBERS, "request_id"}
        assert answer.json["type"] == "/problems/not-found"
        assert answer.json["status"] == answer.status == 404
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    async def test_type_is_an_address_that_explains_it(self, spool: Spool) -> None:
        answer = await spool.get("/files/nothing")
        meaning = (await spool.get(answer.json["type"])).json
        assert (meaning["title"], meaning["status"]) == (answer.json["title"], 404)

    async def test_of_a_head_request_has_no_body(self, spool: Spool) -> None:
        request = b"HEAD /files/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await spool.raw(request)
        assert answer.startswith(b"HTTP/1.1 404")
        assert answer.endswith(b"\r\n\r\n")

    async def test_quotes_nothing_that_is_not_text(self, spool: Spool) -> None:
        answer = await spool.get("/files?%ED%A0%80%00%1B=1")
        assert answer.slug == "bad-request"
        assert answer.body.isascii()


class TestUnforeseen:
    async def test_error_tells_a_client_nothing(self, serve: Serve) -> None:
        answer = await (await serve(prepare=with_faulty_routes)).get("/boom")
        assert (answer.status, answer.slug) == (500, "internal")
        assert answer.json.keys() == {*MEMBERS, "request_id"}
        everything = answer.body.decode() + str(answer.headers)
        for leak in (SECRET, "swordfish", "RuntimeError", "Traceback", "boom", ".py"):
            assert leak not in everything

    async def test_error_is_found_in_the_log_by_the_request_id(self, ear: Ear, serve: Serve) -> None:
        answer = await (await serve(prepare=with_faulty_routes)).get("/boom")
        assert answer.json["request_id"] == answer.headers["X-Request-ID"]
        (event,) = ear.events("request.failed")
        assert event == {"request_id": answer.json["request_id"], "path": "/boom"}
        finished = await ear.event("request.finished")
        assert (finished["request_id"], finished["status"]) == (answer.json["request_id"], 500)

    async def test_error_leaves_one_traceback_in_the_log(self, ear: Ear, serve: Serve) -> None:
        await (await serve(prepare=with_faulty_routes)).get("/boom")
        await ear.event("request.finished")
        assert len(ear.tracebacks) == 1

    async def test_error_does_not_end_the_server(self, serve: Serve) -> None:
        spool = await serve(prepare=with_faulty_routes)
        for _ in range(3):
            assert (await spool.get("/boom")).status == 500
        assert (await spool.get("/healthz")).status == 200

    async def test_refusal_of_the_framework_is_a_problem_too(self, serve: Serve) -> None:
        answer = await (await serve(prepare=with_faulty_routes)).get("/early")
        assert (answer.status, answer.slug) == (413, "too-large")

    async def test_failure_of_the_index_is_unavailability(self, ear: Ear, spool: Spool) -> None:
        await spool.index.aclose()
        answer = await spool.get("/files")
        assert (answer.status, answer.slug) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert not ear.tracebacks


async def test_every_answer_has_a_request_id_of_its_own(spool: Spool) -> None:
    paths = ("/healthz", "/files", "/nowhere", "/files/nothing", "/files?x=1")
    ids = [(await spool.get(path)).headers["X-Request-ID"] for path in paths]
    assert len(set(ids)) == len(paths)
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in ids)


@pytest.mark.parametrize(
    "name", ["mine", "0", "6f1c2b34-5a", "Root=1-67891233-abc", "a" * 128, "YQ==", "a/b+c:d@e.f_g"]
)
async def test_request_id_of_a_client_is_kept(ear: Ear, spool: Spool, name: str) -> None:
    answer = await spool.get("/files/nothing", headers={"X-Request-ID": name})
    assert answer.headers["X-Request-ID"] == answer.json["request_id"] == name
    assert (await ear.event("request.finished"))["request_id"] == name


@pytest.mark.parametrize(
    "name", ["", "a b", "a" * 129, "-a", "a;b", "a'b", 'a"b', "a\\b", "a<b>", "a%0ab", "é", "${x}"]
)
async def test_request_id_that_could_do_harm_is_not_kept(spool: Spool, name: str) -> None:
    answer = await spool.get("/files/nothing", headers={"X-Request-ID": name})
    assert answer.headers["X-Request-ID"] == answer.json["request_id"]
    assert re.fullmatch(r"[0-9a-f]{16}", answer.json["request_id"])


async def test_request_id_that_is_given_twice_is_not_kept(spool: Spool) -> None:
    head = b"GET /docs HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a1\r\nX-Request-ID: b2\r\nConnection: close\r\n\r\n"
    assert re.search(rb"X-Request-ID: [0-9a-f]{16}\r\n", await spool.raw(head))


class TestTypes:
    @pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.__name__)
    def test_each_says_what_it_means(self, kind: type[SpoolError]) -> None:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug)
        assert kind.title[:1].isupper()
        assert not kind.title.endswith(".")
        assert 400 <= kind.status < 600
        assert "__doc__" in vars(kind)
        assert (inspect.getdoc(kind) or "").endswith(".")
        assert kind.retry_after is None or kind.retry_after > 0

    def test_slugs_and_titles_are_unique(self) -> None:
        for words in ([kind.slug for kind in all_problems()], [kind.title for kind in all_problems()]):
            assert len(set(words)) == len(words)

    def test_each_has_a_slug_and_a_title_of_its_own(self) -> None:
        assert [kind for kind in all_problems() if not {"slug", "title"} <= vars(kind).keys()] == []

    def test_all_are_found(self) -> None:
        found = {value for value in vars(inspect.getmodule(SpoolError)).values() if inspect.isclass(value)}
        expected = {kind for kind in found if issubclass(kind, SpoolError)} - {SpoolError}
        assert set(all_problems()) == expected
        assert Internal in expected

    async def test_each_is_explained_at_its_address(self, spool: Spool) -> None:
        await spool.new_token("admin")  # it needs none
        for kind in all_problems():
            answer = await spool.get(f"/problems/{kind.slug}")
            assert answer.status == 200
            meaning = " ".join((inspect.getdoc(kind) or "").split())
            explained = answer.json
            assert " ".join(explained.pop("meaning").split()) == meaning
            assert explained == {"title": kind.title, "status": kind.status}

    async def test_unknown_one_is_not_found(self, spool: Spool) -> None:
        for slug in ("nothing", "SpoolError", "bad-request%00", "Bad-Request"):
            assert (await spool.get(f"/problems/{slug}")).slug == "not-found"
