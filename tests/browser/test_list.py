"""The list: live, endless, and what is done with one file or many."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from spool.model import File, FileId, Key
from spool.store import open_index
from tests.browser.conftest import paste, sample, stored, throttle
from tests.process import EFFORT, Server, curl, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import APIResponse, Locator, Page, Route

    from tests.browser.conftest import NewPage

MANY = 10_000
FAR = min(MANY, 2000 * EFFORT)
"""To the last takes a minute where there is no graphics processor, mostly to paint."""
HEIGHT = "document.documentElement.scrollHeight"
SCROLL = """async (many) => {
    const list = document.getElementById("files");
    while (list.children.length < many) {
        const count = list.children.length;
        const grown = new Promise((done, failed) => {
            const late = setTimeout(() => failed(new Error(`the list stays at ${count}`)), 30000);
            new MutationObserver((_, observer) => {
                if (list.children.length === count) return;
                observer.disconnect();
                clearTimeout(late);
                done();
            }).observe(list, { childList: true });
        });
        document.getElementById("more").scrollIntoView();
        await grown;
    }
}"""
"""Scrolls to the end of the list again and again, until it has so many files."""


def names(page: Page) -> list[str]:
    return page.locator("#files > li:visible .name").all_text_contents()


def visible(page: Page) -> Locator:
    return page.locator("#files > li:visible")


def delete(server: Server, id: str) -> int:
    request = urllib.request.Request(f"{server.url}/files/{id}", method="DELETE")
    with urllib.request.urlopen(request, timeout=60) as response:
        return int(response.status)


def look(page: Page) -> None:
    """Now, not after some seconds."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_two_browsers_see_what_the_other_stores(new_page: NewPage, server: Server, tmp_path: Path) -> None:
    pages = [new_page(), new_page()]
    for number, page in enumerate(pages):
        sample(tmp_path / f"{number}.bin", 1000)
        page.set_input_files("#picker", tmp_path / f"{number}.bin")
        for each in pages:
            expect(each.locator("#files > li")).to_have_count(number + 1)
    assert [names(page) for page in pages] == [["1.bin", "0.bin"]] * 2
    assert len(server.files()) == 2


def test_new_files_are_seen_though_there_are_more_than_fit_on_a_page(page: Page, server: Server) -> None:
    server.put("first", b"0")
    expect(page.locator("#files > li")).to_have_count(1)
    for number in range(120):
        server.put(f"{number}.txt", b"%d" % number)
    expect(page.locator("#files > li")).to_have_count(121)
    assert names(page) == [*(f"{number}.txt" for number in range(119, -1, -1)), "first"]


def test_files_of_one_moment_stay_in_their_order(new_page: NewPage, server: Server) -> None:
    """A look reaches back a little, and so finds older ones than the list has come to."""
    files = [part for number in range(60) for part in ("-F", f"file=x;filename={number}.txt")]
    assert curl(*files, f"{server.url}/files").status == 201
    page = new_page(None)
    page.goto("/")
    page.locator("html.live").wait_for()
    with page.expect_response(lambda response: "changes=" in response.url):
        look(page)
    page.evaluate("new Promise(requestAnimationFrame)")
    shown = names(page)
    assert len(shown) == 50
    page.locator("#more").scroll_into_view_if_needed()
    expect(visible(page)).to_have_count(60)
    assert names(page)[:50] == shown
    assert sorted(names(page)) == sorted(f"{number}.txt" for number in range(60))


def test_new_file_has_its_place_in_any_order(new_page: NewPage, server: Server) -> None:
    for name in ("a.txt", "c.txt"):
        server.put(name, name.encode())
    page = new_page("/?sort=name")
    for name in ("d.txt", "b.txt", "0.txt"):
        server.put(name, name.encode())
    look(page)
    expect(visible(page)).to_have_count(5)
    assert names(page) == ["0.txt", "a.txt", "b.txt", "c.txt", "d.txt"]


class _Three:
    @pytest.fixture
    def page(self, new_page: NewPage, server: Server) -> Page:
        for name in ("a.txt", "b.txt", "c.txt"):
            server.put(name, name.encode())
        return new_page()


