"""Who can use the pages: without JavaScript, by keyboard, on a phone, in the dark, by ear; and what they weigh."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import sample, stored, throttle, token
from tests.web.conftest import PNG

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import NewPage
    from tests.process import Server

SMALL: Final = 10 * 2**20


class TestPlain:
    """Without JavaScript."""

    def test_files_are_stored_found_and_deleted(self, new_page: NewPage, server: Server, tmp_path: Path) -> None:
        page = new_page(java_script_enabled=False)
        digests = {name: sample(tmp_path / name, size) for name, size in (("a.bin", 5000), ("b.bin", 6000))}
        page.set_input_files("#picker", [tmp_path / name for name in digests])
        page.get_by_role("button", name="Upload", exact=True).click()
        assert {name: record["sha256"] for name, record in stored(server, 2).items()} == digests
        expect(page.locator("#files > li")).to_have_count(2)
        page.get_by_label("Search by name").fill("a.")
        page.get_by_role("button", name="Find").click()
        expect(page.locator("#files > li")).to_have_count(1)
        page.get_by_role("link", name="a.bin", exact=True).click()
        page.get_by_role("link", name="Back to the list").click()
        page.get_by_label("Select a.bin").check()
        page.get_by_role("button", name="Delete").click()
        assert set(stored(server)) == {"b.bin"}
        expect(page.get_by_text("Nothing matches.")).to_be_visible()
        page.get_by_role("link", name="Show all files").click()
        expect(page.locator("#files > li")).to_have_count(1)

    def test_session_is_begun_and_ended(self, new_page: NewPage, server: Server, tmp_path: Path) -> None:
        page = new_page("/", java_script_enabled=False)
        secret = token(server, "upload", "read")
        page.goto("/")
        page.get_by_label("Token").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        sample(tmp_path / "a.bin", 5000)
        page.set_input_files("#picker", tmp_path / "a.bin")
        page.get_by_role("button", name="Upload", exact=True).click()
        page.get_by_role("link", name="a.bin", exact=True).click()
        expect(page.locator("dl")).to_contain_text("ada")
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_title("Sign in · Spool")

    def test_many_files_are_paged_through(self, new_page: NewPage, server: Server) -> None:
        for number in range(60):
            server.put(f"{number}.txt", b"%d" % number)
        page = new_page(java_script_enabled=False)
        expect(page.locator("#files > li")).to_have_count(50)
        page.get_by_role("link", name="More files").click()
        expect(page.locator("#files > li")).to_have_count(10)


def test_keyboard_alone_stores_finds_and_deletes_a_file(page: Page, server: Server, tmp_path: Path) -> None:
    sample(tmp_path / "a.bin", 5000)
    page.on("filechooser", lambda _: None)  # so that choosers are caught from now on, which takes a moment

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            told, outlined = page.evaluate("""() => {
                const now = document.activeElement;
                return [now.ariaLabel || now.innerText || now.id, getComputedStyle(now).outlineStyle];
            }""")
            if told == name:
                assert outlined != "none" or name == "picker"
                return
        pytest.fail(f"the keyboard does not get to {name!r}")

    expect(page.locator("html.live")).to_have_count(1)
    tab_to("Skip to content")
    tab_to("picker")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "a.bin")
    expect(page.locator("#files > li")).to_have_count(1)
    tab_to("a.bin")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="a.bin")).to_be_visible()
    page.go_back()
    expect(page.locator("#files > li")).to_have_count(1)
    tab_to("Delete a.bin")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="a.bin", exact=True)).to_be_focused()
    assert stored(server)


def test_phone_shows_all_without_scrolling_sideways_and_opens_camera_and_gallery(
    new_page: NewPage, server: Server
) -> None:
    record = server.put(f"{'a%20name%20that%20needs%20lines%20' * 4}and-a-word-that-does-not-break{'x' * 40}.png", PNG)
    page = new_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    for path in ("/", f"/view/{record['id']}", "/login", "/view/none"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, path
    page.goto("/")
    expect(page.get_by_role("button", name="Choose a folder")).to_be_hidden()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Photos and videos").tap()
    assert chooser.value.is_multiple()
    assert chooser.value.element.get_attribute("capture") is None
    assert chooser.value.element.get_attribute("accept") == "image/*,video/*"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Camera").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    assert chooser.value.element.get_attribute("accept") == "image/*,video/*"
    chooser.value.set_files([{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0photo"}])
    assert "photo.jpg" in stored(server, 2)
    small = page.evaluate("""[...document.querySelectorAll("a, button, input, select")]
        .filter(each => each.checkVisibility({ opacityProperty: true }) && !each.closest(".hidden, .skip"))
        .map(each => [each.outerHTML.slice(0, 80), (each.closest("label") || each).getBoundingClientRect()])
        .filter(([_, box]) => box.width && (box.height < 24 || box.width < 24)).map(([text]) => text)""")
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(new_page: NewPage, server: Server, tmp_path: Path, axe: str, scheme: str) -> None:
    for name, data in (
        ("a.txt", b"text"),
        ("b.png", PNG),
        ("c.bin", bytes(99)),
        ("d.mp3", b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(2038)),
    ):
        record = server.put(name, data)
    page = new_page(color_scheme=scheme)

    def check(what: str) -> None:
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        told = [(v["id"], [(n["html"][:120], n["failureSummary"]) for n in v["nodes"]]) for v in found]
        assert told == [], f"{what}, {scheme}"

    check("list")
    throttle(page, 100_000)
    sample(tmp_path / "large.bin", SMALL)
    page.set_input_files("#picker", tmp_path / "large.bin")
    expect(page.locator("#queue progress")).to_have_count(1)
    page.get_by_label("Select a.txt").check()
    page.get_by_role("button", name="Delete b.png").click()
    check("list with uploads, a selection and what can be undone")
    page.get_by_text("Recently deleted (1)").click()
    check("what can be brought back")
    page.get_by_role("button", name="Cancel large.bin").click()
    for path in (f"/view/{record['id']}", "/login", "/view/none", "/?q=zzz"):
        page.goto(path)
        check(path)
    page.goto("/login")
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    check("refused sign-in")


def test_page_weighs_under_200_kb(new_page: NewPage, server: Server) -> None:
    for number in range(60):
        server.put(f"{number}-with-a-name-of-some-length.txt", b"%d" % number)
    page = new_page(None)
    sizes: dict[str, int] = {}
    page.on("response", lambda r: sizes.update({re.sub(r".*/", "/", r.url): len(r.body())}))
    page.goto("/", wait_until="networkidle")
    expect(page.locator("#files > li")).to_have_count(50)
    first = {name: size for name, size in sizes.items() if "?" not in name}
    print(first)  # noqa: T201
    assert len(first) >= 7
    assert sum(first.values()) < 200_000
