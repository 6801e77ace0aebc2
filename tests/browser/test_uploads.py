"""Uploads from a page: each way in, and every way to be interrupted."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import address, paste, sample, stored, throttle
from tests.process import Server, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page, Request, Route

    from tests.browser.conftest import NewPage

SIZE = 50 * 2**20
SMALLER = 32 * 2**20
LARGE = 200 * 2**20
RATE = 4 * 2**20
"""Bytes per second: an upload of `SIZE` is under way for twelve, whatever else the machine does."""


def progress(page: Page) -> float:
    return float(page.locator("#queue progress").evaluate("bar => bar.value"))


def started(page: Page) -> None:
    """So much has been sent that there is something to resume."""
    eventually(lambda: progress(page) > 8e6)


def pause_and_reload(page: Page) -> None:
    page.get_by_role("button", name="Pause large.bin").click()
    expect(page.locator("#queue")).to_contain_text("Paused at")
    page.reload()


def kept(page: Page) -> int:
    """Of how many uploads the browser keeps what it needs to go on."""
    return int(
        page.evaluate("""() => new Promise(done => {
        indexedDB.open("spool").onsuccess = ({ target: { result } }) => {
            const count = result.transaction("uploads").objectStore("uploads").count();
            count.onsuccess = () => done(count.result);
        };
    })""")
    )


def drop(page: Page, path: Path) -> None:
    box = page.locator("#zone").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 50, "y": box["y"] + 50}
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
        if kind == "dragOver":
            expect(page.locator("#zone.over")).to_have_count(1)


def test_picker_stores_many_files_which_then_are_in_the_list(page: Page, server: Server, tmp_path: Path) -> None:
    digests = {f"{i} ü.bin": sample(tmp_path / f"{i} ü.bin", 10_000 * i) for i in range(5)}
    page.set_input_files("#picker", [tmp_path / name for name in digests])
    expect(page.locator("#files > li")).to_have_count(5)
    assert {name: record["sha256"] for name, record in stored(server, 5).items()} == digests
    expect(page.locator("#queue > li")).to_have_count(0)


def test_files_chosen_before_the_script_has_come_are_sent(new_page: NewPage, server: Server, tmp_path: Path) -> None:
    page = new_page(None)
    late: list[Route] = []
    page.route("**/picking.js", lambda route: late.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.goto("/", wait_until="commit")
    digest = sample(tmp_path / "early.bin", 5000)
    page.set_input_files("#picker", tmp_path / "early.bin")
    assert not server.get("/files")["files"]
    eventually(lambda: page.evaluate("true") and late)  # what Playwright tells comes while it is asked
    late[0].continue_()
    expect(page.locator("#files > li")).to_contain_text("early.bin")
    assert stored(server)["early.bin"]["sha256"] == digest
    expect(page.locator("#queue > li")).to_have_count(0)


def test_drop_stores_files(page: Page, server: Server, tmp_path: Path) -> None:
    digest = sample(tmp_path / "dropped.bin", 100_000)
    drop(page, tmp_path / "dropped.bin")
    expect(page.locator("#zone.over")).to_have_count(0)
    expect(page.locator("#files")).to_contain_text("dropped.bin")
    assert stored(server)["dropped.bin"]["sha256"] == digest


def test_paste_stores_a_file_under_a_name_of_its_own(page: Page, server: Server) -> None:
    paste(page, 6)
    [name] = stored(server)
    assert re.fullmatch(r"pasted-[\d-]{19}\.png", name)


def test_folder_stores_all_that_is_in_it_and_tells_where_it_was(page: Page, server: Server, tmp_path: Path) -> None:
    for name in ("top/a.txt", "top/deep/er/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "top")
    folders = {name: record["metadata"]["folder"] for name, record in stored(server, 2).items()}
    assert folders == {"a.txt": "top", "b.txt": "top/deep/er"}


def test_upload_that_is_paused_outlives_a_killed_server(page: Page, server: Server, tmp_path: Path) -> None:
    digest = sample(tmp_path / "large.bin", LARGE)
    throttle(page, 3 * RATE)
    drop(page, tmp_path / "large.bin")
    eventually(lambda: progress(page) > 60e6)
    expect(page.locator("#queue .dim")).to_have_text(re.compile(r"^[\d.]+ MB of 210 MB · [\d.]+ [kM]B/s · \d+ s left$"))
    page.get_by_role("button", name="Pause large.bin").click()
    expect(page.locator("#queue")).to_contain_text("Paused at")
    eventually(lambda: not server.staged())  # what came is saved
    server.kill()
    server.start()
    throttle(page, -1)
    with page.expect_request(lambda request: request.method == "PATCH") as patch:
        page.get_by_role("button", name="Resume large.bin").click()
    assert 0 < int(patch.value.headers["upload-offset"]) < LARGE
    assert stored(server)["large.bin"]["sha256"] == digest
    expect(page.locator("#files")).to_contain_text("large.bin")


def test_upload_goes_on_by_itself_when_a_killed_server_is_back(page: Page, server: Server, tmp_path: Path) -> None:
    digest = sample(tmp_path / "large.bin", SIZE)
    throttle(page, RATE)
    page.set_input_files("#picker", tmp_path / "large.bin")
    started(page)
    server.kill()
    server.start()
    throttle(page, -1)
    assert stored(server)["large.bin"]["sha256"] == digest


def test_upload_goes_on_by_itself_when_the_network_is_back(page: Page, server: Server, tmp_path: Path) -> None:
    digest = sample(tmp_path / "large.bin", SIZE)
    throttle(page, RATE)
    page.set_input_files("#picker", tmp_path / "large.bin")
    started(page)
    page.context.set_offline(True)
    eventually(lambda: page.evaluate("!navigator.onLine"))
    page.context.set_offline(False)
    throttle(page, -1)
    assert stored(server)["large.bin"]["sha256"] == digest


def test_upload_outlives_a_reload_once_its_file_is_chosen_again(page: Page, server: Server, tmp_path: Path) -> None:
    digest = sample(tmp_path / "large.bin", SIZE)
    throttle(page, RATE)
    page.set_input_files("#picker", tmp_path / "large.bin")
    started(page)
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    expect(page.locator("#queue")).to_contain_text("Choose the file again")
    with page.expect_request(lambda request: request.method == "PATCH") as patch:
        page.set_input_files("#picker", tmp_path / "large.bin")
    assert 0 < int(patch.value.headers["upload-offset"]) < SIZE
    assert stored(server)["large.bin"]["sha256"] == digest
    expect(page.locator("#queue > li")).to_have_count(0)
    assert page.evaluate("localStorage.length") == 0


class TestDropped:
    """What was dropped is there again after a reload, by the handle that Chromium gives for it."""

    @pytest.fixture
    def digest(self, page: Page, tmp_path: Path) -> str:
        """Of a file that is on its way, and will go on slowly enough."""
        digest = sample(tmp_path / "large.bin", SMALLER)
        throttle(page, SMALLER // 4)
        drop(page, tmp_path / "large.bin")
        started(page)
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
        return digest

    def test_goes_on_by_itself_after_a_reload(self, page: Page, server: Server, digest: str) -> None:
        with page.expect_request(lambda request: request.method == "PATCH") as patch:
            page.reload()
        throttle(page, -1)
        assert 0 < int(patch.value.headers["upload-offset"]) < SMALLER
        assert stored(server)["large.bin"]["sha256"] == digest
        expect(page.locator("#queue > li")).to_have_count(0)
        assert page.evaluate("localStorage.length") == 0
        assert kept(page) == 0

    def test_is_left_to_the_tab_that_has_it_and_then_to_one_of_the_others(
        self, page: Page, server: Server, digest: str
    ) -> None:
        others = [page.context.new_page() for _ in range(2)]
        sent: list[int] = []

        def note(request: Request) -> None:
            if request.method == "PATCH":
                sent.append(int(request.headers["upload-offset"]))

        for other in others:
            other.on("request", note)
            throttle(other, SMALLER // 4)
            other.goto("/")
            other.locator("html.live").wait_for()
        eventually(lambda: others[0].evaluate("navigator.locks.query().then(all => all.pending.length)") == 2)
        for other in others:
            expect(other.locator("#queue > li")).to_have_count(0)
        page.close()
        eventually(lambda: others[0].evaluate("true") and sent)
        assert stored(server)["large.bin"]["sha256"] == digest
        for other in others:
            expect(other.locator("#queue > li")).to_have_count(0)
        [offset] = sent
        assert 0 < offset < SMALLER

    def test_stays_paused_and_is_resumed(self, page: Page, server: Server, digest: str) -> None:
        pause_and_reload(page)
        expect(page.locator("#queue")).to_contain_text("It goes on where it stopped")
        throttle(page, -1)
        page.get_by_role("button", name="Resume large.bin").click()
        assert stored(server)["large.bin"]["sha256"] == digest

    @pytest.mark.usefixtures("digest")
    def test_that_has_changed_since_is_not_sent_as_what_it_was(
        self, page: Page, server: Server, tmp_path: Path
    ) -> None:
        pause_and_reload(page)
        sample(tmp_path / "large.bin", SMALLER + 1)
        page.get_by_role("button", name="Resume large.bin").click()
        expect(page.locator("#queue")).to_contain_text("Choose the file again")
        page.get_by_role("button", name="Discard large.bin").click()
        expect(page.locator("#queue > li")).to_have_count(0)
        eventually(lambda: not server.blobs() and not server.staged())
        assert kept(page) == 0

    @pytest.mark.usefixtures("digest")
    def test_is_not_sent_by_itself_once_no_page_is_open_any_more(self, page: Page, server: Server) -> None:
        """Chromium asks first, which nobody can answer here."""
        page.goto("about:blank")
        page.goto("/")
        expect(page.locator("#queue")).to_contain_text("the browser may ask first")
        expect(page.get_by_role("button", name="Resume large.bin")).to_be_visible()
        assert not server.files()


def test_upload_of_another_principal_is_neither_shown_nor_sent(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    from tests.browser.conftest import sign_in, token  # noqa: PLC0415

    page = new_page(None)
    secrets = [token(server, "upload", "read", name=name) for name in ("ada", "bob")]
    sign_in(page, secrets[0])
    sample(tmp_path / "large.bin", SMALLER)
    throttle(page, SMALLER // 4)
    drop(page, tmp_path / "large.bin")
    started(page)
    page.on("dialog", lambda dialog: dialog.accept())
    with page.expect_navigation():
        page.get_by_role("button", name="Sign out").click()
    sign_in(page, secrets[1])
    page.evaluate("""() => {
        const [url] = Object.values(localStorage).map(kept => new URL(JSON.parse(kept).uploadUrl));
        return navigator.locks.request(`upload ${url.pathname}`, { signal: AbortSignal.timeout(30000) }, () => {});
    }""")  # which the page has looked at by then
    expect(page.locator("#queue > li")).to_have_count(0)
    assert page.evaluate("fetch('/files').then(answer => answer.json())")["files"] == []
    assert kept(page) == 1


def test_upload_that_is_cancelled_leaves_nothing(page: Page, server: Server, tmp_path: Path) -> None:
    sample(tmp_path / "large.bin", SIZE)
    throttle(page, RATE)
    page.set_input_files("#picker", tmp_path / "large.bin")
    started(page)
    page.get_by_role("button", name="Cancel large.bin").click()
    expect(page.locator("#queue > li")).to_have_count(0)
    eventually(lambda: not server.blobs() and not server.staged())
    eventually(lambda: page.evaluate("localStorage.length") == 0)


class TestElsewhere:
    """Where `server.base_url` is not the address by which the reader came."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        env = {"SPOOL_SERVER_PORT": str(free_port()), "SPOOL_SERVER_BASE_URL": "http://elsewhere.invalid"}
        with Server(tmp_path / "spool", env=env) as running:
            yield running

    @pytest.fixture
    def page(self, new_page: NewPage, server: Server) -> Page:
        from tests.browser.conftest import sign_in, token  # noqa: PLC0415

        page = new_page(None)
        sign_in(page, token(server, "admin"))
        return page

    def test_upload_is_stored_and_outlives_a_reload_and_a_killed_server(
        self, page: Page, server: Server, tmp_path: Path
    ) -> None:
        digest = sample(tmp_path / "large.bin", SIZE)
        throttle(page, RATE)
        page.set_input_files("#picker", tmp_path / "large.bin")
        started(page)
        page.on("dialog", lambda dialog: dialog.accept())
        page.reload()
        expect(page.locator("#queue")).to_contain_text("Choose the file again")
        server.kill()
        server.start()
        page.set_input_files("#picker", tmp_path / "large.bin")
        expect(page.locator("#files")).to_contain_text("large.bin")
        [record] = page.evaluate("fetch('/files').then(answer => answer.json())")["files"]
        assert record["sha256"] == digest
        expect(page.locator("#queue > li")).to_have_count(0)
        assert page.evaluate("localStorage.length") == 0

    def test_upload_that_is_cancelled_leaves_nothing(self, page: Page, server: Server, tmp_path: Path) -> None:
        sample(tmp_path / "large.bin", SIZE)
        throttle(page, RATE)
        page.set_input_files("#picker", tmp_path / "large.bin")
        started(page)
        page.get_by_role("button", name="Cancel large.bin").click()
        eventually(lambda: not server.blobs() and not server.staged())

    def test_file_is_renamed_deleted_brought_back_and_downloaded(self, page: Page, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"a")
        page.set_input_files("#picker", tmp_path / "a.txt")
        page.get_by_role("link", name="a.txt", exact=True).click()
        page.get_by_label("Name").fill("b.txt")
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_role("heading", name="b.txt")).to_be_visible()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("Recently deleted (1)").click()
        page.get_by_role("button", name="Undo the deletion of b.txt").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download b.txt").click()
        assert download.value.path().read_bytes() == b"a"


