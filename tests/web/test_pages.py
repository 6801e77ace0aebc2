"""Pages as they are without JavaScript."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import pytest

from spool import web as spool_web
from spool.model import FileId, Key
from spool.web.pages import words
from spool.web.pages.assets import Assets
from spool.web.pages.html import Html, join, tag
from tests.web.conftest import PNG, form

if TYPE_CHECKING:
    from tests.web.conftest import Answer, Ear, Serve, Spool

HTML: Final = {"Accept": "text/html,*/*;q=0.8"}
NASTY: Final = "\"><script>alert(1)</script><b a='&amp;.txt"


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for name, a in self.tags if name == tag and all(a.get(k.rstrip("_")) == v for k, v in wanted.items())]

    @property
    def names(self) -> list[str]:
        return re.findall(r"Select ([^\0]*?)\0", "\0".join(str(a.get("aria-label")) for a in self.all("input")) + "\0")


async def page(spool: Spool, path: str, **kw: Any) -> Page:
    answer = await spool.get(path, headers=HTML, **kw)
    assert answer.status == 200, answer.body
    return Page(answer)


async def post(spool: Spool, path: str, *fields: tuple[str, str], **kw: Any) -> Answer:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return await spool.request(
        "POST", path, data=urlencode(fields).encode(), headers={**HTML, **kind, **kw.pop("headers", {})}, **kw
    )


class TestHtml:
    def test_text_is_escaped_wherever_it_is_put(self) -> None:
        made = tag("a", "<b>&", tag("i", '"'), href='"><script>', class_="x", hidden=True, data_a=None, open=False)
        assert made == '<a href="&quot;&gt;&lt;script&gt;" class="x" hidden>&lt;b&gt;&amp;<i>&quot;</i></a>'

    def test_html_comes_from_tags_alone(self) -> None:
        assert type(tag("p")) is Html
        assert join("<", tag("br"), None) == "&lt;<br>"

    @pytest.mark.parametrize(
        ("count", "text"),
        [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (9949, "9.9 kB"),
            (12_345, "12 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (16 * 2**30, "17 GB"),
            (5 * 10**15, "5000 TB"),
        ],
    )
    def test_size_is_written_as_people_read_it(self, count: int, text: str) -> None:
        assert words.size(count) == text


class TestPolicy:
    @pytest.mark.parametrize("path", ["/", "/login", "/view/{id}", "/view/none"])
    async def test_lets_nothing_run_but_our_scripts_and_nothing_frame_it(self, spool: Spool, path: str) -> None:
        record = await spool.stored()
        answer = await spool.get(path.format(**record), headers=HTML)
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == "'self'"
        [nonce] = set(re.findall(r"'nonce-([\w-]{20,})'", answer.headers["Content-Security-Policy"]))
        assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonce}'"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        found = Page(answer)
        assert all(script["nonce"] == nonce and script["src"] for script in found.all("script"))
        assert not [a for _, a in found.tags for name in a if name.startswith("on") or name == "style"]
        assert not found.all("style")

    async def test_nonce_is_another_for_every_answer(self, spool: Spool) -> None:
        answers = [(await spool.get("/", headers=HTML)).headers["Content-Security-Policy"] for _ in range(3)]
        assert len(set(answers)) == 3

    async def test_lets_media_of_their_own_origin_through(self, serve: Serve) -> None:
        spool = await serve({"server.media_base_url": "https://media.example.org"})
        token = await spool.new_token("admin")
        record = await spool.stored("a.png", PNG, token=token)
        answer = await spool.get(f"/view/{record['id']}", headers=HTML, token=token)
        assert "img-src 'self' https://media.example.org;" in answer.headers["Content-Security-Policy"]
        assert str(Page(answer).all("img")[0]["src"]).startswith("https://media.example.org/media/")


class TestAssets:
    async def test_are_kept_for_ever_at_the_address_of_their_version(self, spool: Spool) -> None:
        found = await page(spool, "/")
        addresses = [str(a.get("src") or a.get("href")) for tag in ("script", "link") for a in found.all(tag)]
        assert len(addresses) == 4
        for address in addresses:
            answer = await spool.get(address)
            assert answer.status == 200
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["Content-Type"].startswith(("text/javascript", "text/css", "image/svg"))

    async def test_of_another_version_are_not_kept(self, spool: Spool) -> None:
        assert (await spool.get("/ui/0/app.js")).headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("name", ["none.js", "tus.LICENSE", "..%2fapp.py", "%2e%2e%2f__init__.py"])
    async def test_are_the_only_files_that_are_served(self, spool: Spool, name: str) -> None:
        assert (await spool.get(f"/ui/{Assets().version}/{name}")).status == 404

    def test_weigh_under_200_kb_with_a_page_full_of_files(self) -> None:
        others = ("guest.js", "view.js")  # of other pages
        assert sum(len(data) for name, data in Assets()._files.items() if name not in others) < 148_000

    def test_what_is_not_ours_is_as_it_was_published(self) -> None:
        told = (Path(spool_web.__file__).parent / "ui" / "vendored.md").read_text()
        assert hashlib.sha256(Assets().read("tus.min.js")).hexdigest() in told

    def test_scripts_read_no_html_but_the_pages_of_the_server(self) -> None:
        text = "".join(data.decode() for name, data in Assets()._files.items() if name != "tus.min.js")
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text) == []


class TestListing:
    async def test_shows_files_newest_first(self, spool: Spool) -> None:
        for name in ("a.txt", "b.txt", "c.txt"):
            await spool.stored(name)
        assert (await page(spool, "/")).names == ["c.txt", "b.txt", "a.txt"]

    async def test_walks_page_by_page(self, spool: Spool) -> None:
        for i in range(120):
            await spool.stored(f"{i}.txt")
        path, seen = "/", []
        for _ in range(3):
            found = await page(spool, path)
            seen += found.names
            path = str(([*found.all("a", rel="next")] or [{"href": ""}])[0]["href"])
        assert seen == [f"{i}.txt" for i in range(119, -1, -1)]
        assert not path

    async def test_finds_by_name_kind_and_order(self, spool: Spool) -> None:
        await spool.stored("b.png", PNG)
        await spool.stored("a.txt")
        await spool.stored("Ab.txt", b"longer than that is\n")
        assert (await page(spool, "/?q=b")).names == ["Ab.txt", "b.png"]
        assert (await page(spool, "/?kind=image&q=")).names == ["b.png"]
        assert (await page(spool, "/?sort=name")).names == ["Ab.txt", "a.txt", "b.png"]
        assert (await page(spool, "/?sort=oldest")).names == ["b.png", "a.txt", "Ab.txt"]
        assert (await page(spool, "/?sort=largest&kind=text")).names == ["Ab.txt", "a.txt"]
        assert "Nothing matches." in (await page(spool, "/?q=zzz")).text

    async def test_search_is_kept_until_it_is_given_up(self, spool: Spool) -> None:
        record = await spool.stored("a.txt")
        search = f"{spool.client.make_url('/')}?q=a&sort=name"

        async def back(referer: str) -> str | None:
            answer = await spool.get(f"/view/{record['id']}", headers={**HTML, "Referer": referer})
            return Page(answer).all("a")[4]["href"]  # after the ways that all pages have

        assert await back(search) == "/?q=a&sort=name"
        for other in ("", "http://elsewhere.example/?q=a", f"{spool.client.make_url('/view/x')}?q=a", "http://[/?q=a"):
            assert await back(other) == "/"
        for path in ("/delete", "/undo"):
            answer = await post(spool, path, ("id", str(record["id"])), headers={"Referer": search})
            assert (answer.status, answer.headers["Location"]) == (303, "/?q=a&sort=name")
        assert (await page(spool, "/?q=zzz")).all("a", href="/")[-1] == {"href": "/"}
        assert (await page(spool, "/?grant=x&q=a&sort=name")).all("a", href="/?q=a&sort=name")

    @pytest.mark.parametrize(
        ("types", "accept"),
        [([], None), (["image/*", "application/pdf"], "image/*,application/pdf"), (["image/*", "text/*"], None)],
    )
    async def test_picker_shows_what_is_taken_where_browsers_know_it(
        self, serve: Serve, types: list[str], accept: str | None
    ) -> None:
        spool = await serve({"policy.allow_types": types})
        assert (await page(spool, "/")).all("input", id="picker")[0].get("accept") == accept

    async def test_pages_on_which_nothing_passes_are_turned(self, spool: Spool) -> None:
        for i in range(60):
            await spool.stored(f"{i}.txt")
        spool.index._scan = 7
        assert (await page(spool, "/?q=0.txt")).names[:1] == ["50.txt"]
        assert (await page(spool, "/?q=3.txt&sort=oldest")).names[:1] == ["3.txt"]

    async def test_nothing_matches_only_where_nothing_is_left_to_look_at(self, spool: Spool) -> None:
        for i in range(40):
            await spool.stored(f"{i}.txt")
        spool.index._scan = 1
        first = await page(spool, "/?q=zzz")
        [more] = first.all("a", id="more")
        assert "hidden" in first.all("p", id="empty")[0]
        last = await page(spool, str(more["href"]))
        assert not last.all("a", id="more")
        assert "hidden" not in last.all("p", id="empty")[0]

    @pytest.mark.parametrize(
        "query", ["kind=x", "sort=x", "limit=51", "limit=x", "cursor=x", "since=x", f"q={'x' * 256}", "q=%00"]
    )
    async def test_address_that_cannot_be_read_is_refused_in_a_page(self, spool: Spool, query: str) -> None:
        answer = await spool.get(f"/?{query}", headers=HTML)
        assert answer.status == 400
        assert "Malformed request" in Page(answer).text

    @pytest.mark.parametrize("path", ["/", "/view/{id}", "/?q=%22%3E%3Cscript%3E"])
    async def test_name_of_a_file_is_text(self, spool: Spool, path: str) -> None:
        nasty = quote(NASTY, safe="")  # a name loses some of it, metadata do not
        record = await spool.stored(f"{nasty}?note={nasty}&{nasty}=x")
        answer = await spool.get(path.format(**record), headers=HTML)
        assert b"<script>" not in answer.body
        assert [script.get("src") for script in Page(answer).all("script")].count(None) == 0

    async def test_file_that_is_damaged_is_shown_so(self, spool: Spool) -> None:
        record = await spool.stored("a.png", PNG)
        file = await spool.index.file(FileId(record["id"]))
        await spool.index.mark(file.key, "missing")
        found = await page(spool, "/")
        assert "damaged" in found.text
        assert not found.all("img")
        assert "were lost" in (await page(spool, f"/view/{record['id']}")).text

    async def test_head_is_like_get(self, spool: Spool) -> None:
        answer = await spool.request("HEAD", "/", headers=HTML)
        assert (answer.status, answer.body) == (200, b"")


class TestDetails:
    async def test_of_no_file_say_so_in_one_sentence(self, spool: Spool) -> None:
        answer = await spool.get("/view/none", headers=HTML)
        assert "There is no such file.Back to the files" in Page(answer).text

    async def test_tell_all_about_a_file(self, spool: Spool) -> None:
        record = await spool.stored("a.txt?mood=calm&expires_at=2027-01-01")
        text = (await page(spool, f"/view/{record['id']}")).text
        for part in ("a.txt", "13 bytes", "text/plain", record["sha256"], "2027-01-01", "calm", "local"):
            assert part in text

    @pytest.mark.parametrize(("size", "images", "links"), [(2**20, 1, 0), (2**25 + 1, 0, 1)])
    async def test_fetch_no_huge_image_unasked(self, spool: Spool, size: int, images: int, links: int) -> None:
        file = await spool.index.file(FileId((await spool.stored("a.png", PNG))["id"]))
        await spool.index.finish([replace(file, id=FileId("f" * 32), key=Key("f" * 32), size=size)])
        found = await page(spool, f"/view/{'f' * 32}")
        assert len(found.all("img")) == images
        assert found.text.count("Open") == links

    async def test_play_what_a_browser_can_and_nothing_else(self, spool: Spool) -> None:
        sound = b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(2038) + (b"\xff\xfb\x90\x64" + bytes(413)) * 5
        for name, data, shown in [
            ("a.mp3", sound, "audio"),
            ("a.png", PNG, "img"),
            ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', None),
            ("a.html", b"<!DOCTYPE html><html><script>alert(1)</script></html>", None),
        ]:
            found = await page(spool, f"/view/{(await spool.stored(name, data))['id']}")
            assert [t for t, _ in found.tags if t in ("audio", "video", "img", "iframe", "object")] == [shown] * bool(
                shown
            )

    async def test_of_what_is_not_there_are_a_page_too(self, spool: Spool) -> None:
        answer = await spool.get("/view/none", headers=HTML)
        assert answer.status == 404
        assert "Not found" in Page(answer).text
        assert (await spool.get("/view/none")).slug == "not-found"


class TestForms:
    async def test_upload_stores_all_files_and_leads_back(self, spool: Spool) -> None:
        body, kind = form(("file", "a.txt", b"a"), ("file", "b.txt", b"b"))
        answer = await spool.request("POST", "/upload", data=body, headers={**HTML, **kind})
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert set(await spool.listed()) == {"a.txt", "b.txt"}

    async def test_upload_that_is_refused_tells_why(self, serve: Serve) -> None:
        spool = await serve({"policy.deny_types": ["text/*"]})
        body, kind = form(("file", "a.txt", b"hello"))
        answer = await spool.request("POST", "/upload", data=body, headers={**HTML, **kind})
        assert answer.status == 415
        assert "text/plain are not accepted" in Page(answer).text

    async def test_limits_are_told_to_the_page(self, serve: Serve) -> None:
        spool = await serve({"policy.deny_types": ["text/*"], "policy.allow_types": ["audio/*", "image/png"]})
        [found] = (await page(spool, "/")).all("form", id="upload")
        assert found["data-allow"] == "audio/* image/png"
        assert found["data-deny"] == "text/*"
        assert found["data-max-size"] == str(16 * 2**30)

    async def test_name_can_be_changed(self, spool: Spool) -> None:
        record = await spool.stored()
        answer = await post(spool, f"/view/{record['id']}", ("filename", "../ö.txt"))
        assert (answer.status, answer.headers["Location"]) == (303, f"/view/{record['id']}")
        assert await spool.listed() == ["ö.txt"]

    async def test_name_of_anothers_file_cannot(self, spool: Spool) -> None:
        record = await spool.stored(token=await spool.new_token("upload", name="ada"))
        token = await spool.new_token("upload", "read", name="bob")
        assert not (await page(spool, f"/view/{record['id']}", token=token)).all("input", name="filename")
        assert (await post(spool, f"/view/{record['id']}", ("filename", "x"), token=token)).status == 403

    async def test_files_are_deleted_for_good_once_that_is_confirmed(self, serve: Serve) -> None:
        spool = await serve({"storage.undo_grace": "0"})
        ids = [(await spool.stored(f"{i}.txt"))["id"] for i in range(3)]
        chosen = [("id", each) for each in (*ids[:2], "gone")]
        asked = await post(spool, "/delete", *chosen)
        assert "Delete these 2 files?" in Page(asked).text
        assert len(await spool.listed()) == 3
        answer = await post(spool, "/delete", *chosen, ("confirmed", "1"))
        assert answer.status == 303
        assert await spool.listed() == ["2.txt"]

    @pytest.mark.parametrize("fields", [[], [("id", "none")]])
    async def test_nothing_chosen_deletes_nothing(self, spool: Spool, fields: list[tuple[str, str]]) -> None:
        await spool.stored()
        assert (await post(spool, "/delete", *fields, ("confirmed", "1"))).status == 303
        assert len(await spool.listed()) == 1

    @pytest.mark.parametrize("data", [b"\xff=%ff", b"&".join([b"id=x"] * 511), b"id=" + b"x" * 70_000])
    async def test_form_that_cannot_be_read_is_refused(self, spool: Spool, data: bytes) -> None:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await spool.request("POST", "/delete", data=data, headers=kind)).status in (400, 413)


class TestArchive:
    async def test_holds_the_files_that_are_named(self, spool: Spool) -> None:
        large = bytes(range(256)) * 4000
        records = [
            await spool.stored("a.txt", b"one"),
            await spool.stored("a.txt", large),
            await spool.stored("é.bin", b""),
        ]
        answer = await spool.get("/files.zip?" + "&".join(f"id={record['id']}" for record in records))
        assert answer.headers["Content-Type"] == "application/zip"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="files.zip"'
        assert int(answer.headers["Content-Length"]) == len(answer.body)
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == {
                "a.txt": b"one",
                "a (2).txt": large,
                "é.bin": b"",
            }

    async def test_head_tells_its_length(self, spool: Spool) -> None:
        record = await spool.stored()
        path = f"/files.zip?id={record['id']}"
        head, whole = await spool.request("HEAD", path), await spool.get(path)
        assert int(head.headers["Content-Length"]) == len(whole.body)
        assert not head.body

    async def test_by_a_form_holds_more_files_than_an_address_has_room_for(self, spool: Spool) -> None:
        await spool.stored("0", b"x")
        part = b"--b\r\nContent-Disposition: form-data; name=file; filename=%d\r\n\r\nx\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        for start in (1, 101, 201):
            form = b"".join(part % number for number in range(start, start + 100))
            assert (await spool.request("POST", "/files", data=form + b"--b--", headers=kind)).status == 201
        found = (await spool.get("/files?limit=1000&sort=created_at&order=asc")).json["files"]
        assert len(found) == 301
        answer = await post(spool, "/files.zip", *(("id", record["id"]) for record in found))
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.namelist() == [record["filename"] for record in found]

    @pytest.mark.parametrize("query", ["", "?id=", "?x=1", "?" + "&".join(f"id={i}" for i in range(501))])
    async def test_of_nothing_or_too_much_is_refused(self, spool: Spool, query: str) -> None:
        assert (await spool.get(f"/files.zip{query}")).status in (400, 404)

    async def test_with_a_file_that_is_not_there_is_refused_before_a_byte(self, spool: Spool) -> None:
        record = await spool.stored()
        assert (await spool.get(f"/files.zip?id={record['id']}&id=none")).slug == "not-found"

    async def test_is_cut_off_where_a_file_is_short(self, ear: Ear, spool: Spool) -> None:
        record = await spool.stored("a.bin", bytes(600_000))
        [blob] = spool.kept()
        blob.chmod(0o600)
        with blob.open("r+b") as file:
            file.truncate(300_000)
        answer = await spool.raw(f"GET /files.zip?id={record['id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"HTTP/1.1 200" in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert (await ear.event("archive.cut_off"))["id"] == record["id"]
        assert not ear.tracebacks

    async def test_that_nobody_takes_any_more_leaves_nothing_open(self, spool: Spool) -> None:
        record = await spool.stored("a.bin", io.BytesIO(bytes(40 * 2**20)))
        reader, writer = await asyncio.open_connection(spool.client.host, spool.client.port)
        writer.write(f"GET /files.zip?id={record['id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readexactly(1000)
        writer.transport.abort()
        assert await spool.site.traffic.drain(20)
        spool.site.traffic.draining = False
        assert (await spool.get("/healthz")).status == 200