class TestStill(_Three):
    """Nothing moves away under a pointer."""

    def test_row_stays_under_the_pointer_when_uploads_end_and_others_delete(
        self, page: Page, new_page: NewPage, server: Server, tmp_path: Path
    ) -> None:
        sample(tmp_path / "large.bin", 8_000_000)
        throttle(page, 1_000_000)  # eight seconds to get there with the pointer
        page.set_input_files("#picker", tmp_path / "large.bin")
        expect(page.locator("#queue > li")).to_have_count(1)
        page.get_by_role("button", name="Delete a.txt").hover()
        box = page.get_by_role("button", name="Delete a.txt").bounding_box()
        new_page().get_by_role("button", name="Delete c.txt").click()
        server.put("theirs.txt", b"theirs")
        expect(page.get_by_role("button", name="2 new files")).to_be_visible()
        expect(page.locator("#queue > li")).to_have_count(0)
        expect(page.locator(".gone .name")).to_have_text("c.txt")
        expect(page.get_by_text("Recently deleted (1)")).to_be_visible()
        assert page.get_by_role("button", name="Delete a.txt").bounding_box() == box
        assert names(page) == ["c.txt", "b.txt", "a.txt"]
        page.mouse.down()
        page.mouse.up()
        expect(page.locator("#undo")).to_contain_text("a.txt deleted")
        page.mouse.move(0, 0)
        expect(visible(page)).to_have_count(3)
        assert sorted(names(page)) == ["b.txt", "large.bin", "theirs.txt"]
        expect(page.get_by_role("button", name="new file")).to_be_hidden()

    def test_row_stays_under_the_pointer_when_a_file_is_pasted(self, page: Page) -> None:
        throttle(page, 10_000)
        row = page.get_by_role("button", name="Delete a.txt")
        for height, scrolled in ((720, False), (500, True)):
            page.set_viewport_size({"width": 1280, "height": height})
            before = page.evaluate(HEIGHT)
            row.hover()
            assert (page.evaluate("scrollY") > 0) == scrolled
            box = row.bounding_box()
            paste(page, 50_000)
            expect(page.get_by_role("button", name="Pause pasted")).to_be_in_viewport()
            assert row.bounding_box() == box
            page.mouse.move(0, 0)
            page.get_by_role("button", name="Cancel pasted").click()
            expect(page.locator("#queue > li")).to_have_count(0)
            eventually(lambda expected=before: page.evaluate(HEIGHT) == expected)

    def test_row_stays_under_a_finger_and_for_a_while_after(self, new_page: NewPage, server: Server) -> None:
        page = new_page(None, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
        page.clock.install()
        for name in ("a.txt", "b.txt", "c.txt"):
            server.put(name, name.encode())
        page.goto("/")
        about = page.locator("#files > li", has_text="b.txt").locator(".dim")
        box = about.bounding_box()
        assert box
        finger = page.context.new_cdp_session(page)
        point = {"x": box["x"] + 5, "y": box["y"] + 5}
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        server.put("new.txt", b"new")
        look(page)
        button = page.get_by_role("button", name="1 new file")
        expect(button).to_be_visible()
        finger.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})  # as upon scrolling
        page.clock.run_for(3000)
        assert names(page) == ["c.txt", "b.txt", "a.txt"]
        assert about.bounding_box() == box
        page.clock.run_for(1100)
        expect(button).to_be_hidden()
        assert names(page) == ["new.txt", "c.txt", "b.txt", "a.txt"]

    def test_button_shows_what_is_new_to_who_is_at_the_list_by_keyboard(self, page: Page, server: Server) -> None:
        page.get_by_label("Search by name").focus()
        server.put("new.txt", b"new")
        look(page)
        button = page.get_by_role("button", name="1 new file")
        expect(button).to_be_visible()
        assert names(page) == ["c.txt", "b.txt", "a.txt"]
        page.keyboard.press("Shift+Tab")
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        assert names(page) == ["new.txt", "c.txt", "b.txt", "a.txt"]
        expect(page.get_by_role("link", name="new.txt", exact=True)).to_be_focused()

    def test_double_click_deletes_one_file(self, page: Page, server: Server) -> None:
        page.get_by_role("button", name="Delete c.txt").dblclick()
        expect(page.locator("#undo")).to_contain_text("c.txt deleted")
        assert names(page) == ["b.txt", "a.txt"]
        assert set(stored(server, 2)) == {"a.txt", "b.txt"}

    def test_look_that_was_on_its_way_does_not_take_back_what_was_undone(self, page: Page) -> None:
        late: list[tuple[Route, APIResponse]] = []
        page.route("**/?*changes=*", lambda route: late.append((route, route.fetch())), times=1)
        page.get_by_role("button", name="Delete b.txt").press("Enter")
        eventually(lambda: late or page.wait_for_timeout(20))
        page.get_by_role("button", name="Undo", exact=True).press("Enter")
        back = page.get_by_role("link", name="b.txt", exact=True)
        expect(back).to_be_focused()
        with page.expect_response("**/?*changes=*"), page.expect_response("**/?*changes=*"):
            [(route, response)] = late
            route.fulfill(response=response)
        expect(back).to_be_focused()
        assert names(page) == ["c.txt", "b.txt", "a.txt"]

    def test_list_that_empties_says_so(self, page: Page, server: Server) -> None:
        for record in list(stored(server, 3).values())[1:]:
            delete(server, record["id"])
        look(page)
        expect(visible(page)).to_have_count(1)
        expect(page.locator("#empty")).to_be_hidden()
        page.locator("#files > li:visible .danger").click()
        expect(page.get_by_text("Nothing here yet.")).to_be_visible()
        page.get_by_role("button", name="Undo", exact=True).click()
        expect(page.locator("#empty")).to_be_hidden()


