from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from spool.logs import JsonFormatter, TextFormatter
from spool.web.body import defer_expectation

if TYPE_CHECKING:
    from tests.web.conftest import Ear, Serve, Spool

SCOPES: Final = ("upload", "read", "delete", "grant", "metrics")
ANY: Final = "any"


class Route(NamedTuple):
    method: str
    path: str
    scope: str
    """What it asks for; "" if nothing, ANY if only for a token."""
    allowed: int
    """What it answers to a request without a body, once that is allowed."""


GUARDED: Final = [
    Route("GET", "/", ANY, 200),
    Route("HEAD", "/", ANY, 200),
    Route("POST", "/upload", "upload", 415),
    Route("POST", "/view/{id}", "upload", 415),
    Route("GET", "/view/{id}", "read", 200),
    Route("HEAD", "/view/{id}", "read", 200),
    Route("GET", "/files.zip", "read", 400),
    Route("HEAD", "/files.zip", "read", 400),
    Route("POST", "/files.zip", "read", 415),
    Route("POST", "/delete", "delete", 415),
    Route("POST", "/undo", "delete", 415),
    Route("POST", "/files/{id}/undo", "delete", 404),
    Route("POST", "/", "upload", 415),
    Route("POST", "/files", "upload", 415),
    Route("POST", "/files/", "upload", 415),
    Route("PUT", "/files/{filename}", "upload", 201),
    Route("PATCH", "/files/{id}", "upload", 415),
    Route("GET", "/files", "read", 200),
    Route("HEAD", "/files", "read", 200),
    Route("GET", "/files/latest", "read", 302),
    Route("HEAD", "/files/latest", "read", 302),
    Route("GET", "/files/{id}", "read", 200),
    Route("HEAD", "/files/{id}", "read", 200),
    Route("GET", "/files/{id}/content", "read", 302),
    Route("HEAD", "/files/{id}/content", "read", 302),
    Route("GET", "/media/{id}/{filename}", "read", 200),
    Route("HEAD", "/media/{id}/{filename}", "read", 200),
    Route("DELETE", "/files/{id}", "delete", 204),
    Route("GET", "/metrics", "metrics", 200),
    Route("HEAD", "/metrics", "metrics", 200),
    Route("POST", "/tus", "upload", 412),
    Route("POST", "/tus/", "upload", 412),
    Route("GET", "/tus/{id}", "upload", 404),
    *(Route(method, "/tus/{id}", "upload", 412) for method in ("HEAD", "POST", "PATCH", "DELETE")),
    *(Route(method, "/uploads/{id}", "upload", 404) for method in ("GET", "HEAD", "DELETE")),
    Route("PATCH", "/uploads/{id}", "upload", 415),
    Route("GET", "/files/{id}/links", "read", 200),
    Route("HEAD", "/files/{id}/links", "read", 200),
    Route("POST", "/files/{id}/links", "read", 415),
    Route("DELETE", "/files/{id}/links/{link_id}", "read", 404),
    Route("POST", "/view/{id}/links", "read", 415),
    Route("POST", "/view/{id}/links/{link_id}/revoke", "read", 404),
    Route("GET", "/guests", "grant", 200),
    Route("HEAD", "/guests", "grant", 200),
    Route("POST", "/guests", "grant", 415),
    Route("POST", "/guests/{id}/revoke", "grant", 404),
    Route("GET", "/grants", "grant", 200),
    Route("HEAD", "/grants", "grant", 200),
    Route("POST", "/grants", "grant", 415),
    Route("DELETE", "/grants/{id}", "grant", 404),
]
BY_SECRET: Final = [
    *(Route(method, "/g/{secret}", "", 404) for method in ("GET", "HEAD", "POST", "OPTIONS")),
    Route("POST", "/g/{secret}/", "", 404),
    *(Route("POST", f"/g/{{secret}}/{name}", "", 404) for name in ("upload", "delete", "passphrase")),
    Route("PUT", "/g/{secret}/{filename}", "", 404),
    *(Route(method, path, "", 404) for path in ("/g/{secret}/tus", "/g/{secret}/tus/") for method in ("POST",)),
    Route("OPTIONS", "/g/{secret}/tus", "", 404),
    *(Route(method, "/g/{secret}/tus/{id}", "", 404) for method in ("HEAD", "POST", "PATCH", "DELETE", "OPTIONS")),
    *(Route(method, "/g/{secret}/uploads/{id}", "", 404) for method in ("GET", "HEAD", "PATCH", "DELETE", "OPTIONS")),
    *(Route(method, "/l/{secret}", "", 404) for method in ("GET", "HEAD")),
    *(Route(method, "/d/{id}/{secret}", "", 404) for method in ("POST", "DELETE")),
]
"""Open to whoever knows a secret, and nothing to everybody else."""
PUBLIC: Final = [
    Route(method, path, "", 200)
    for path in ("/healthz", "/readyz", "/problems/{slug}", "/openapi.json", "/docs")
    for method in ("GET", "HEAD")
] + [
    Route("OPTIONS", "/tus", "", 200),
    Route("OPTIONS", "/tus/{id}", "", 200),
    Route("OPTIONS", "/files", "", 204),
    Route("OPTIONS", "/uploads/{id}", "", 204),
    Route("GET", "/login", "", 200),
    Route("HEAD", "/login", "", 200),
    Route("POST", "/login", "", 403),
    Route("POST", "/logout", "", 403),
    Route("GET", "/ui/{version}/{name}", "", 200),
    Route("HEAD", "/ui/{version}/{name}", "", 200),
]  # fmt: skip


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


