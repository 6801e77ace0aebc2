"""Uploads by people without an account: the grant's bounds, its pass phrase, its end."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from spool.errors import PassphraseRequired
from spool.guests import GUESSES
from spool.model import GrantId, Override
from tests.web.conftest import PATIENCE, PNG, TEXT, Answer, Tap, form

if TYPE_CHECKING:
    from tests.web.conftest import Ear, Part, Serve, Spool

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {**TUS, "Content-Type": "application/offset+octet-stream"}
PARTIAL = {"Content-Type": "application/partial-upload"}


class Invited(NamedTuple):
    """A grant, as a guest has it."""

    spool: Spool
    id: str
    path: str
    """Of its address."""

    async def request(self, method: str, below: str = "", **kw: Any) -> Answer:
        spool, spool.token = self.spool, None
        return await spool.request(method, self.path + below, **kw)

    async def post(self, *parts: Part, headers: dict[str, str] | None = None) -> Answer:
        body, own = form(*parts)
        return await self.request("POST", data=body, headers={**own, **(headers or {})})

    async def put(self, data: Any = TEXT, name: str = "a.txt", **kw: Any) -> Answer:
        return await self.request("PUT", f"/{name}", data=data, **kw)

    async def create(self, length: int, **headers: str) -> str:
        """The path of a new upload by tus."""
        answer = await self.request("POST", "/tus", headers={**TUS, "Upload-Length": str(length), **headers})
        assert answer.status == 201, answer.body
        return answer.headers["Location"].partition(self.path)[2]

    async def append(self, path: str, data: Any, offset: int = 0) -> Answer:
        return await self.request("PATCH", path, data=data, headers={**OCTETS, "Upload-Offset": str(offset)})

    async def left(self) -> tuple[int, int | None]:
        answer = await self.request("GET")
        assert answer.status == 200, answer.body
        return answer.json["files_left"], answer.json["bytes_left"]

    async def revoke(self) -> Answer:
        return await self.spool.request("DELETE", f"/grants/{self.id}")


async def invite(spool: Spool, token: str | None = None, **members: object) -> Invited:
    answer = await made(spool, token, **members)
    assert answer.status == 201, answer.body
    return Invited(spool, answer.json["id"], "/g/" + answer.json["url"].rpartition("/")[2])


async def made(spool: Spool, token: str | None = None, **members: object) -> Answer:
    headers = {"Content-Type": "application/json"}
    return await spool.request("POST", "/grants", data=json.dumps(members), headers=headers, token=token)


async def is_running(spool: Spool) -> None:
    """A guest's upload is known, so that it can be cut off."""
    async with asyncio.timeout(PATIENCE):
        while not spool.site.guests._running:  # noqa: ASYNC110  # nobody else is told of it
            await asyncio.sleep(0)


def basic(passphrase: str, user: str = "guest") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{passphrase}".encode()).decode()}


