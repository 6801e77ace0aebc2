"""Pages for guests, for those who invite them, and for links: without JavaScript, and what a browser keeps."""

from __future__ import annotations

import re
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import pytest

from spool.guests import GUESSES
from spool.model import FileId
from tests.web.conftest import PNG, form
from tests.web.test_guests import OCTETS, TUS, basic, invite
from tests.web.test_pages import HTML, NASTY, Page, page, post
from tests.web.test_session import HOST, OWN, signed_in

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Ear, Serve, Spool
    from tests.web.test_guests import Invited

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
ELSEWHERE: Final = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
]


class Guest:
    """A guest's browser, with its cookies."""

    def __init__(self, grant: Invited) -> None:
        self.grant = grant
        self.cookies: dict[str, str] = {}
        self.headers = {**HTML, **OWN}

    async def request(
        self, method: str, below: str = "", *, headers: dict[str, str] | None = None, **kw: Any
    ) -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**self.headers, "Cookie": cookie, **(headers or {})}
        self.grant.spool.client.session.cookie_jar.clear()
        answer = await self.grant.request(method, below, headers={k: v for k, v in sent.items() if v}, **kw)
        self.set_cookies = answer.headers.getall("Set-Cookie", [])  # type: ignore[attr-defined]
        for text in self.set_cookies:
            for name, morsel in SimpleCookie(text).items():
                assert morsel["path"] == self.grant.path
                self.cookies[name] = morsel.value
        return answer

    async def page(self) -> Page:
        answer = await self.request("GET")
        assert answer.status == 200, answer.body
        return Page(answer)

    async def upload(self, *names: str, headers: dict[str, str] | None = None) -> Answer:
        body, kind = form(*(("file", name, name.encode()) for name in names))
        return await self.request("POST", "/upload", data=body, headers={**kind, **(headers or {})})

    async def post(self, below: str, headers: dict[str, str] | None = None, **fields: str) -> Answer:
        return await self.request("POST", below, data=urlencode(fields).encode(), headers={**FORM, **(headers or {})})


async def guest(spool: Spool, **members: object) -> Guest:
    return Guest(await invite(spool, **members))


def ids(found: Page) -> list[str]:
    return [str(a["value"]) for a in found.all("input", name="id")]