async def statuses(spool: Spool, wanted: list[Route] = GUARDED, **headers: str) -> dict[str, int]:
    """What each of the routes answers, every time with a file that exists."""
    seed = await spool.new_token("upload", name="seed")
    answers = {}
    for route in wanted:
        record = await spool.stored("seed.txt", token=seed)
        names = {"filename": "new.txt", "slug": "forbidden", "version": "x", "name": "app.js", "secret": "x"}
        path = route.path.format(id=record["id"], link_id="x", **names)
        answers[name_of(route)] = (await spool.request(route.method, path, headers=headers)).status
    return answers


def all_are(status: int) -> dict[str, int]:
    return {name_of(route): status for route in GUARDED}


@pytest.mark.parametrize("scope", [*SCOPES, "admin"])
async def test_scope_opens_its_routes_and_no_others(spool: Spool, scope: str) -> None:
    answers = await statuses(spool, Authorization=f"Bearer {await spool.new_token(scope)}")
    expected = {name_of(r): r.allowed if r.scope == ANY or scope in (r.scope, "admin") else 403 for r in GUARDED}
    assert answers == expected


@pytest.mark.parametrize("missing", SCOPES)
async def test_all_other_scopes_together_do_not_open_a_route(spool: Spool, missing: str) -> None:
    secret = await spool.new_token(*(scope for scope in SCOPES if scope != missing))
    answers = await statuses(spool, [r for r in GUARDED if r.scope == missing], Authorization=f"Bearer {secret}")
    assert set(answers.values()) == {403}


async def test_refusal_names_the_scope_that_is_missing(spool: Spool) -> None:
    answer = await spool.get("/files", token=await spool.new_token("upload"))
    assert answer.slug == "forbidden"
    assert answer.json["scope"] == "read"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer spool_unknown",
        "Basic c3Bvb2w6c3Bvb2w=",
        "Bearer {valid} {valid}",
        "Bearer {valid},",
        "Basic {valid}",
        "{valid}",
        "Token {valid}",
    ],
)
async def test_request_without_a_known_token_is_unauthenticated(spool: Spool, authorization: str | None) -> None:
    valid = await spool.new_token("admin")
    headers = {} if authorization is None else {"Authorization": authorization.format(valid=valid)}
    assert await statuses(spool, **headers) == all_are(401)