class TestRefusals:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        env = {
            "SPOOL_SERVER_PORT": str(free_port()),
            "SPOOL_LIMITS_MAX_FILE_SIZE": "1 MB",
            "SPOOL_POLICY_DENY_TYPES": "text/html,image/*",
            "SPOOL_LIMITS_QUOTA": "1500 kB",
        }
        with Server(tmp_path / "spool", env=env) as running:
            yield running

    @pytest.mark.parametrize(
        ("name", "size", "why"),
        [
            ("large.bin", 1_000_001, "Too large: 1.0 MB, and 1.0 MB is the most."),
            ("a.html", 5, "Files of type text/html are not accepted here."),
            ("a.png", 5, "Files of type image/png are not accepted here."),
        ],
    )
    def test_are_told_before_anything_is_sent(self, page: Page, tmp_path: Path, name: str, size: int, why: str) -> None:
        sent: list[Request] = []
        page.on("request", lambda request: sent.append(request) if request.method != "GET" else None)
        sample(tmp_path / name, size)
        (tmp_path / "good.txt").write_text("good")
        page.set_input_files("#picker", [tmp_path / name, tmp_path / "good.txt"])
        expect(page.locator("#queue .wrong")).to_have_text(why)
        expect(page.locator("#announce")).to_have_text(re.compile(re.escape(why) + "|stored|New"))
        expect(page.locator("#files")).to_contain_text("good.txt")
        assert [request.headers["upload-length"] for request in sent if request.method == "POST"] == ["4"]
        page.get_by_role("button", name=f"Dismiss {name}").click()
        expect(page.locator("#queue .wrong")).to_have_count(0)

    def test_of_what_the_quota_has_no_room_for_come_before_a_byte_is_sent(self, page: Page, tmp_path: Path) -> None:
        methods: list[str] = []
        page.on("request", lambda request: methods.append(request.method))
        for name, place, told in (
            ("a.bin", "#files", "a.bin"),
            ("b.bin", "#queue .wrong", "This upload would exceed the bytes that you may keep."),
        ):
            sample(tmp_path / name, 900_000)
            page.set_input_files("#picker", tmp_path / name)
            expect(page.locator(place)).to_contain_text(told)
        assert methods.count("PATCH") == 1

    def test_of_the_server_are_told_in_its_words(self, page: Page, server: Server, tmp_path: Path) -> None:
        (tmp_path / "innocent.bin").write_bytes(b"<!DOCTYPE html><html><body>no</body></html>")
        page.set_input_files("#picker", tmp_path / "innocent.bin")
        expect(page.locator("#queue .wrong")).to_have_text("Files of type text/html are not accepted here.")
        assert server.files() == []