class TestPage:
    async def test_is_for_browsers_and_its_json_for_programs(self, spool: Spool) -> None:
        grant = await invite(spool, note="Day 3")
        for accept in ("*/*", "application/json", "application/json, text/html;q=0.5"):
            answer = await grant.request("GET", headers={"Accept": accept})
            assert answer.json["note"] == "Day 3", accept
        answer = await grant.request("GET", headers=HTML)
        assert answer.headers["Content-Type"].startswith("text/html")
        assert (await grant.request("HEAD", headers=HTML)).status == 200

    async def test_says_in_words_what_may_be_sent(self, spool: Spool) -> None:
        bounds: dict[str, Any] = {"max_files": 3, "max_size": 5_000_000, "max_file_size": 2_000_000}
        visitor = await guest(spool, note="One each,\nplease", types=["image/*", "a/b"], **bounds)
        text = (await visitor.page()).text
        for told in ("One each,\nplease", "3 more files", "together up to 5.0 MB", "up to 2.0 MB", "Images, a/b"):
            assert told in text
        assert "2026-03-08 12:00 UTC" in text
        await visitor.grant.put(PNG)
        assert "2 more files" in (await visitor.page()).text

    async def test_tells_scripts_the_bounds_and_where_to_upload(self, spool: Spool) -> None:
        visitor = await guest(spool, types=["image/*"], max_file_size=7)
        [zone] = (await visitor.page()).all("form", id="upload")
        assert (zone["data-max-size"], zone["data-allow"]) == ("7", "image/*")
        assert zone["data-tus"] == f"{visitor.grant.path}/tus"

    async def test_shows_nothing_of_the_owner_or_of_other_guests(self, spool: Spool) -> None:
        token = await spool.new_token("admin", name="owner-of-all")
        await spool.stored("secret.txt", token=token)
        visitor = Guest(await invite(spool, token))
        await Guest(visitor.grant).upload("another.txt")
        answer = await visitor.request("GET")
        assert not re.search(rb"owner-of-all|secret\.txt|another\.txt|login|logout", answer.body)
        assert [a for a in Page(answer).all("a") if a["href"] != "#main"] == []

    async def test_lets_nothing_run_but_our_scripts_and_tells_nobody_its_address(self, spool: Spool) -> None:
        locked = await guest(spool, passphrase="open sesame")
        for visitor in (await guest(spool), locked, Guest(locked.grant._replace(path="/g/unknown"))):
            answer = await visitor.request("GET")
            policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            [nonce] = set(re.findall(r"'nonce-([\w-]{20,})'", answer.headers["Content-Security-Policy"]))
            assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonce}'"
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["form-action"] == policy["connect-src"] == "'self'"
            assert answer.headers["Referrer-Policy"] == "strict-origin"
            assert answer.headers["Cache-Control"] == "no-store"
            found = Page(answer)
            assert all(script["nonce"] == nonce and script["src"] for script in found.all("script"))
            assert not [a for _, a in found.tags for name in a if name.startswith("on") or name == "style"]
        assert (await locked.grant.request("GET")).headers["Referrer-Policy"] == "no-referrer"

    async def test_note_is_text(self, spool: Spool) -> None:
        visitor = await guest(spool, note=NASTY, types=["<b>"])
        await visitor.upload("a<i>.txt")
        answer = await visitor.request("GET")
        assert not re.search(rb"<script>|<b>|<b a|<i>", answer.body)
        assert NASTY in Page(answer).text

    async def test_of_one_that_is_used_up_says_so_and_takes_no_more(self, spool: Spool) -> None:
        visitor = await guest(spool, max_files=1)
        await visitor.upload("a.txt")
        found = await visitor.page()
        assert "All that may be sent by this link has been sent." in found.text
        assert not found.all("form", id="upload")
        assert "a.txt" in found.text

    async def test_takes_an_upload_that_is_not_finished_up_to_its_end(self, spool: Spool) -> None:
        visitor = await guest(spool, max_files=1)
        await visitor.grant.create(5)
        found = await visitor.page()
        assert "0 more files" in found.text
        assert found.all("form", id="upload")

    async def test_of_one_that_has_ended_says_so(self, spool: Spool) -> None:
        revoked, expired = await guest(spool), await guest(spool)
        await revoked.grant.revoke()
        answer = await revoked.request("GET")
        assert (answer.status, "has revoked it" in Page(answer).text) == (410, True)
        spool.clock.time += timedelta(days=8)
        answer = await expired.request("GET")
        assert (answer.status, "This link has expired." in Page(answer).text) == (410, True)
        answer = await Guest(revoked.grant._replace(path="/g/nonsense")).request("GET")
        assert (answer.status, "Unknown link" in Page(answer).text) == (404, True)
        assert not Page(answer).all("a", href="/")
        assert (await revoked.grant.request("GET")).slug == "gone"

    async def test_is_not_in_the_log_by_its_secret(self, ear: Ear, spool: Spool) -> None:
        visitor = await guest(spool, passphrase="open sesame")
        await visitor.request("GET")
        await visitor.post("/passphrase", passphrase="open sesame")
        await visitor.upload("a.txt")
        receipt = visitor.cookies["spool-sent"]
        await visitor.post("/delete", id=ids(await visitor.page())[0])
        await ear.event("request.finished", 6)
        paths = [event["path"] for event in ear.events("request.finished")]
        assert [path for path in paths if path.endswith("/upload")] == ["/g/.../upload"]
        text = repr([(record.msg, record.args) for record in ear.records])
        assert not re.search(f"{visitor.grant.path.removeprefix('/g/')}|sesame", text)
        assert not any(secret in text for secret in (visitor.cookies["spool-proof"], receipt.partition("~")[2]))