async def test_token_in_a_trailer_is_none(spool: Spool) -> None:
    valid = await spool.new_token("admin")
    head = "PUT /files/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n"
    answer = await spool.raw(f"{head}\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer {valid}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_challenge_tells_how_to_authenticate(spool: Spool) -> None:
    await spool.new_token("admin")
    answer = await spool.get("/files")
    assert answer.slug == "unauthenticated"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="spool"'


async def test_expired_token_is_unauthenticated(spool: Spool) -> None:
    expired = await spool.new_token("admin", expires_at=spool.clock())
    assert await statuses(spool, Authorization=f"Bearer {expired}") == all_are(401)


async def test_revoked_token_is_refused_at_once(spool: Spool) -> None:
    secret = await spool.new_token("admin")
    assert (await spool.get("/files", token=secret)).status == 200
    await spool.revoke(secret)
    assert await statuses(spool, Authorization=f"Bearer {secret}") == all_are(401)


@pytest.mark.parametrize("authorization", [None, "Bearer spool_unknown"])
async def test_public_route_asks_nobody(spool: Spool, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert await statuses(spool, PUBLIC, **headers) == {name_of(route): route.allowed for route in PUBLIC}


async def test_every_route_is_public_by_name_or_asks_for_a_token(spool: Spool) -> None:
    await spool.new_token("admin")
    public = {(route.method, route.path) for route in PUBLIC}
    by_secret = {(route.method, route.path) for route in BY_SECRET}
    seen = set()
    for route in spool.client.app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        seen.add((route.method, path))
        names = {"filename": "x", "slug": "forbidden", "version": "x", "name": "app.js"}
        filled = path.format(id="x", secret="x", link_id="x", **names)
        answer = await spool.request(route.method, filled)
        if (route.method, path) in by_secret:
            assert answer.status == 404, (route.method, path)
        else:
            assert (answer.status == 401) != ((route.method, path) in public), (route.method, path)
    assert seen == {(route.method, route.path) for route in (*GUARDED, *PUBLIC, *BY_SECRET)}


async def test_every_route_defers_the_expectation(spool: Spool) -> None:
    handlers = {route._expect_handler for route in spool.client.app.router.routes()}  # kept nowhere else
    assert handlers == {defer_expectation}


async def test_scheme_is_read_in_either_case(spool: Spool) -> None:
    secret = await spool.new_token("read")
    assert (await spool.get("/files", headers={"Authorization": f"bearer  {secret}"})).status == 200


async def test_token_works_until_it_expires(spool: Spool) -> None:
    secret = await spool.new_token("read", expires_at=spool.clock() + timedelta(minutes=1))
    assert (await spool.get("/files", token=secret)).status == 200
    spool.clock.time += timedelta(minutes=1)
    assert (await spool.get("/files", token=secret)).status == 401


async def test_owner_is_the_name_of_the_token(spool: Spool) -> None:
    record = await spool.stored(token=await spool.new_token("upload", name="bob"))
    assert record["owner"] == "bob"


async def test_token_is_in_no_log(ear: Ear, spool: Spool) -> None:
    secret = await spool.new_token("upload")
    wrong = "spool_" + "x" * 43
    assert (await spool.put(token=secret)).status == 201
    assert (await spool.get("/files", token=secret)).status == 403
    assert (await spool.get("/files", token=wrong)).status == 401
    assert (await spool.get(f"/files?token={wrong}", headers={"Authorization": f"Basic {secret}"})).status == 401
    assert await spool.raw(f"GET /\xa0 HTTP/1.1\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
    await ear.event("request.finished")
    lines = [form.format(record) for form in (TextFormatter(), JsonFormatter()) for record in ear.records]
    assert not [line for line in lines if secret in line or wrong in line]


class TestOpenMode:
    """No token exists, and only this machine can connect."""

    async def visited(self, spool: Spool, **headers: str) -> dict[str, int]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        paths = {route: route.path.format(id="x", filename="x", link_id="x") for route in GUARDED}
        return {name_of(r): (await spool.request(r.method, path, headers=sent)).status for r, path in paths.items()}

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"])
    async def test_loopback_host_is_served(self, spool: Spool, host: str) -> None:
        assert (await spool.get("/files", headers={"Host": host})).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            "rebound.example",
            "rebound.example:8080",
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::2]:8080",
        ],
    )
    async def test_any_other_host_is_refused(self, spool: Spool, host: str) -> None:
        answer = await spool.get("/files", headers={"Host": host})
        assert answer.status == 401
        assert answer.slug == "unauthenticated"

    @pytest.mark.parametrize("host", ["localhost@rebound.example", "[", "[::1", "[localhost]", "::1", ":8080", " "])
    async def test_host_that_is_none_is_refused(self, spool: Spool, host: str) -> None:
        assert (await spool.get("/files", headers={"Host": host})).status == 400

    async def test_every_route_refuses_a_rebound_host(self, spool: Spool) -> None:
        assert await self.visited(spool, Host="rebound.example") == all_are(401)

    @pytest.mark.parametrize(
        "origin",
        [
            "http://elsewhere.example",
            "http://localhost",
            "http://localhost:1",
            "https://localhost:8080.elsewhere.example",
            "null",
            "localhost:8080",
            "http://[",
            "",
        ],
    )
    async def test_page_of_another_origin_is_refused(self, spool: Spool, origin: str) -> None:
        assert await self.visited(spool, Host="localhost:8080", Origin=origin) == all_are(403)

    async def test_page_of_this_origin_is_served(self, spool: Spool) -> None:
        headers = {"Host": "localhost:8080", "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
        assert (await spool.put(headers=headers)).status == 201

    async def test_cross_site_request_is_refused(self, spool: Spool) -> None:
        assert await self.visited(spool, Sec_Fetch_Site="cross-site") == all_are(401)

    async def test_local_principal_may_do_everything(self, spool: Spool) -> None:
        record = await spool.stored()
        assert record["owner"] == "local"
        assert (await spool.patch(record, {"filename": "b.txt"})).status == 200
        assert (await spool.request("DELETE", f"/files/{record['id']}")).status == 204

    async def test_unknown_token_is_refused_all_the_same(self, spool: Spool) -> None:
        assert (await spool.get("/files", token="spool_unknown")).status == 401

    async def test_first_token_ends_it_at_once(self, spool: Spool) -> None:
        assert (await spool.get("/files")).status == 200
        await spool.new_token("read")
        assert (await spool.get("/files")).status == 401

    async def test_expired_token_ends_it_too(self, spool: Spool) -> None:
        await spool.new_token("read", expires_at=spool.clock())
        assert (await spool.get("/files")).status == 401

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "spool.example"])
    async def test_server_that_others_can_reach_has_none(self, serve: Serve, host: str) -> None:
        spool = await serve({"server.host": host})
        assert (await spool.get("/files", headers={"Host": "localhost"})).status == 401

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
    async def test_request_that_a_proxy_passed_on_is_refused(self, spool: Spool, header: str) -> None:
        value = "for=203.0.113.9" if header == "Forwarded" else "203.0.113.9"
        answer = await spool.get("/files", headers={"Host": "127.0.0.1:8080", header: value})
        assert answer.status == 401