class TestMaking:
    async def test_answer_has_the_address_and_the_listing_does_not(self, spool: Spool) -> None:
        answer = await made(spool, note="For the wedding", max_files=3, types=["image/*"], max_size=9, max_file_size=5)
        grant = answer.json
        url = grant.pop("url")
        assert answer.headers["Cache-Control"] == "no-store"
        assert (await spool.get("/grants")).json == {"grants": [grant], "next": None}
        assert grant == {
            **grant,
            "owner": "local",
            "note": "For the wedding",
            "max_files": 3,
            "max_size": 9,
            "max_file_size": 5,
            "types": ["image/*"],
            "passphrase": False,
            "revoked_at": None,
            "files": 0,
            "size": 0,
        }
        assert len(url.rpartition("/")[2]) == 43

    async def test_says_nothing_and_has_the_safe_bounds(self, spool: Spool) -> None:
        grant = (await made(spool)).json
        assert (grant["max_files"], grant["max_size"], grant["types"]) == (100, 0, [])
        assert grant["expires_at"].startswith("2026-03-08T12:00:00")

    @pytest.mark.parametrize(
        "members",
        [
            {"max_files": 0},
            {"max_files": True},
            {"max_files": "3"},
            {"max_size": -1},
            {"max_file_size": 10**18},
            {"types": "image/*"},
            {"types": [1]},
            {"types": [""]},
            {"types": ["x"] * 101},
            {"note": 1},
            {"note": "x" * 4097},
            {"expires_at": "2026-02-01"},
            {"expires_at": "soon"},
            {"expires_at": ""},
            {"expires_at": 7},
            {"passphrase": "x" * 1025},
            {"owner": "eve"},
        ],
    )
    async def test_what_cannot_be_meant_is_refused(self, spool: Spool, members: dict[str, object]) -> None:
        answer = await made(spool, **members)
        assert (answer.status, answer.slug) == (400, "bad-request")
        assert (await spool.get("/grants")).json["grants"] == []

    async def test_each_owner_sees_and_ends_their_own_and_an_admin_all(self, spool: Spool) -> None:
        ada, bob = [await spool.new_token("grant", name=name) for name in ("ada", "bob")]
        admin = await spool.new_token("admin", name="root")
        grant = await invite(spool, ada)
        assert [g["id"] for g in (await spool.get("/grants", token=ada)).json["grants"]] == [grant.id]
        assert (await spool.get("/grants", token=bob)).json["grants"] == []
        assert (await spool.request("DELETE", f"/grants/{grant.id}", token=bob)).status == 404
        assert [g["owner"] for g in (await spool.get("/grants", token=admin)).json["grants"]] == ["ada"]
        assert (await grant.put()).status == 201
        assert (await spool.request("DELETE", f"/grants/{grant.id}", token=admin)).status == 204
        assert (await grant.put()).status == 410

    async def test_listing_goes_on_where_it_stopped(self, spool: Spool) -> None:
        token = await spool.new_token("grant")
        ids = [(await invite(spool, token)).id for _ in range(103)]
        first = (await spool.get("/grants", token=token)).json
        second = (await spool.get(f"/grants?cursor={first['next']}", token=token)).json
        assert [grant["id"] for grant in first["grants"] + second["grants"]] == ids
        assert (len(first["grants"]), second["next"]) == (100, None)
        assert (await spool.get("/grants?cursor=x", token=token)).status == 400


class TestUpload:
    async def test_form_is_stored_in_the_owners_name(self, spool: Spool) -> None:
        token = await spool.new_token("grant", "read", name="ada")
        grant = await invite(spool, token)
        answer = await grant.post(("file", "a.txt", TEXT), ("tag", None, b"x"))
        assert answer.status == 201
        (receipt,) = answer.json["files"]
        record = (await spool.get(f"/files/{receipt['id']}", token=token)).json
        assert (record["owner"], record["grant"], record["metadata"]) == ("ada", grant.id, {"tag": "x"})

    async def test_receipt_holds_what_the_guest_knows_and_no_way_to_the_files(self, spool: Spool) -> None:
        grant = await invite(spool)
        answer = await grant.put()
        expected = {"id", "filename", "size", "media_type", "sha256", "created_at", "expires_at", "delete_url"}
        assert set(answer.json) == expected
        assert "Location" not in answer.headers

    async def test_text_is_the_address_by_which_to_delete_it(self, spool: Spool) -> None:
        grant = await invite(spool)
        answer = await grant.put(headers={"Accept": "text/plain"})
        path = answer.body.decode().strip().partition("/d/")[2]
        assert (await spool.request("DELETE", f"/d/{path}")).status == 204
        assert await spool.listed() == []

    async def test_secret_that_nobody_has_is_not_found(self, spool: Spool) -> None:
        grant = await invite(spool)
        for path in (grant.path[:-1], grant.path + "x", "/g/x", "/g/%00", "/g/" + "é" * 20):
            assert (await spool.request("PUT", f"{path}/a", data=TEXT)).status == 404
        assert await spool.listed() == []

    async def test_owner_finds_what_came_by_which_grant(self, spool: Spool) -> None:
        one, other = await invite(spool), await invite(spool)
        await spool.stored("own.txt")
        for number in range(3):
            await one.put(name=f"{number}.txt")
        await other.put(name="other.txt")
        assert await spool.listed(f"?grant={one.id}") == ["2.txt", "1.txt", "0.txt"]
        assert await spool.listed(f"?grant={one.id}&sort=filename&order=asc") == ["0.txt", "1.txt", "2.txt"]
        assert await spool.listed(f"?grant={other.id}") == ["other.txt"]
        assert await spool.listed("?grant=x") == []
        page = (await spool.get(f"/files?grant={one.id}&limit=2")).json
        assert await spool.listed(f"?grant={one.id}&limit=2&cursor={page['next']}") == ["0.txt"]
        assert (await spool.get(f"/files?grant={other.id}&limit=2&cursor={page['next']}")).status == 400

    async def test_guest_has_no_other_way_in(self, spool: Spool) -> None:
        token = await spool.new_token("grant", "upload")
        grant = await invite(spool, token)
        record = await spool.stored(token=token)
        secret = grant.path.removeprefix("/g/")
        for path in ("/files", f"/files/{record['id']}", f"/files/{record['id']}/content", "/grants"):
            assert (await spool.get(path, token=secret)).status == 401
            assert (await grant.request("GET", path)).status in (404, 405)

    async def test_quota_of_the_owner_holds_too(self, spool: Spool) -> None:
        token = await spool.new_token("grant", name="ada")
        await spool.index.set_override(Override("ada", quota=len(TEXT) + 1))
        grant = await invite(spool, token)
        assert (await grant.put()).status == 201
        answer = await grant.put()
        assert (answer.status, answer.slug) == (413, "quota-exceeded")

    async def test_answers_are_not_those_of_the_owner(self, spool: Spool) -> None:
        key = {"Idempotency-Key": "one"}
        await spool.put(headers=key)
        grant = await invite(spool)
        answer = await grant.put(b"other", headers=key)
        assert answer.status == 201
        assert answer.json == (await grant.put(b"other", headers=key)).json
        assert "delete_url" not in answer.json  # a retry could not be told
        assert len(await spool.listed()) == 2

    async def test_requests_are_counted_for_the_grant_and_not_for_the_owner(self, spool: Spool) -> None:
        token = await spool.new_token("grant", "read", name="ada")
        await spool.index.set_override(Override("ada", requests_per_minute=3))
        grant = await invite(spool, token)
        assert [(await grant.put()).status for _ in range(4)] == [201, 201, 201, 429]
        assert (await spool.get("/files", token=token)).status == 200