class TestMany:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        with ThreadPoolExecutor(1) as thread:  # this one has a loop already, which drives the browser
            thread.submit(asyncio.run, self._fill(tmp_path / "spool")).result()
        # the files have no bytes, and nobody is to look for them
        env = {"SPOOL_SERVER_PORT": str(free_port()), "SPOOL_STORAGE_SCRUB_INTERVAL": "0"}
        with Server(tmp_path / "spool", env=env) as running:
            yield running

    async def _fill(self, directory: Path) -> None:
        directory.mkdir()
        start = datetime(2026, 1, 1, tzinfo=UTC)
        first = File(
            id=FileId(""), key=Key(""), owner="local", filename="", size=7, media_type="text/plain",
            declared_type=None, sha256="0" * 64, created_at=start, expires_at=None, metadata={},
        )  # fmt: skip
        files = [
            replace(
                first, id=FileId(f"{n:032}"), key=Key(f"{n:032}"), filename=f"{n}.txt",
                created_at=start + timedelta(seconds=n),
            )
            for n in range(MANY)
        ]  # fmt: skip
        async with aclosing(await open_index(directory)) as index:
            await index.finish(files)

    def test_files_are_scrolled_through(self, page: Page) -> None:
        rows = page.locator("#files > li")
        expect(rows).to_have_count(50)

        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        start = time.monotonic()
        page.evaluate(SCROLL, FAR)
        nodes = page.evaluate("document.getElementsByTagName('*').length")
        told = f"first paint after {painted:.0f} ms, {FAR} files in {time.monotonic() - start:.1f} s, {nodes} elements"
        print(told)  # noqa: T201  # the figures are worth reading
        seen = page.evaluate("[...document.querySelectorAll('#files .name')].map(name => name.textContent)")
        assert len(seen) >= FAR
        assert seen == [f"{n}.txt" for n in range(MANY - 1, MANY - 1 - len(seen), -1)]
        expect(page.locator("#more")).to_have_count(0 if FAR == MANY else 1)
        page.get_by_label("Search by name").fill("1234.txt")
        page.keyboard.press("Enter")
        expect(rows).to_have_count(1)