class TestForm:
    async def test_stores_files_and_shows_them_to_who_sent_them(self, spool: Spool) -> None:
        visitor = await guest(spool)
        answer = await visitor.upload("a.txt", "b.txt")
        assert (answer.status, answer.headers["Location"]) == (303, visitor.grant.path)
        await visitor.upload("c.txt")
        found = await visitor.page()
        names = re.findall(r"Delete (\w\.txt)", " ".join(str(a.get("aria-label")) for a in found.all("button")))
        assert names == ["c.txt", "b.txt", "a.txt"]
        assert set(await spool.listed()) == {"a.txt", "b.txt", "c.txt"}
        assert ids(await Guest(visitor.grant).page()) == []

    async def test_cookie_is_for_this_address_alone_and_for_no_script(self, spool: Spool) -> None:
        visitor = await guest(spool)
        await visitor.upload("a.txt")
        [cookie] = visitor.set_cookies
        assert {"HttpOnly", "SameSite=Strict", f"Path={visitor.grant.path}"} <= set(cookie.split("; "))
        assert "Secure" not in cookie

    async def test_keeps_what_fits_into_a_request(self, spool: Spool) -> None:
        visitor = await guest(spool)
        for batch in range(4):
            await visitor.upload(*(f"{batch}-{number}.txt" for number in range(10)))
        found = await visitor.page()
        assert len(ids(found)) == 30
        assert "3-9.txt" in found.text
        assert "0-0.txt" not in found.text

    async def test_deletes_what_it_sent(self, spool: Spool) -> None:
        visitor = await guest(spool)
        await visitor.upload("a.txt", "b.txt")
        [_, first] = ids(await visitor.page())
        for _ in range(2):
            answer = await visitor.post("/delete", id=first)
        assert answer.status == 404
        assert await spool.listed() == ["b.txt"]
        assert len(ids(await visitor.page())) == 1

    async def test_that_is_gone_already_is_no_error(self, spool: Spool) -> None:
        visitor = await guest(spool)
        await visitor.upload("a.txt")
        [gone] = ids(await visitor.page())
        await spool.request("DELETE", f"/files/{gone}")
        assert ids(await visitor.page()) == []
        assert (await visitor.post("/delete", id=gone)).status == 303

    async def test_deletes_nothing_that_others_sent(self, spool: Spool) -> None:
        visitor, other = await guest(spool), await guest(spool)
        await other.upload("a.txt")
        [theirs] = ids(await other.page())
        assert (await visitor.post("/delete", id=theirs)).status == 404
        visitor.cookies["spool-sent"] = f"{theirs}~{'x' * 43}"
        assert "a.txt" not in (await visitor.page()).text
        await visitor.post("/delete", id=theirs)
        visitor.cookies["spool-sent"] = other.cookies["spool-sent"]  # of another grant: not shown here
        assert "a.txt" not in (await visitor.page()).text
        assert await spool.listed() == ["a.txt"]

    @pytest.mark.parametrize("headers", ELSEWHERE)
    async def test_from_a_page_from_elsewhere_is_refused(self, spool: Spool, headers: dict[str, str]) -> None:
        visitor = await guest(spool)
        await visitor.upload("a.txt")
        [mine] = ids(await visitor.page())
        assert (await visitor.upload("b.txt", headers=headers)).status == 403
        assert (await visitor.post("/delete", headers, id=mine)).status == 403
        assert await spool.listed() == ["a.txt"]

    async def test_that_is_refused_tells_why_and_leads_back(self, spool: Spool) -> None:
        visitor = await guest(spool, types=["image/*"])
        answer = await visitor.upload("a.txt")
        assert answer.status == 415
        assert "text/plain are not accepted here." in Page(answer).text
        assert Page(answer).all("a", href=visitor.grant.path)

    async def test_of_a_grant_that_was_revoked_says_so(self, spool: Spool) -> None:
        visitor = await guest(spool)
        await visitor.upload("a.txt")
        await visitor.grant.revoke()
        answer = await visitor.upload("b.txt")
        assert (answer.status, "This link has ended" in Page(answer).text) == (410, True)
        assert await spool.listed() == ["a.txt"]