class TestBounds:
    async def test_invitation_says_what_is_left(self, spool: Spool) -> None:
        grant = await invite(spool, note="Hello", max_files=2, max_size=100, max_file_size=50)
        await grant.put(bytes(30))
        answer = await grant.request("GET")
        assert answer.json == {
            "note": "Hello",
            "expires_at": answer.json["expires_at"],
            "types": [],
            "max_file_size": 50,
            "files_left": 1,
            "bytes_left": 70,
        }
        assert answer.headers["Referrer-Policy"] == "no-referrer"

    async def test_file_that_is_too_large_is_refused(self, spool: Spool) -> None:
        grant = await invite(spool, max_file_size=10)
        for answer in (await grant.put(bytes(11)), await grant.post(("f", "a", bytes(11)))):
            assert (answer.status, answer.slug, answer.json["limit"]) == (413, "too-large", 10)
        head = {**TUS, "Upload-Length": "11"}
        assert (await grant.request("POST", "/tus", headers=head)).status == 413
        assert (await grant.put(bytes(10))).status == 201

    async def test_type_that_the_owner_does_not_want_is_refused(self, spool: Spool) -> None:
        grant = await invite(spool, types=["image/*"])
        answer = await grant.put(TEXT)
        assert (answer.status, answer.slug) == (415, "bad-type")
        assert (await grant.append(await grant.create(len(TEXT)), TEXT)).status == 415
        assert (await grant.put(PNG)).status == 201
        assert (await grant.append(await grant.create(len(PNG)), PNG)).status == 204
        assert len(await spool.listed()) == 2

    async def test_files_are_counted_however_they_come(self, spool: Spool) -> None:
        grant = await invite(spool, max_files=3)
        assert (await grant.post(("f", "a", TEXT), ("f", "b", TEXT))).status == 201
        path = await grant.create(len(TEXT))
        answer = await grant.put()
        assert (answer.status, answer.slug) == (403, "beyond-grant")
        assert (answer.json["limit"], answer.json["used"], answer.json["unit"]) == (3, 4, "files")
        assert (await grant.append(path, TEXT)).status == 204
        assert (await grant.post(("f", "a", TEXT))).status == 403
        assert await grant.left() == (0, None)

    async def test_form_with_one_file_too_many_leaves_nothing(self, spool: Spool) -> None:
        grant = await invite(spool, max_files=2)
        answer = await grant.post(*(("f", f"{i}.txt", TEXT) for i in range(3)))
        assert (answer.status, answer.slug) == (403, "beyond-grant")
        assert await spool.nothing_is_left()

    @pytest.mark.parametrize("way", ["form", "put", "chunked", "tus"])
    async def test_bytes_are_counted_however_they_come(self, spool: Spool, way: str) -> None:
        grant = await invite(spool, max_size=1000)

        async def send(size: int) -> int:
            async def stream() -> Any:
                yield bytes(size)

            match way:
                case "form":
                    return (await grant.post(("f", "a", bytes(size)))).status
                case "put":
                    return (await grant.put(bytes(size))).status
                case "chunked":
                    return (await grant.put(stream())).status
            answer = await grant.request("POST", "/tus", headers={**TUS, "Upload-Length": str(size)})
            if answer.status != 201:
                return answer.status
            return (await grant.append(answer.headers["Location"].partition(grant.path)[2], bytes(size))).status

        assert await send(600) in (201, 204)
        assert await send(401) == 403
        assert await send(400) in (201, 204)
        assert await send(1) == 403
        assert await grant.left() == (98, 0)
        assert len(spool.kept()) == 2

    async def test_file_that_is_deleted_is_not_given_back(self, spool: Spool) -> None:
        grant = await invite(spool, max_files=1)
        receipt = (await grant.put()).json
        await spool.request("DELETE", f"/files/{receipt['id']}")
        assert (await grant.put()).status == 403

    async def test_grant_that_has_expired_takes_nothing_and_says_so(self, spool: Spool) -> None:
        grant = await invite(spool, expires_at="2026-03-01T13:00:00Z")
        path = await grant.create(len(TEXT))
        assert (await grant.put()).status == 201
        spool.clock.time += timedelta(hours=1)
        for answer in (await grant.put(), await grant.append(path, TEXT), await grant.request("GET")):
            assert (answer.status, answer.slug) == (410, "gone")

    async def test_upload_that_ends_after_the_grant_is_no_file(self, spool: Spool) -> None:
        grant = await invite(spool, expires_at="2026-03-01T13:00:00Z")
        tap = Tap()
        sending = asyncio.ensure_future(grant.put(tap))
        await is_running(spool)
        spool.clock.time += timedelta(hours=1)
        tap.opened.set()
        assert (await sending).status == 410
        assert await spool.nothing_is_left()

    async def test_hundred_uploads_together_pass_no_bound(self, spool: Spool) -> None:
        grant = await invite(spool, max_files=20, max_size=1000)

        async def send(number: int) -> int:
            data = b"%100d" % number
            if number % 3 == 0:
                return (await grant.post(("f", f"{number}", data))).status
            return (await grant.put(data, name=f"{number}")).status

        statuses = await asyncio.gather(*map(send, range(100)))
        assert set(statuses) <= {201, 403, 429}
        stored = statuses.count(201)
        assert stored == len(await spool.listed("?limit=1000")) <= 10
        shown = (await spool.get("/grants")).json["grants"][0]
        assert (shown["files"], shown["size"], len(spool.kept())) == (stored, 100 * stored, stored)
        assert [await send(100 + i) for i in range(11 - stored)] == [201] * (10 - stored) + [403]

    async def test_commit_refuses_what_the_ledger_did_not_foresee(self, spool: Spool) -> None:
        """As where another process takes uploads too, of which this one's ledger knows nothing."""
        grant = await invite(spool, max_files=1)
        tap = Tap()
        sending = asyncio.ensure_future(grant.put(tap))
        await is_running(spool)
        other = await spool.index.grant(GrantId(grant.id))
        await spool.index._db.change("UPDATE grants SET files = files + 1 WHERE id = ?", other.id)
        tap.opened.set()
        answer = await sending
        assert (answer.status, answer.slug) == (403, "beyond-grant")
        assert await spool.nothing_is_left()