def test_who_sees_no_list_sees_what_was_stored(new_page: NewPage, server: Server) -> None:
    from tests.browser.conftest import sign_in, token  # noqa: PLC0415

    page = new_page(None)
    page.clock.install()
    sign_in(page, token(server, "upload"))
    paste(page, 5000)
    expect(page.locator("#queue > li")).to_contain_text("Stored, 5.0 kB")
    page.clock.run_for(10_000)
    expect(page.locator("#queue > li")).to_contain_text("Stored, 5.0 kB")


def test_upload_is_made_by_who_is_signed_in(new_page: NewPage, server: Server, tmp_path: Path) -> None:
    from tests.browser.conftest import sign_in, token  # noqa: PLC0415

    page = new_page(None)
    sign_in(page, token(server, "upload", "read", name="ada"))
    digest = sample(tmp_path / "a.bin", 3_000_000)
    page.set_input_files("#picker", tmp_path / "a.bin")
    expect(page.locator("#files")).to_contain_text("a.bin")
    record = page.evaluate("fetch('/files').then(answer => answer.json())")["files"][0]
    assert (record["owner"], record["sha256"]) == ("ada", digest)
    assert hashlib.sha256(page.request.get(record["content_url"]).body()).hexdigest() == digest
    assert address(server) in page.url