class TestDelete(_Three):
    def test_hides_a_file_at_once_everywhere(self, page: Page, new_page: NewPage, server: Server) -> None:
        other = new_page()
        page.get_by_role("button", name="Delete b.txt").click()
        assert names(page) == ["c.txt", "a.txt"]
        assert set(stored(server, 2)) == {"a.txt", "c.txt"}
        expect(visible(other)).to_have_count(2)
        assert names(other) == ["c.txt", "a.txt"]
        assert len(server.blobs()) == 3

    def test_can_be_undone(self, page: Page, server: Server) -> None:
        before = stored(server, 3)
        page.get_by_role("button", name="Delete b.txt").click()
        stored(server, 2)
        page.get_by_role("button", name="Undo", exact=True).click()
        expect(visible(page)).to_have_count(3)
        assert names(page) == ["c.txt", "b.txt", "a.txt"]
        assert stored(server, 3) == before

    def test_can_be_undone_after_a_reload_and_in_another_browser(
        self, page: Page, new_page: NewPage, server: Server
    ) -> None:
        before = stored(server, 3)
        page.get_by_role("button", name="Delete b.txt").click()
        stored(server, 2)
        page.reload()
        assert names(page) == ["c.txt", "a.txt"]
        other = new_page()
        other.get_by_text("Recently deleted (1)").click()
        other.get_by_role("button", name="Undo the deletion of b.txt").click()
        expect(visible(other)).to_have_count(3)
        assert stored(server, 3) == before
        expect(visible(page)).to_have_count(3)
        assert names(page) == ["c.txt", "b.txt", "a.txt"]

    def test_that_is_offered_no_more_is_among_the_deleted(self, new_page: NewPage, server: Server) -> None:
        server.put("a.txt", b"a")
        page = new_page(None)
        page.clock.install()
        page.goto("/")
        page.get_by_role("button", name="Delete a.txt").click()
        expect(page.locator("#deleted")).to_have_count(1)
        page.clock.run_for(15_100)
        expect(page.locator("#undo")).to_have_count(0)
        expect(page.locator("#deleted")).to_have_count(1)

    def test_and_undo_work_without_scripts(self, new_page: NewPage, server: Server) -> None:
        server.put("a.txt", b"a")
        before = stored(server)
        page = new_page(java_script_enabled=False)
        page.get_by_label("Select a.txt").check()
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#files > li")).to_have_count(0)
        assert server.files() == []
        page.get_by_text("Recently deleted (1)").click()
        page.get_by_role("button", name="Undo the deletion of a.txt").click()
        expect(page.locator("#files > li")).to_have_count(1)
        assert stored(server) == before

    def test_of_many_is_one_step(self, page: Page, server: Server) -> None:
        page.get_by_label("Select a.txt").check()
        page.get_by_label("Select c.txt").check()
        expect(page.locator("#count")).to_have_text("2 selected")
        page.locator("#chosen").get_by_role("button", name="Delete").click()
        assert names(page) == ["b.txt"]
        assert set(stored(server)) == {"b.txt"}
        page.get_by_role("button", name="Undo", exact=True).click()
        expect(visible(page)).to_have_count(3)
        stored(server, 3)

    def test_that_the_server_refuses_brings_the_file_back(self, page: Page, server: Server) -> None:
        page.route("**/delete", lambda route: route.fulfill(status=503))
        page.get_by_role("button", name="Delete b.txt").click()
        expect(visible(page)).to_have_count(3)
        expect(page.locator("#announce")).to_have_text("1 could not be deleted")
        assert stored(server, 3)


class TestDeleteForGood:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        env = {"SPOOL_SERVER_PORT": str(free_port()), "SPOOL_STORAGE_UNDO_GRACE": "0"}
        with Server(tmp_path / "spool", env=env) as running:
            yield running

    def test_asks_first(self, new_page: NewPage, server: Server) -> None:
        for name in ("a.txt", "b.txt"):
            server.put(name, name.encode())
        page = new_page()
        page.get_by_role("button", name="Delete b.txt").click()
        expect(page.get_by_role("heading", name="Delete this file?")).to_be_visible()
        assert stored(server, 2)
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#files > li")).to_have_count(1)
        assert set(stored(server)) == {"a.txt"}
        assert len(server.blobs()) == 1


@pytest.mark.parametrize("path", ["/", "/?sort=name"])
def test_what_others_rename_and_delete_is_so_without_a_reload(new_page: NewPage, server: Server, path: str) -> None:
    records = {name: server.put(name, name.encode()) for name in ("a.txt", "b.txt", "c.txt")}
    page, other = new_page(path), new_page(f"/view/{records['a.txt']['id']}")
    page.get_by_label("Select a.txt").check()
    page.mouse.move(0, 0)
    other.get_by_label("Name").fill("new.txt")
    other.get_by_role("button", name="Rename").click()
    expect(page.locator("#files").get_by_text("new.txt")).to_be_visible()
    expect(page.get_by_label("Select new.txt")).to_be_checked()
    assert delete(server, records["c.txt"]["id"]) == 204
    expect(visible(page)).to_have_count(2)
    assert sorted(names(page)) == ["b.txt", "new.txt"]