class TestResumable:
    async def test_tus_tells_how_to_delete_the_file(self, spool: Spool) -> None:
        grant = await invite(spool)
        path = await grant.create(len(TEXT))
        assert (await grant.append(path, TEXT[:5])).headers["Upload-Offset"] == "5"
        assert (await grant.request("HEAD", path, headers=TUS)).headers["Upload-Offset"] == "5"
        answer = await grant.append(path, TEXT[5:], 5)
        assert (answer.status, answer.headers.get("Content-Location")) == (204, None)
        address, _, relation = answer.headers["Link"].partition(">; ")
        assert relation == 'rel="edit"'
        assert (await spool.request("DELETE", "/d/" + address.partition("/d/")[2])).status == 204

    async def test_draft_ends_with_a_receipt(self, spool: Spool) -> None:
        grant = await invite(spool)
        answer = await grant.request("POST", data=TEXT[:5], headers={"Upload-Complete": "?0"})
        path = answer.headers["Location"].partition(grant.path)[2]
        assert path.startswith("/uploads/")
        headers = {**PARTIAL, "Upload-Offset": "5", "Upload-Complete": "?1"}
        answer = await grant.request("PATCH", path, data=TEXT[5:], headers=headers)
        assert answer.status == 201
        assert "delete_url" in answer.json
        assert "Location" not in answer.headers

    async def test_upload_is_only_for_its_own_grant(self, spool: Spool) -> None:
        one, other = await invite(spool), await invite(spool)
        path = await one.create(len(TEXT))
        assert (await other.append(path, TEXT)).status == 404
        assert (await spool.request("HEAD", path, headers=TUS)).status == 404
        mine = await spool.request("POST", "/tus", headers={**TUS, "Upload-Length": "3"})
        below = "/tus/" + mine.headers["Location"].rpartition("/")[2]
        assert (await one.request("HEAD", below, headers=TUS)).status == 404

    async def test_offer_tells_the_grants_limit_and_no_concatenation(self, spool: Spool) -> None:
        grant = await invite(spool, max_file_size=1234, passphrase="sesame")
        offer = (await grant.request("OPTIONS", "/tus")).headers
        assert offer["Tus-Max-Size"] == "1234"
        assert "concatenation" not in offer["Tus-Extension"]
        assert "max-size=1234" in (await grant.request("OPTIONS")).headers["Upload-Limit"]

    @pytest.mark.parametrize("concat", ["partial", "final;/tus/a /tus/b"])
    async def test_concatenation_is_refused(self, spool: Spool, concat: str) -> None:
        grant = await invite(spool)
        length = {"Upload-Length": "3"} if concat == "partial" else {}
        answer = await grant.request("POST", "/tus", headers={**TUS, **length, "Upload-Concat": concat})
        assert (answer.status, answer.slug) == (403, "forbidden")

    async def test_complete_upload_of_an_ended_grant_leaves_nothing(self, spool: Spool) -> None:
        grant = await invite(spool, expires_at="2026-03-01T13:00:00Z")
        tap = Tap()
        path = await grant.create(len(tap.whole))
        sending = asyncio.ensure_future(grant.append(path, tap))
        await is_running(spool)
        spool.clock.time += timedelta(hours=1)
        tap.opened.set()
        assert (await sending).status == 410
        assert await spool.nothing_is_left()