class TestPassphrase:
    @pytest.fixture
    async def visitor(self, spool: Spool) -> Guest:
        return await guest(spool, note="Tax papers", passphrase="öffne dich")

    async def enter(self, visitor: Guest) -> None:
        answer = await visitor.post("/passphrase", passphrase="öffne dich")
        assert (answer.status, answer.headers["Location"]) == (303, visitor.grant.path)

    async def test_is_asked_for_before_anything_is_told(self, visitor: Guest) -> None:
        answer = await visitor.request("GET")
        assert answer.status == 200
        assert "WWW-Authenticate" not in answer.headers  # or the browser would ask in a window of its own
        assert "Tax papers" not in Page(answer).text
        assert Page(answer).all("input", name="passphrase", type="password")
        assert (await visitor.grant.request("GET")).slug == "passphrase-required"

    async def test_that_is_right_opens_the_page_and_uploads(self, spool: Spool, visitor: Guest) -> None:
        await self.enter(visitor)
        assert "Tax papers" in (await visitor.page()).text
        assert (await visitor.upload("a.txt")).status == 303
        created = await visitor.request("POST", "/tus", headers={**TUS, "Upload-Length": "5"})
        path = created.headers["Location"].partition(visitor.grant.path)[2]
        answer = await visitor.request("PATCH", path, data=b"hello", headers={**OCTETS, "Upload-Offset": "0"})
        assert answer.status == 204
        assert len(await spool.listed()) == 2

    async def test_that_is_wrong_opens_nothing(self, spool: Spool, visitor: Guest) -> None:
        answer = await visitor.post("/passphrase", passphrase="open sesame")
        assert (answer.status, "This is not the pass phrase." in Page(answer).text) == (403, True)
        assert visitor.cookies == {}
        assert (await visitor.upload("a.txt")).status == 401
        assert await spool.listed() == []

    async def test_tries_are_few(self, visitor: Guest) -> None:
        for number in range(GUESSES):
            assert (await visitor.post("/passphrase", passphrase=f"{number}")).status == 403
        answer = await visitor.post("/passphrase", passphrase="öffne dich")
        assert (answer.status, answer.headers["Content-Type"][:9]) == (429, "text/html")
        assert int(answer.headers["Retry-After"]) > 0

    async def test_cookie_is_for_this_address_alone_and_for_no_script(self, visitor: Guest) -> None:
        await self.enter(visitor)
        [cookie] = visitor.set_cookies
        wanted = {"HttpOnly", "SameSite=Strict", f"Path={visitor.grant.path}", "Max-Age=604799"}
        assert wanted <= set(cookie.split("; "))
        assert "sesame" not in cookie

    async def test_cookie_by_tls_is_for_tls_alone(self, serve: Serve) -> None:
        spool = await serve({"server.base_url": f"https://{HOST}"})
        token = await spool.new_token("grant")
        visitor = Guest(await invite(spool, token, passphrase="x"))
        visitor.headers["Origin"] = f"https://{HOST}"
        await visitor.post("/passphrase", passphrase="x")
        [cookie] = visitor.set_cookies
        assert cookie.startswith("__Secure-spool-proof=")
        assert "Secure" in cookie.split("; ")
        assert (await visitor.upload("a.txt")).status == 303
        visitor.cookies = {"spool-proof": visitor.cookies["__Secure-spool-proof"]}  # as a page of http could set it
        assert (await visitor.upload("b.txt")).status == 401

    async def test_by_plain_http_where_cookies_are_for_tls_is_asked_for_at_the_right_address(
        self, serve: Serve
    ) -> None:
        spool = await serve({"server.base_url": f"https://{HOST}"})
        visitor = Guest(await invite(spool, await spool.new_token("grant"), passphrase="x"))
        visitor.headers = {**visitor.headers, "Sec-Fetch-Site": "", "Origin": f"http://{HOST}"}
        visitor.headers = {name: value for name, value in visitor.headers.items() if value}
        for answer in (await visitor.request("GET"), await visitor.post("/passphrase", passphrase="x")):
            assert f'href="https://{HOST}{visitor.grant.path}"' in answer.body.decode()
            assert not Page(answer).all("input", name="passphrase")
            assert "Set-Cookie" not in answer.headers

    async def test_cookie_of_another_grant_opens_nothing(self, spool: Spool, visitor: Guest) -> None:
        await self.enter(visitor)
        other = await guest(spool, passphrase="öffne dich")
        for value in (visitor.cookies["spool-proof"], "", "x" * 64, "ö"):
            other.cookies["spool-proof"] = value
            assert (await other.upload("a.txt")).status == 401
        assert await spool.listed() == []

    @pytest.mark.parametrize("headers", ELSEWHERE)
    async def test_cookie_changes_nothing_for_a_page_from_elsewhere(
        self, spool: Spool, visitor: Guest, headers: dict[str, str]
    ) -> None:
        assert (await visitor.post("/passphrase", headers, passphrase="öffne dich")).status == 403
        await self.enter(visitor)
        body, kind = form(("file", "a.txt", b"a"))
        tus = {**TUS, "Upload-Length": "5", **headers}
        answers = [
            await visitor.upload("a.txt", headers=headers),
            await visitor.request("POST", data=body, headers={**kind, **headers}),
            await visitor.request("PUT", "/a.txt", data=b"a", headers=headers),
            await visitor.request("POST", "/tus", headers=tus),
        ]
        assert [answer.status for answer in answers] == [403] * 4
        assert await spool.listed() == []

    async def test_of_a_program_is_taken_as_ever(self, visitor: Guest) -> None:
        answer = await visitor.grant.request("GET", headers=basic("öffne dich"))
        assert answer.json["note"] == "Tax papers"