def test_file_vanishes_when_it_expires(new_page: NewPage, server: Server) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat().replace("+00:00", "Z")
    server.put(f"a.txt?expires_at={soon}", b"a")
    page = new_page()
    expect(visible(page)).to_have_count(1)
    expect(visible(page)).to_have_count(0)


def test_files_that_are_selected_come_as_one_zip(page: Page, server: Server) -> None:
    data = {f"{n}.bin": bytes([n]) * 300_000 for n in range(3)}
    for name, content in data.items():
        server.put(name, content)
    page.reload()
    for name in ("0.bin", "2.bin"):
        page.get_by_label(f"Select {name}").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as zip").click()
    assert download.value.suggested_filename == "files.zip"
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    assert {name: archive.read(name) for name in archive.namelist()} == {n: data[n] for n in ("2.bin", "0.bin")}


def test_bars_at_the_bottom_hide_nothing_of_each_other(page: Page, server: Server) -> None:
    for number in range(10):
        server.put(f"{number}.txt", b"%d" % number)
    look(page)
    page.get_by_label("Select 9.txt").check()
    page.get_by_role("button", name="Copy link to 8.txt").click()
    expect(page.locator("#made")).to_be_visible()
    page.get_by_role("button", name="Delete 7.txt").click()
    bars = [page.locator(name) for name in ("#made", "#undo", "#chosen")]
    for width, height in ((360, 740), (1280, 600)):
        page.set_viewport_size({"width": width, "height": height})
        for bar in bars:
            expect(bar).to_be_in_viewport(ratio=1)
        boxes = sorted((box["y"], box["y"] + box["height"]) for bar in bars if (box := bar.bounding_box()))
        assert len(boxes) == 3
        assert boxes[0][1] <= boxes[1][0]
        assert boxes[1][1] <= boxes[2][0]


def test_hundreds_are_selected_zipped_deleted_and_brought_back(new_page: NewPage, server: Server) -> None:
    """More than an address has room for, and than a browser sends at once."""
    for start in (0, 100, 200):
        files = [part for n in range(start, start + 100) for part in ("-F", f"file=x;filename={n}.txt")]
        assert curl(*files, f"{server.url}/files").status == 201
    page = new_page()
    page.evaluate(SCROLL, 300)
    boxes = page.locator("#files input")
    boxes.first.click()
    boxes.last.click(modifiers=["Shift"])
    expect(page.locator("#count")).to_have_text("300 selected")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as zip").click()
    assert len(zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).namelist()) == 300
    page.locator("#chosen").get_by_role("button", name="Delete").click()
    expect(page.locator("#undo")).to_contain_text("300 files deleted")
    eventually(lambda: not server.files())
    page.get_by_role("button", name="Undo", exact=True).click()
    eventually(lambda: len(server.files()) == 300)
    expect(visible(page)).to_have_count(300)


def test_sound_is_played_from_where_the_listener_wants(page: Page, server: Server) -> None:
    samples = bytes(8000 * 600)  # ten minutes, of which a browser does not fetch all
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    wave = (
        struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE") + form + struct.pack("<4sI", b"data", len(samples))
    )
    record = server.put("long.wav", wave + samples)
    ranges: list[str] = []
    page.on("response", lambda r: ranges.append(r.headers.get("content-range", "")) if r.status == 206 else None)
    page.goto(f"/view/{record['id']}")
    at = page.locator("audio").evaluate("""async (audio) => {
        if (audio.readyState < 1) await new Promise(done => audio.addEventListener("loadedmetadata", done));
        audio.currentTime = 500;
        await new Promise(done => audio.addEventListener("seeked", done));
        return audio.currentTime;
    }""")
    assert at == 500
    assert ranges


def test_name_is_changed(new_page: NewPage, server: Server) -> None:
    record = server.put("before.txt", b"x")
    page = new_page(f"/view/{record['id']}")
    page.get_by_label("Name").fill("after.txt")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", name="after.txt")).to_be_visible()