class TestRevocation:
    @pytest.mark.parametrize("way", ["put", "form", "tus", "draft"])
    async def test_cuts_off_what_is_running_and_leaves_nothing(self, spool: Spool, way: str) -> None:
        grant, tap = await invite(spool), Tap(bytes(100_000))
        body, headers = form(("f", "a", b"%s"))
        before, _, after = body.partition(b"%s")
        match way:
            case "put":
                send = grant.put(tap)
            case "form":
                tap = Tap(before + bytes(100_000), after)
                send = grant.request("POST", data=tap, headers=headers)
            case "tus":
                send = grant.append(await grant.create(len(tap.whole)), tap)
            case "draft":
                send = grant.request("POST", data=tap, headers={"Upload-Complete": "?1"})
        sending = asyncio.ensure_future(send)
        await is_running(spool)
        assert (await grant.revoke()).status == 204
        answer = await sending  # though its body never ended
        assert (answer.status, answer.slug) == (410, "gone")
        tap.opened.set()
        assert await spool.nothing_is_left()
        assert await spool.index.unfinished(10) == []

    async def test_gives_up_what_was_not_finished(self, spool: Spool) -> None:
        grant = await invite(spool)
        path = await grant.create(100)
        await grant.append(path, bytes(50))
        assert len(spool.kept()) == 1
        await grant.revoke()
        assert spool.kept() == []
        assert (await grant.append(path, bytes(50), 50)).status == 410
        assert (await spool.index.usage("local")).uploads == 0

    async def test_keeps_what_has_come(self, spool: Spool) -> None:
        grant = await invite(spool)
        receipt = (await grant.put()).json
        await grant.revoke()
        assert await spool.listed() == ["a.txt"]
        assert (await spool.request("DELETE", "/d/" + receipt["delete_url"].partition("/d/")[2])).status == 410
        assert (await grant.revoke()).status == 204

    async def test_by_another_process_is_noticed(self, spool: Spool) -> None:
        grant, tap = await invite(spool), Tap()
        sending = asyncio.ensure_future(grant.put(tap))
        await is_running(spool)
        await spool.site.guests.enforce()
        assert not sending.done()
        await spool.index.revoke_grant(GrantId(grant.id), spool.clock())
        await spool.site.guests.enforce()
        assert (await sending).status == 410
        assert await spool.nothing_is_left()