class TestInviting:
    async def test_form_makes_a_grant_with_all_its_bounds(self, spool: Spool) -> None:
        fields = [("note", "Day 3"), ("lasts", "1d"), ("max_files", "7"), ("max_size", "10 GB")]
        fields += [("max_file_size", "5 MiB"), ("kind", "video/*"), ("kind", "image/*"), ("types", "a/b, text/*")]
        answer = await post(spool, "/guests", *fields, ("passphrase", "sesame"))
        assert answer.status == 201
        [address] = [str(a["value"]) for a in Page(answer).all("input", id="address")]
        [grant] = (await spool.get("/grants")).json["grants"]
        assert (grant["note"], grant["max_files"], grant["max_size"], grant["max_file_size"]) == (
            *("Day 3", 7),
            *(10**10, 5 * 2**20),
        )
        assert grant["types"] == ["image/*", "video/*", "a/b", "text/*"]
        assert grant["passphrase"]
        assert grant["expires_at"].startswith("2026-03-02T12:00:00")
        assert address.startswith(f"http://{spool.client.host}:{spool.client.port}/g/")
        path = "/g/" + address.rpartition("/")[2]
        assert (await spool.get(path, headers=basic("sesame"))).json["note"] == "Day 3"

    async def test_form_that_says_nothing_has_the_safe_bounds(self, spool: Spool) -> None:
        empty = ("note", "max_files", "max_size", "max_file_size", "types", "passphrase")
        assert (await post(spool, "/guests", *((name, "") for name in empty))).status == 201
        [grant] = (await spool.get("/grants")).json["grants"]
        assert (grant["max_files"], grant["max_size"], grant["types"], grant["passphrase"]) == (100, 0, [], False)
        assert grant["expires_at"].startswith("2026-03-08T12:00:00")

    async def test_address_is_told_once(self, spool: Spool) -> None:
        answer = await post(spool, "/guests", ("note", "Day 3"))
        secret = str(Page(answer).all("input", id="address")[0]["value"]).rpartition("/")[2]
        assert answer.headers["Cache-Control"] == "no-store"
        listing = await spool.get("/guests", headers=HTML)
        assert "Day 3" in Page(listing).text
        assert secret.encode() not in listing.body

    @pytest.mark.parametrize(
        ("field", "told"),
        [
            (("max_size", "much"), "The most bytes in all is not a size such as 500 MB or 10 GB."),
            (("max_file_size", "-1"), "The largest file is not a size such as 500 MB or 10 GB."),
            (("max_files", "x"), "The number of files is not a number from 1 to 100,000."),
            (("max_files", "0"), "The number of files is not a number from 1 to 100,000."),
            (("lasts", "for ever"), "There is no such time to choose."),
            (("note", "x" * 4097), "Note is longer than 4096 bytes."),
        ],
    )
    async def test_what_cannot_be_meant_is_told_in_the_form(
        self, spool: Spool, field: tuple[str, str], told: str
    ) -> None:
        answer = await post(spool, "/guests", ("kind", "audio/*"), ("passphrase", "sesame"), field)
        assert answer.status == 400
        found = Page(answer)
        assert told in found.text
        assert [a["value"] for a in found.all("input", name="kind") if "checked" in a] == ["audio/*"]
        assert b"sesame" not in answer.body
        assert (await spool.get("/grants")).json["grants"] == []

    async def test_page_shows_what_came_by_each_and_where_it_is(self, spool: Spool) -> None:
        grant, other = await invite(spool, note="Day 3", max_size=10**6, max_files=4), await invite(spool)
        await grant.put(b"x" * 250_000, "clip.bin")
        await other.put(b"y")
        await spool.stored("mine.txt")
        found = await page(spool, "/guests")
        assert "1 of 4 files · 250 kB of 1.0 MB" in found.text
        assert (await page(spool, f"/?grant={grant.id}")).names == ["clip.bin"]
        assert found.all("a", href=f"/?grant={grant.id}")
        assert sorted((await page(spool, "/")).names) == ["a.txt", "clip.bin", "mine.txt"]

    async def test_file_tells_by_which_grant_it_came(self, spool: Spool) -> None:
        grant = await invite(spool)
        id_ = (await grant.put()).json["id"]
        assert (await page(spool, f"/view/{id_}")).all("a", href=f"/?grant={grant.id}")

    async def test_revocation_ends_it(self, spool: Spool) -> None:
        grant = await invite(spool)
        answer = await post(spool, f"/guests/{grant.id}/revoke")
        assert (answer.status, answer.headers["Location"]) == (303, "/guests")
        assert (await grant.put()).status == 410
        found = await page(spool, "/guests")
        assert "Revoked" in found.text
        assert not found.all("form", action=f"/guests/{grant.id}/revoke")

    async def test_each_owner_sees_and_ends_their_own_and_an_admin_all(self, spool: Spool) -> None:
        ada, bob = [await spool.new_token("grant", name=name) for name in ("ada", "bob")]
        grant = await invite(spool, ada, note="of Ada")
        assert "of Ada" not in (await page(spool, "/guests", token=bob)).text
        assert (await post(spool, f"/guests/{grant.id}/revoke", token=bob)).status == 404
        assert "of Ada" in (await page(spool, "/guests", token=ada)).text
        admin = await spool.new_token("admin", name="root")
        assert "for ada" in (await page(spool, "/guests", token=admin)).text

    async def test_files_are_not_offered_to_who_may_not_read(self, spool: Spool) -> None:
        token = await spool.new_token("grant", name="ada")
        grant = await invite(spool, token)
        await grant.put()
        assert not (await page(spool, "/guests", token=token)).all("a", href=f"/?grant={grant.id}")

    async def test_older_ones_are_on_the_next_page(self, spool: Spool) -> None:
        for number in range(101):
            await invite(spool, note=f"note {number} of many")
        found = await page(spool, "/guests")
        assert "note 1 of many" in found.text
        assert "note 0 of many" not in found.text
        [more] = found.all("a", rel="next")
        assert "note 0 of many" in (await page(spool, str(more["href"]))).text
        assert (await spool.get("/guests?cursor=none", headers=HTML)).status == 400

    async def test_is_in_the_navigation_of_who_may(self, spool: Spool) -> None:
        may, may_not = await spool.new_token("grant", "read"), await spool.new_token("read", "upload")
        assert (await page(spool, "/", token=may)).all("a", href="/guests")
        assert not (await page(spool, "/", token=may_not)).all("a", href="/guests")
        assert (await spool.get("/guests", headers=HTML, token=may_not)).status == 403

    async def test_who_is_not_signed_in_is_led_there_and_back(self, spool: Spool) -> None:
        await spool.new_token("admin")
        answer = await spool.get("/guests", headers=HTML)
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=%2Fguests")
        browser = await signed_in(spool)
        answer = await browser.sign_in(await spool.new_token("grant"), next="/guests")
        assert answer.headers["Location"] == "/guests"

    async def test_changes_need_the_form_token(self, spool: Spool) -> None:
        browser = await signed_in(spool)
        grant = await invite(spool, await spool.new_token("admin"))
        token = await browser.form_token()
        record = await spool.stored(token=await spool.new_token("admin"))
        for path in ("/guests", f"/guests/{grant.id}/revoke", f"/view/{record['id']}/links"):
            assert (await browser.post(path)).status == 403
            forged = await browser.request(
                "POST", f"{path}?form_token={token}", headers={**FORM, "Origin": "http://evil.example"}
            )
            assert forged.status == 403
        assert (await grant.put()).status == 201
        assert (await browser.post(f"/guests/{grant.id}/revoke?form_token={token}")).status == 303
        assert (await grant.put()).status == 410


