"""Sign-in: what a cookie is good for, and what it is not."""

from __future__ import annotations

import re
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import pytest

from spool.attempts import Attempts
from spool.web.session import LIFETIME
from tests.clock import Clock
from tests.web.conftest import form
from tests.web.test_auth import ANY, GUARDED, PUBLIC, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.web.conftest import Answer, Ear, Serve, Spool

HOST: Final = "spool.example:8080"
OWN: Final = {"Host": HOST, "Origin": f"http://{HOST}"}
"""What a browser tells of a page of ours, where there is no TLS."""
HTML: Final = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CHANGES: Final = ("POST", "PUT", "PATCH", "DELETE")


class Browser:
    """Sends what a browser sends, and keeps the cookie that it is given."""

    def __init__(self, spool: Spool, **headers: str) -> None:
        self.spool = spool
        self.headers = {**HTML, **OWN, **headers}
        self.cookie = ""

    async def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **kw: Any) -> Answer:
        sent = {**self.headers, **({"Cookie": self.cookie} if self.cookie else {}), **(headers or {})}
        self.spool.client.session.cookie_jar.clear()  # all browsers of a test share it
        answer = await self.spool.request(method, path, headers={k: v for k, v in sent.items() if v}, **kw)
        if "Set-Cookie" in answer.headers:
            [(name, morsel)] = SimpleCookie(answer.headers["Set-Cookie"]).items()
            self.cookie = f"{name}={morsel.value}" if morsel.value else ""
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()})

    async def post(self, path: str, **fields: str) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.request("POST", path, data=urlencode(fields).encode(), headers=kind)

    async def sign_in(self, secret: str, **fields: str) -> Answer:
        return await self.post("/login", token=secret, **fields)

    async def form_token(self) -> str:
        found = re.search(r'name="form-token" content="(\w+)"', (await self.get("/")).body.decode())
        assert found
        return found[1]


async def signed_in(spool: Spool, *scopes: str, **headers: str) -> Browser:
    browser = Browser(spool, **headers)
    answer = await browser.sign_in(await spool.new_token(*(scopes or ("admin",))))
    assert answer.status == 303, answer.body
    return browser