class TestPassphrase:
    @pytest.fixture
    async def grant(self, spool: Spool) -> Invited:
        return await invite(spool, passphrase="Sésame: öffne dich")

    async def test_is_asked_for_everywhere(self, spool: Spool, grant: Invited) -> None:
        tus = {**TUS, "Upload-Length": "3"}
        answers = [
            await grant.request("GET"),
            await grant.put(),
            await grant.post(("f", "a", TEXT)),
            await grant.request("POST", "/tus", headers=tus),
            await grant.request("POST", data=TEXT, headers={"Upload-Complete": "?1"}),
        ]
        for answer in answers:
            assert (answer.status, answer.slug) == (401, "passphrase-required")
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="spool", charset="UTF-8"'
        answer = await grant.request("POST", "/tus", headers={**tus, "X-Requested-With": "XMLHttpRequest"})
        assert answer.headers["WWW-Authenticate"] == 'FormBased realm="spool"'  # a browser has no window for it
        assert await spool.nothing_is_left()

    async def test_is_a_password(self, grant: Invited) -> None:
        right = basic("Sésame: öffne dich")
        assert (await grant.request("GET", headers=right)).status == 200
        assert (await grant.put(headers=right)).status == 201
        assert (await grant.post(("f", "a", TEXT), headers=right)).status == 201
        headers = {**TUS, "Upload-Length": "3", **right}
        assert (await grant.request("POST", "/tus", headers=headers)).status == 201

    @pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic c2Vz", "Bearer sesame", "Basic " + "QQ==" * 2000])
    async def test_header_that_holds_none_is_none(self, grant: Invited, header: str) -> None:
        assert (await grant.request("GET", headers={"Authorization": header})).status == 401

    async def test_is_the_first_field_of_a_form(self, spool: Spool, grant: Invited) -> None:
        field: Part = ("passphrase", None, "Sésame: öffne dich".encode())
        answer = await grant.post(field, ("f", "a", TEXT), ("passphrase", None, b"metadata"))
        assert answer.status == 201
        record = (await spool.get(f"/files/{answer.json['files'][0]['id']}")).json
        assert record["metadata"] == {"passphrase": "metadata"}
        assert (await grant.post(("f", "a", TEXT), field)).status == 401
        assert (await grant.post(("passphrase", None, b"wrong"), ("f", "a", TEXT))).status == 401
        assert len(await spool.listed()) == 1

    async def test_guesses_are_few(self, grant: Invited) -> None:
        right = basic("Sésame: öffne dich")
        assert (await grant.request("GET", headers=right)).status == 200
        guesses = [await grant.request("GET", headers=basic(f"guess {i}")) for i in range(GUESSES)]
        assert [answer.status for answer in guesses] == [401] * (GUESSES - 1) + [429]
        assert guesses[-1].headers["Retry-After"]
        assert (await grant.request("GET", headers=right)).status == 200  # it is known
        other = await invite(grant.spool, passphrase="x")
        assert (await other.request("GET", headers=basic("x"))).status == 200

    async def test_lies_nowhere(self, spool: Spool, grant: Invited) -> None:
        kept = await spool.index.grant(GrantId(grant.id))
        assert kept.passphrase
        assert "same" not in kept.passphrase
        assert (await spool.get("/grants")).json["grants"][0]["passphrase"] is True

    async def test_where_there_is_none_the_field_is_metadata(self, spool: Spool) -> None:
        grant = await invite(spool)
        answer = await grant.post(("passphrase", None, b"x"), ("f", "a", TEXT))
        record = (await spool.get(f"/files/{answer.json['files'][0]['id']}")).json
        assert record["metadata"] == {"passphrase": "x"}

    async def test_looks_of_those_who_vanished_are_waited_for(self, spool: Spool, grant: Invited) -> None:
        """One look takes a fifth of a second of a processor, so that no two run at once."""
        guests, kept = spool.site.guests, await spool.site.index.grant(GrantId(grant.id))
        first, second = (asyncio.ensure_future(guests.prove(kept, wrong)) for wrong in ("a", "b"))
        async with asyncio.timeout(PATIENCE):
            while not guests._looking.locked():  # noqa: ASYNC110  # nobody else is told of it
                await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert guests._looking._waiters  # the second one waits for the end of the first
            with pytest.raises(PassphraseRequired):
                await second