class TestLinking:
    async def test_form_makes_a_link_and_tells_its_address_once(self, spool: Spool) -> None:
        record = await spool.stored(data=b"hello")
        view = f"/view/{record['id']}"
        answer = await post(spool, f"{view}/links", ("lasts", "1d"), ("max_downloads", "1"))
        assert answer.status == 201
        address = str(Page(answer).all("input", id="address")[0]["value"])
        assert "2026-03-02 12:00 UTC" in Page(answer).text
        shown = await spool.get(view, headers=HTML)
        assert "0 of 1 download" in Page(shown).text
        assert address.rpartition("/")[2].encode() not in shown.body
        path = "/l/" + address.rpartition("/")[2]
        assert [(await spool.get(path)).status for _ in range(2)] == [200, 410]
        assert "1 link no longer works." in (await page(spool, view)).text

    async def test_form_that_says_nothing_makes_one_for_a_week(self, spool: Spool) -> None:
        record = await spool.stored()
        await post(spool, f"/view/{record['id']}/links", ("max_downloads", ""))
        [link] = (await spool.get(f"/files/{record['id']}/links")).json["links"]
        assert (link["max_downloads"], link["expires_at"][:19]) == (None, "2026-03-08T12:00:00")

    @pytest.mark.parametrize("field", [("lasts", "2d"), ("max_downloads", "0"), ("max_downloads", "x")])
    async def test_what_cannot_be_meant_is_refused(self, spool: Spool, field: tuple[str, str]) -> None:
        record = await spool.stored()
        answer = await post(spool, f"/view/{record['id']}/links", field)
        assert (answer.status, answer.headers["Content-Type"][:9]) == (400, "text/html")
        assert (await spool.get(f"/files/{record['id']}/links")).json["links"] == []

    async def test_page_of_a_file_lists_its_links_and_revokes_them(self, spool: Spool) -> None:
        record = await spool.stored()
        view = f"/view/{record['id']}"
        answer = await post(spool, f"{view}/links")
        path = "/l/" + str(Page(answer).all("input", id="address")[0]["value"]).rpartition("/")[2]
        [link] = await spool.index.links(FileId(record["id"]), 9)
        assert (await page(spool, view)).all("form", action=f"{view}/links/{link.id}/revoke")
        assert (await spool.get(path)).status == 200
        answer = await post(spool, f"{view}/links/{link.id}/revoke")
        assert (answer.status, answer.headers["Location"]) == (303, view)
        assert (await spool.get(path)).status == 410
        assert not (await page(spool, view)).all("form", action=f"{view}/links/{link.id}/revoke")

    async def test_revocation_is_offered_to_who_may(self, spool: Spool) -> None:
        ada, eve = await spool.new_token("upload", "read", name="ada"), await spool.new_token("read", name="eve")
        record = await spool.stored(token=ada)
        view = f"/view/{record['id']}"
        await post(spool, f"{view}/links", token=ada)
        [link] = await spool.index.links(FileId(record["id"]), 9)
        revoke = f"{view}/links/{link.id}/revoke"
        assert (await page(spool, view, token=ada)).all("form", action=revoke)
        assert not (await page(spool, view, token=eve)).all("form", action=revoke)
        assert (await post(spool, revoke, token=eve)).status == 403

    async def test_link_of_a_row_is_for_scripts(self, spool: Spool) -> None:
        record = await spool.stored("a.txt")
        [button] = [a for a in (await page(spool, "/")).all("button") if a.get("data-link") == record["id"]]
        assert (button["class"], button["aria-label"]) == ("live-only", "Copy link to a.txt")