class TestSignIn:
    async def test_leads_to_the_files_and_sets_a_cookie(self, spool: Spool) -> None:
        browser = Browser(spool)
        answer = await browser.sign_in(await spool.new_token("read"))
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("spool=")
        assert {part.strip() for part in cookie.split(";")[1:]} == {
            *("HttpOnly", "Path=/", "SameSite=Lax", f"Max-Age={int(LIFETIME.total_seconds())}")
        }
        assert (await browser.get("/files")).status == 200

    async def test_on_tls_sets_a_cookie_that_only_this_host_can(self, serve: Serve) -> None:
        spool = await serve({"server.base_url": f"https://{HOST}"})
        browser = await signed_in(spool, Origin=f"https://{HOST}")
        assert browser.cookie.startswith("__Host-spool=")
        answer = await browser.sign_in(await spool.new_token("read"))
        assert "; Secure" in answer.headers["Set-Cookie"]
        assert "Path=/" in answer.headers["Set-Cookie"]
        assert "Domain" not in answer.headers["Set-Cookie"]

    async def test_on_tls_takes_no_cookie_that_came_without(self, serve: Serve) -> None:
        spool = await serve({"server.base_url": f"https://{HOST}"})
        browser = await signed_in(spool, Origin=f"https://{HOST}")
        browser.cookie = browser.cookie.removeprefix("__Host-")
        assert (await browser.get("/files")).status == 401

    @pytest.mark.parametrize("headers", [{"Origin": f"http://{HOST}"}, {"Origin": f"http://{HOST}", "Accept": "*/*"}])
    async def test_by_plain_http_where_cookies_are_for_tls_leads_to_the_right_address(
        self, serve: Serve, headers: dict[str, str]
    ) -> None:
        spool = await serve({"server.base_url": f"https://{HOST}"})
        browser = Browser(spool, **{"Sec-Fetch-Site": "", **headers})
        answers = [await browser.get("/login", Origin=""), await browser.sign_in(await spool.new_token("read"))]
        assert [answer.status for answer in answers] == [200, 403]
        for answer in answers:
            assert f'href="https://{HOST}/login"' in answer.body.decode()
            assert 'name="token"' not in answer.body.decode()
            assert "Set-Cookie" not in answer.headers
        answer = await browser.get("/login", Origin="", X_Forwarded_Proto="https")
        assert 'name="token"' in answer.body.decode()

    async def test_keeps_only_the_hash_of_the_secret(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        secret = browser.cookie.partition("=")[2].encode()
        assert not [path for path in spool.dir.rglob("*") if path.is_file() and secret in path.read_bytes()]

    @pytest.mark.parametrize("secret", ["", "spool_unknown", "x" * 5000])
    async def test_with_what_is_no_token_is_refused_and_asked_for_again(self, spool: Spool, secret: str) -> None:
        await spool.new_token("read")
        browser = Browser(spool)
        answer = await browser.sign_in(secret)
        assert answer.status == 403
        assert "unknown, expired or revoked" in answer.body.decode()
        assert not browser.cookie

    async def test_with_an_expired_token_is_refused(self, spool: Spool) -> None:
        secret = await spool.new_token("read", expires_at=spool.clock())
        assert (await Browser(spool).sign_in(secret)).status == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://elsewhere.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    async def test_from_a_page_from_elsewhere_is_refused(self, spool: Spool, headers: dict[str, str]) -> None:
        browser = Browser(spool, **headers)
        assert (await browser.sign_in(await spool.new_token("read"))).status == 403
        assert not browser.cookie

    @pytest.mark.parametrize("origin", [f"http://{HOST}", "http://known.example"])
    async def test_works_by_the_name_that_was_visited_and_the_one_that_is_known(
        self, serve: Serve, origin: str
    ) -> None:
        spool = await serve({"server.base_url": "http://known.example"})
        browser = await signed_in(spool, Origin=origin)
        assert (await browser.get("/files")).status == 200

    @pytest.mark.parametrize("target", ["/", "/view/abc", "/?q=a%20b&kind=image", "/files.zip?id=a&id=b"])
    async def test_leads_to_the_page_that_asked_for_it(self, spool: Spool, target: str) -> None:
        answer = await Browser(spool).sign_in(await spool.new_token("read"), next=target)
        assert answer.headers["Location"] == target

    @pytest.mark.parametrize(
        "target",
        [
            "//elsewhere.example",
            "https://elsewhere.example/",
            "/\\elsewhere.example",
            "/x",
            "/?\r\nX: y",
            "javascript:a",
        ],
    )
    async def test_leads_nowhere_else(self, spool: Spool, target: str) -> None:
        answer = await Browser(spool).sign_in(await spool.new_token("read"), next=target)
        assert answer.headers["Location"] == "/"
        assert target not in (await Browser(spool).get(f"/login?{urlencode({'next': target})}")).body.decode()

    async def test_is_logged_without_a_secret(self, ear: Ear, spool: Spool) -> None:
        secret = await spool.new_token("read")
        browser = Browser(spool)
        await browser.sign_in("spool_wrong")
        await browser.sign_in(secret)
        assert (await ear.event("session.refused"))["address"] == "127.0.0.1"
        assert await ear.event("session.started") == {"owner": "ada", "address": "127.0.0.1"}
        held = (secret, "spool_wrong", browser.cookie.partition("=")[2])
        assert not [r for r in ear.records if any(word in f"{r.msg} {r.args}" for word in held)]


class TestAttempts:
    async def test_that_failed_slow_down_the_next(self, spool: Spool) -> None:
        secret, browser = await spool.new_token("read"), Browser(spool)
        assert {(await browser.sign_in(f"spool_{i}")).status for i in range(10)} == {403}
        refused = await browser.sign_in(secret)
        assert refused.status == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 300
        spool.clock.time += timedelta(minutes=5)
        assert (await browser.sign_in(secret)).status == 303

    async def test_that_failed_do_not_end_a_session(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        for i in range(12):
            await Browser(spool).sign_in(f"spool_{i}")
        assert (await browser.get("/files")).status == 200

    async def test_are_counted_for_each_address(self) -> None:
        attempts = Attempts(Clock())
        for _ in range(10):
            await attempts.failed("2001:db8::1")
        assert await attempts.wait("2001:db8:0:1::1") == 0
        assert await attempts.wait("2001:db8::ffff:1") > 0

    async def test_take_bounded_memory(self) -> None:
        attempts = Attempts(Clock())
        for i in range(11_000):
            await attempts.failed(f"10.0.{i // 250}.{i % 250}")
        assert len(attempts._failures) == 10_000


class TestSession:
    @pytest.mark.parametrize("scope", ["upload", "read", "delete", "admin"])
    async def test_opens_what_its_token_opens_and_nothing_else(self, spool: Spool, scope: str) -> None:
        browser = await signed_in(spool, scope)
        token = {"X-Form-Token": await browser.form_token(), "Accept": "*/*"}
        seed = await spool.new_token("upload", name="seed")
        for route in GUARDED:
            record = await spool.stored("seed.txt", token=seed)
            path = route.path.format(id=record["id"], filename="new.txt", link_id="x")
            allowed = route.scope == ANY or scope in (route.scope, "admin")
            answer = await browser.request(route.method, path, headers=token)
            assert answer.status == (route.allowed if allowed else 403), name_of(route)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://elsewhere.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Origin": f"http://{HOST}.elsewhere.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    async def test_changes_nothing_for_a_page_from_elsewhere(self, spool: Spool, headers: dict[str, str]) -> None:
        browser = await signed_in(spool)
        sent = {"Accept": "*/*", "X-Form-Token": await browser.form_token(), **headers}
        assert await self.changes(browser, sent) == {403}

    @pytest.mark.parametrize("token", ["", "x", "0" * 64, "\xe9"])
    async def test_changes_nothing_without_its_form_token(self, spool: Spool, token: str) -> None:
        browser = await signed_in(spool)
        assert await self.changes(browser, {"Accept": "*/*", "X-Form-Token": token}) == {403}

    async def test_changes_nothing_with_the_form_token_of_another(self, spool: Spool) -> None:
        browser, other = await signed_in(spool), await signed_in(spool)
        sent = {"Accept": "*/*", "X-Form-Token": await other.form_token()}
        assert await self.changes(browser, sent) == {403}

    async def changes(self, browser: Browser, headers: dict[str, str]) -> set[int]:
        """What all routes that change something answer, of which none then has."""
        record = await browser.spool.stored(token=await browser.spool.new_token("upload", name="seed"))
        routes = [r for r in (*GUARDED, *PUBLIC) if r.method in CHANGES and r.path != "/login"]
        paths = {route: route.path.format(id=record["id"], filename="new.txt", link_id="x") for route in routes}
        answers = {(await browser.request(route.method, path, headers=headers)).status for route, path in paths.items()}
        listed = await browser.get("/files")
        assert listed.status == 200
        assert [found["id"] for found in listed.json["files"]] == [record["id"]]
        return answers

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    async def test_reads_nothing_for_a_page_from_elsewhere(self, spool: Spool, site: str) -> None:
        browser = await signed_in(spool)
        assert (await browser.get("/files", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")).status == 401
        assert (await browser.get("/files", Sec_Fetch_Site=site, Sec_Fetch_Mode="cors")).status == 401
        assert (await browser.get("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")).status == 200

    async def test_token_in_the_header_goes_before_the_cookie(self, spool: Spool) -> None:
        browser = await signed_in(spool, "read")
        assert (await browser.get("/files", Authorization="Bearer spool_unknown")).status == 401

    async def test_ends_with_its_token_at_once(self, spool: Spool) -> None:
        secret, browser = await spool.new_token("admin"), Browser(spool)
        await browser.sign_in(secret)
        assert (await browser.get("/files")).status == 200
        await spool.revoke(secret)
        assert (await browser.get("/files")).status == 401

    async def test_ends_when_its_token_expires(self, spool: Spool) -> None:
        browser = Browser(spool)
        await browser.sign_in(await spool.new_token("admin", expires_at=spool.clock() + timedelta(hours=1)))
        spool.clock.time += timedelta(hours=1)
        assert (await browser.get("/files")).status == 401

    async def test_ends_after_its_time(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        spool.clock.time += LIFETIME - timedelta(minutes=1)
        assert (await browser.get("/files")).status == 200
        spool.clock.time += timedelta(minutes=1)
        assert (await browser.get("/files")).status == 401

    async def test_ends_with_sign_out_for_every_copy_of_its_cookie(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        kept = browser.cookie
        answer = await browser.post(f"/logout?form_token={await browser.form_token()}")
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
        assert not browser.cookie
        browser.cookie = kept
        assert (await browser.get("/files")).status == 401

    async def test_is_not_ended_by_a_page_from_elsewhere(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        assert (await browser.post("/logout")).status == 403
        without = await browser.request("POST", "/logout", headers={"Cookie": "", "Sec-Fetch-Site": "cross-site"})
        assert without.status == 403
        assert "Set-Cookie" not in without.headers
        assert (await browser.get("/files")).status == 200

    @pytest.mark.parametrize(
        "cookie", ["spool=x", "spool=", "spool", "spool=a; spool=b", "__Host-spool=x", "\xff=\xff"]
    )
    async def test_cookie_that_is_none_opens_nothing(self, spool: Spool, cookie: str) -> None:
        await spool.new_token("read")
        browser = Browser(spool, Cookie=cookie)
        assert (await browser.get("/files")).status == 401

    async def test_without_any_token_nobody_need_sign_in(self, spool: Spool) -> None:
        browser = Browser(spool, Host="localhost:8080", Origin="http://localhost:8080")
        assert (await browser.get("/")).status == 200
        body, kind = form(("file", "a.txt", b"hello"))
        assert (await browser.request("POST", "/upload", data=body, headers=kind)).status == 303

    async def test_upload_of_a_form_is_authenticated_by_its_address(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        body, kind = form(("file", "a.txt", b"hello"))
        assert (await browser.request("POST", "/upload", data=body, headers=kind)).status == 403
        path = f"/upload?form_token={await browser.form_token()}"
        assert (await browser.request("POST", path, data=body, headers=kind)).status == 303
        assert [f["filename"] for f in (await browser.get("/files")).json["files"]] == ["a.txt"]


class TestPeople:
    async def test_are_led_to_sign_in(self, spool: Spool) -> None:
        await spool.new_token("read")
        answer = await Browser(spool).get("/?q=a")
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=%2F%3Fq%3Da")

    async def test_programs_are_told_in_a_problem(self, spool: Spool) -> None:
        await spool.new_token("read")
        assert (await spool.get("/")).slug == "unauthenticated"

    async def test_who_are_signed_in_are_not_asked_again(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        assert (await browser.get("/login")).headers["Location"] == "/"

    @pytest.mark.parametrize(
        ("scope", "shown", "hidden"),
        [
            ("upload", ['id="upload"'], ['id="files"', "/delete"]),
            ("read", ['id="files"'], ['id="upload"', "/delete"]),
            ("delete", [], ['id="upload"', 'id="files"', "/delete"]),
            ("admin", ['id="upload"', 'id="files"', "/delete"], []),
        ],
    )
    async def test_are_shown_what_they_may_do(
        self, spool: Spool, scope: str, shown: list[str], hidden: list[str]
    ) -> None:
        text = (await (await signed_in(spool, scope)).get("/")).body.decode()
        assert [part for part in shown if part not in text] == []
        assert [part for part in hidden if part in text] == []