class TestUndo:
    @pytest.mark.parametrize("method", ["DELETE", "POST"])
    async def test_deletes_the_file_and_its_bytes(self, spool: Spool, method: str) -> None:
        grant = await invite(spool)
        path = "/d/" + (await grant.put()).json["delete_url"].partition("/d/")[2]
        answer = await spool.request(method, path)
        assert (answer.status, answer.headers["Referrer-Policy"]) == (204, "no-referrer")
        assert await spool.nothing_is_left()
        assert (await spool.request(method, path)).status == 404

    async def test_needs_the_files_own_secret(self, spool: Spool) -> None:
        grant = await invite(spool)
        one, other = [(await grant.put()).json for _ in range(2)]
        own = (await spool.stored())["id"]
        secret = one["delete_url"].rpartition("/")[2]
        for path in (f"{other['id']}/{secret}", f"{one['id']}/{secret[:-1]}", f"{one['id']}/x", f"{own}/{secret}"):
            assert (await spool.request("DELETE", f"/d/{path}")).status == 404
        assert len(await spool.listed()) == 3

    async def test_is_told_to_guests_only(self, spool: Spool) -> None:
        assert "delete_url" not in await spool.stored()

    async def test_secret_lies_nowhere(self, spool: Spool) -> None:
        grant = await invite(spool)
        receipt = (await grant.put()).json
        secret = receipt["delete_url"].rpartition("/")[2].encode()
        assert all(secret not in path.read_bytes() for path in spool.dir.glob("index.db*"))


async def test_secrets_are_not_logged(ear: Ear, serve: Serve) -> None:
    spool = await serve()
    grant = await invite(spool)
    receipt = (await grant.put()).json
    await grant.request("GET", "//x")
    await spool.raw(f"GET /{grant.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await spool.request("DELETE", "/d/" + receipt["delete_url"].partition("/d/")[2])
    await ear.event("request.finished", 5)
    paths = [event["path"] for event in ear.events("request.finished")]
    assert paths[1] == "/g/.../a.txt"
    text = repr([(record.msg, record.args) for record in ear.records])
    assert grant.path.removeprefix("/g/") not in text
    assert receipt["delete_url"].rpartition("/")[2] not in text
    assert f"grant {grant.id}" in text


async def test_audit_log_tells_who_made_and_revoked_a_grant_and_a_link(spool: Spool) -> None:
    token = await spool.new_token("grant", "read", "upload", name="ada")
    grant = await invite(spool, token)
    record = await spool.stored(token=token)
    links = f"/files/{record['id']}/links"
    headers = {"Content-Type": "application/json"}
    link = (await spool.request("POST", links, data=b"{}", headers=headers, token=token)).json
    await spool.request("DELETE", f"{links}/{link['id']}", token=token)
    await spool.request("DELETE", f"/grants/{grant.id}", token=token, headers={"X-Request-ID": "mine"})
    entries = await spool.index.audited(spool.clock.time - timedelta(days=9), 0, 100)
    told = [(entry.act, entry.who, entry.via, entry.subject) for entry in entries]
    assert told == [
        ("grant.created", "ada", "http", grant.id),
        ("link.created", "ada", "http", link["id"]),
        ("link.revoked", "ada", "http", link["id"]),
        ("grant.revoked", "ada", "http", grant.id),
    ]
    assert entries[-1].request_id == "mine"
