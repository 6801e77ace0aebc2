"""Deletion that can be undone: by the API, by pages without JavaScript, and as an open page hears of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spool.upkeep import EVER, sweep
from tests.web.conftest import TEXT
from tests.web.test_pages import HTML, Page, page, post

if TYPE_CHECKING:
    from tests.web.conftest import Serve, Spool

GRACE = timedelta(minutes=10)


async def delete(spool: Spool, id: str, query: str = "?undo", **kw: str) -> int:
    return (await spool.request("DELETE", f"/files/{id}{query}", **kw)).status


async def undo(spool: Spool, id: str, **kw: str) -> int:
    return (await spool.request("POST", f"/files/{id}/undo", **kw)).status


async def swept(spool: Spool) -> None:
    await sweep(spool.blobs, spool.index, frozenset, EVER, spool.clock)


class TestByPrograms:
    async def test_deletion_with_undo_hides_the_file_everywhere(self, spool: Spool) -> None:
        record = await spool.stored()
        answer = await spool.request("DELETE", f"/files/{record['id']}?undo")
        assert (answer.status, answer.json["id"]) == (202, record["id"])
        assert answer.json["undo_until"].startswith("2026-03-01T12:10:00.")
        for path in ("files/{id}", "files/{id}/content", "media/{id}/x", "view/{id}", "files.zip?id={id}"):
            assert (await spool.get("/" + path.format(**record))).status == 404, path
        assert (await spool.patch(record, {"filename": "b"})).status == 404
        assert await spool.listed() == []
        assert (await page(spool, "/")).names == []

    async def test_undo_brings_it_back_as_it_was(self, spool: Spool) -> None:
        record = await spool.stored("a.txt?tag=x&tag=y")
        assert await delete(spool, record["id"]) == 202
        assert await undo(spool, record["id"]) == 204
        assert (await spool.get(f"/files/{record['id']}")).json == record
        assert (await spool.media(record)).body == TEXT

    async def test_undo_of_what_is_there_or_never_was_is_not_found(self, spool: Spool) -> None:
        record = await spool.stored()
        assert await undo(spool, record["id"]) == await undo(spool, "none") == 404
        assert await delete(spool, record["id"]) == 202
        assert await delete(spool, record["id"]) == 404

    async def test_deletion_without_undo_is_for_good(self, spool: Spool) -> None:
        record = await spool.stored()
        assert await delete(spool, record["id"], "") == 204
        assert await undo(spool, record["id"]) == 404
        assert not spool.kept()

    async def test_hidden_file_can_be_deleted_for_good(self, spool: Spool) -> None:
        record = await spool.stored()
        assert await delete(spool, record["id"]) == 202
        assert await delete(spool, record["id"], "") == 204
        assert await undo(spool, record["id"]) == 404
        assert not spool.kept()

    async def test_grace_that_is_over_is_over_before_the_sweep(self, spool: Spool) -> None:
        record = await spool.stored()
        assert await delete(spool, record["id"]) == 202
        spool.clock.time += GRACE
        assert await undo(spool, record["id"]) == 404
        assert spool.kept()
        await swept(spool)
        assert not spool.kept()

    async def test_without_a_grace_every_deletion_is_for_good(self, serve: Serve) -> None:
        spool = await serve({"storage.undo_grace": "0"})
        record = await spool.stored()
        assert await delete(spool, record["id"]) == 204
        assert not spool.kept()

    @pytest.mark.parametrize("scope", ["read", "upload"])
    async def test_nobody_undoes_who_may_not_delete(self, spool: Spool, scope: str) -> None:
        token, other = await spool.new_token("admin"), await spool.new_token(scope, name="bob")
        record = await spool.stored(token=token)
        assert await delete(spool, record["id"], token=token) == 202
        assert await undo(spool, record["id"], token=other) == 403
        answer = await spool.request("POST", "/undo", data=b"id=" + record["id"].encode(), token=other)
        assert answer.status == 403
        assert await undo(spool, record["id"], token=await spool.new_token("delete", name="eve")) == 204

    async def test_quota_counts_it_until_it_is_gone(self, serve: Serve) -> None:
        spool = await serve({"limits.quota_files": 1})
        record = await spool.stored()
        assert await delete(spool, record["id"]) == 202
        assert (await spool.put("b.txt")).slug == "quota-exceeded"
        assert await delete(spool, record["id"], "") == 204
        await spool.stored("b.txt")

    async def test_links_rest_meanwhile(self, spool: Spool) -> None:
        record = await spool.stored()
        kind = {"Content-Type": "application/json"}
        made = await spool.request("POST", f"/files/{record['id']}/links", data=b"{}", headers=kind)
        path = "/l/" + made.json["url"].rpartition("/")[2]
        assert (await spool.get(path)).body == TEXT
        assert await delete(spool, record["id"]) == 202
        assert (await spool.get(path)).status == 404
        assert await undo(spool, record["id"]) == 204
        assert (await spool.get(path)).body == TEXT

    async def test_retry_of_the_upload_is_told_what_it_was_told(self, spool: Spool) -> None:
        key = {"Idempotency-Key": '"once"'}
        record = await spool.stored(headers=key)
        assert await delete(spool, record["id"]) == 202
        assert (await spool.put(headers=key)).json["id"] == record["id"]
        assert await spool.listed() == []

    async def test_both_are_in_the_audit_log(self, spool: Spool) -> None:
        record = await spool.stored()
        await delete(spool, record["id"])
        await undo(spool, record["id"])
        await delete(spool, record["id"], "")
        [hidden, back, gone] = await spool.index.audited(spool.clock() - GRACE, 0, 10)
        assert [entry.act for entry in (hidden, back, gone)] == ["file.deleted", "file.restored", "file.deleted"]
        assert str(hidden.detail["until"]).startswith("2026-03-01T12:10:00.")
        assert back.detail == {"filename": "a.txt"}
        assert "until" not in gone.detail


class TestByPeople:
    async def test_files_are_deleted_at_once_and_offered_for_undoing(self, spool: Spool) -> None:
        ids = [(await spool.stored(f"{i}.txt"))["id"] for i in range(3)]
        answer = await post(spool, "/delete", ("id", ids[0]), ("id", ids[1]), ("id", "gone"))
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        found = await page(spool, "/")
        assert found.names == ["2.txt"]
        assert "Recently deleted (2)" in found.text
        assert (await post(spool, "/undo", ("id", ids[1]), ("id", "gone"))).status == 303
        found = await page(spool, "/")
        assert found.names == ["2.txt", "1.txt"]
        assert "Recently deleted (1)" in found.text
        assert (await post(spool, "/undo", ("id", ids[1]), ("id", "gone"))).status == 404

    async def test_nothing_is_offered_where_nothing_was_deleted_or_may_be(self, spool: Spool) -> None:
        token = await spool.new_token("admin")
        record = await spool.stored(token=token)
        assert not (await page(spool, "/", token=token)).all("details")
        await delete(spool, record["id"], token=token)
        assert (await page(spool, "/", token=token)).all("details")
        for scope in ("read", "delete"):
            other = await spool.new_token(scope, name=scope)
            assert not (await page(spool, "/", token=other)).all("details")
        spool.clock.time += GRACE
        assert not (await page(spool, "/", token=token)).all("details")

    async def test_deleted_file_can_be_deleted_for_good(self, spool: Spool) -> None:
        record = await spool.stored()
        await post(spool, "/delete", ("id", record["id"]))
        [button] = (await page(spool, "/")).all("button", name="final")
        assert button["formaction"] == "/delete"
        await post(spool, "/delete", ("id", record["id"]), ("confirmed", "1"), ("final", "1"))
        assert not spool.kept()

    async def test_name_of_a_deleted_file_is_text(self, spool: Spool) -> None:
        record = await spool.stored("a.txt")
        await spool.patch(record, {"filename": "<script>alert(1)<"})
        await delete(spool, record["id"])
        assert b"<script>" not in (await spool.get("/", headers=HTML)).body


class TestChanges:
    """What a page that is open is told."""

    async def position(self, spool: Spool) -> str:
        [found] = (await page(spool, "/")).all("ul", id="files")
        return str(found["data-changes"])

    async def changed(self, spool: Spool, position: str) -> tuple[list[str], str, Page]:
        """The files that are as the page shows them now, and the ids of those that are gone."""
        found = await page(spool, f"/?changes={position}&since=2100-01-01")
        [told] = found.all("ul", id="changed") or [{"data-gone": ""}]
        return found.names, str(told["data-gone"]), found

    async def test_are_none_at_first(self, spool: Spool) -> None:
        await spool.stored()
        found = await page(spool, "/")
        assert not found.all("ul", id="changed")
        assert (await self.changed(spool, await self.position(spool)))[:2] == ([], "")

    async def test_are_names_and_deletions_of_either_kind_and_what_came_back(self, spool: Spool) -> None:
        a, b, c = [await spool.stored(f"{name}.txt") for name in "abc"]
        position = await self.position(spool)
        await spool.patch(a, {"filename": "new.txt"})
        await delete(spool, b["id"])
        await delete(spool, c["id"], "")
        names, gone, found = await self.changed(spool, position)
        assert (names, gone) == (["new.txt"], f"{b['id']} {c['id']}")
        await undo(spool, b["id"])
        [next_] = found.all("ul", id="files")
        assert (await self.changed(spool, str(next_["data-changes"])))[:2] == (["b.txt"], "")

    @pytest.mark.parametrize("value", ["x", "-1", "1" * 19, "%D9%A1"])
    async def test_since_what_no_page_told_are_refused(self, spool: Spool, value: str) -> None:
        assert (await spool.get(f"/?changes={value}", headers=HTML)).status == 400

    async def test_are_not_in_the_link_to_more_files(self, spool: Spool) -> None:
        for i in range(51):
            await spool.stored(f"{i}.txt")
        [more] = (await page(spool, "/?changes=0")).all("a", rel="next")
        assert "changes" not in str(more["href"])
