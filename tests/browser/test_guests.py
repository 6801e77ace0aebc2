"""Guests in a real browser: a grant from its making to its end, and links to files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import INSECURE, address, sample, sign_in, stored, throttle, token
from tests.process import curl, eventually
from tests.web.conftest import PNG

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import NewPage
    from tests.process import Server

SIZE: Final = 30 * 2**20
RATE: Final = 3 * 2**20
PHONE: Final[dict[str, Any]] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
COPY: Final = ("clipboard-read", "clipboard-write")
WIDTH: Final = "document.documentElement.scrollWidth"


def invite(page: Page, **fields: str) -> str:
    """The path of a guest link that is made in the page, by who is signed in there."""
    page.goto("/guests")
    if page.locator("details.new[open]").count() == 0:
        page.locator("details.new > summary").click()
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name="Make the link").click()
    url = page.get_by_label("Address of the guest link").input_value()
    return url[url.index("/g/") :]


def revoke(page: Page) -> None:
    """The newest guest link."""
    page.goto("/guests")
    row = page.locator(".grants > li").first
    row.locator("summary").click()
    row.get_by_role("button", name="Revoke now").click()
    expect(page.locator(".grants > li").first).to_contain_text("Revoked")


def started(page: Page) -> None:
    eventually(lambda: page.get_by_label("Progress of large.bin").evaluate("bar => bar.value") > 4e6)


def check(page: Page, axe: str, what: str) -> None:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    told = [(v["id"], [(n["html"][:120], n["failureSummary"]) for n in v["nodes"]]) for v in found]
    assert told == [], what


def test_guest_link_is_made_used_up_and_its_files_are_found(new_page: NewPage, server: Server, tmp_path: Path) -> None:
    owner = new_page("/", permissions=list(COPY))
    owner.get_by_role("link", name="Receive files").click()
    path = invite(owner, Note_to_the_guests="Two files, please", **{"Files,_at_most": "2"})
    owner.get_by_role("button", name="Copy").click()
    expect(owner.locator("#announce")).to_have_text("Copied")
    assert owner.evaluate("navigator.clipboard.readText()").endswith(path)
    guest = new_page(path)
    expect(guest.locator(".note")).to_have_text("Two files, please")
    digests = {name: sample(tmp_path / name, size) for name, size in (("a.bin", 5000), ("b.bin", 60_000))}
    guest.set_input_files("#picker", tmp_path / "a.bin")
    expect(guest.locator("#sent > li")).to_have_count(1)
    expect(guest.locator("#bounds")).to_contain_text("1 more file")
    guest.set_input_files("#picker", tmp_path / "b.bin")
    expect(guest.locator("#bounds")).to_contain_text("0 more files")
    assert {name: record["sha256"] for name, record in stored(server, 2).items()} == digests
    sample(tmp_path / "c.bin", 10)
    guest.set_input_files("#picker", tmp_path / "c.bin")
    expect(guest.locator("#queue .wrong")).to_contain_text("more files than may come by this link")
    guest.reload()
    expect(guest.locator("main")).to_contain_text("All that may be sent by this link has been sent.")
    expect(guest.locator("#sent > li")).to_have_count(2)
    owner.goto("/guests")
    expect(owner.locator(".grants > li")).to_contain_text("2 of 2 files")
    owner.get_by_role("link", name="Show the files").click()
    expect(owner.locator("#files > li")).to_have_count(2)


def test_guest_deletes_what_they_sent_and_nobody_else_sees_it(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    path = invite(new_page())
    guest, other = new_page(path), new_page(path)
    for name, size in (("a.bin", 5000), ("b.bin", 300_000)):
        sample(tmp_path / name, size)
    guest.set_input_files("#picker", tmp_path / "a.bin")
    button = guest.get_by_role("button", name="Delete a.bin")
    throttle(guest, 40_000)  # seven seconds to get there with the pointer
    guest.set_input_files("#picker", tmp_path / "b.bin")
    expect(guest.get_by_role("button", name="Pause b.bin")).to_be_visible()
    button.hover()
    box = button.bounding_box()
    expect(guest.get_by_role("button", name="1 new file")).to_be_visible()
    assert button.bounding_box() == box  # the row stays under the pointer
    guest.mouse.move(0, 0)
    expect(guest.locator("#sent > li:visible")).to_have_count(2)
    other.reload()
    expect(other.locator("#sent > li")).to_have_count(0)
    guest.get_by_role("button", name="Delete a.bin").click()
    expect(guest.locator("#announce")).to_have_text("a.bin is deleted")
    assert set(stored(server)) == {"b.bin"}
    guest.reload()
    expect(guest.locator("#sent > li")).to_have_count(1)
    guest.get_by_role("button", name="Delete b.bin").click()
    expect(guest.locator("#sent")).to_be_hidden()
    assert server.files() == []


def test_upload_of_a_guest_outlives_a_reload_and_a_killed_server(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    """With a pass phrase, whose proof outlives them, too."""
    path = invite(new_page(), **{"Pass_phrase_(optional)": "open sesame", "Files,_at_most": "1"})
    guest = new_page(path)
    guest.get_by_label("Pass phrase").fill("sesame")
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("alert")).to_have_text("This is not the pass phrase.")
    guest.get_by_label("Pass phrase").fill("open sesame")
    guest.keyboard.press("Enter")
    digest = sample(tmp_path / "large.bin", SIZE)
    throttle(guest, RATE)
    guest.set_input_files("#picker", tmp_path / "large.bin")
    started(guest)
    guest.get_by_role("button", name="Pause large.bin").click()
    eventually(lambda: not server.staged())
    server.kill()
    server.start()
    guest.reload()
    throttle(guest, -1)
    expect(guest.locator("#queue")).to_contain_text("Choose the file again")
    with guest.expect_request(lambda request: request.method == "PATCH") as patch:
        guest.set_input_files("#picker", tmp_path / "large.bin")
    assert 0 < int(patch.value.headers["upload-offset"]) < SIZE
    assert stored(server)["large.bin"]["sha256"] == digest
    expect(guest.locator("#sent")).to_contain_text("large.bin")


def test_pass_phrase_is_asked_for_again_in_the_page_when_the_browser_has_lost_its_proof(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    guest = new_page(invite(new_page(), **{"Pass_phrase_(optional)": "open sesame"}))
    guest.get_by_label("Pass phrase").fill("open sesame")
    guest.keyboard.press("Enter")
    expect(guest.locator("#upload")).to_be_visible()
    challenges: list[str] = []
    guest.on("response", lambda r: challenges.append(r.headers["www-authenticate"]) if r.status == 401 else None)
    guest.context.clear_cookies()
    digests = {name: sample(tmp_path / name, size) for name, size in (("a.bin", 5000), ("b.bin", 6000))}
    guest.set_input_files("#picker", [tmp_path / name for name in digests])
    expect(guest.locator("#queue .wrong").first).to_have_text("The pass phrase is asked for again. Then it goes on.")
    guest.get_by_label("Pass phrase").fill("sesame")
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("alert")).to_have_text("This is not the pass phrase.")
    expect(guest.get_by_label("Pass phrase")).to_be_focused()
    guest.keyboard.type("open sesame")
    guest.keyboard.press("Enter")
    expect(guest.locator("#sent > li")).to_have_count(2)
    expect(guest.get_by_label("Pass phrase")).to_have_count(0)
    assert {name: record["sha256"] for name, record in stored(server, 2).items()} == digests
    assert challenges == ['FormBased realm="spool"'] * 2  # a browser would answer Basic with a window of its own


def test_unfinished_uploads_of_one_link_are_not_shown_at_another(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    owner = new_page()
    paths = [invite(owner) for _ in range(2)]
    guest = new_page(paths[0])
    sample(tmp_path / "large.bin", SIZE)
    throttle(guest, RATE)
    guest.set_input_files("#picker", tmp_path / "large.bin")
    started(guest)
    guest.get_by_role("button", name="Pause large.bin").click()
    eventually(lambda: not server.staged())
    for path, count in ((paths[1], 0), ("/", 0), (paths[0], 1)):
        guest.goto(path)
        guest.locator("html.live").wait_for()
        expect(guest.get_by_role("button", name="Choose a folder")).to_be_visible()  # scripts have run
        guest.wait_for_function("tus.defaultOptions.urlStorage.findAllUploads().then(found => found.length === 1)")
        expect(guest.locator("#queue > li")).to_have_count(count)


def test_revocation_ends_a_running_upload_and_the_page_says_so(
    new_page: NewPage, server: Server, tmp_path: Path
) -> None:
    owner = new_page()
    guest = new_page(invite(owner))
    (tmp_path / "small.txt").write_text("small")
    guest.set_input_files("#picker", tmp_path / "small.txt")
    expect(guest.locator("#sent > li")).to_have_count(1)
    sample(tmp_path / "large.bin", SIZE)
    throttle(guest, RATE)
    guest.set_input_files("#picker", tmp_path / "large.bin")
    started(guest)
    revoke(owner)
    expect(guest.get_by_role("alert")).to_contain_text("Whoever gave out this link has revoked it.")
    expect(guest.locator("#queue .wrong")).to_contain_text("has revoked it")
    expect(guest.locator("#upload")).to_be_hidden()
    eventually(lambda: not server.staged() and len(server.files()) == 1)
    guest.reload()
    expect(guest.get_by_role("heading")).to_have_text("This link has ended")
    assert guest.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain"])
def test_browser_that_does_not_trust_the_network_is_known_by_its_origin(
    new_page: NewPage, server: Server, tmp_path: Path, *, scripts: bool
) -> None:
    """Without TLS it sends no `Sec-Fetch-Site`, and its `Origin` only if the page's policy lets it."""
    path = invite(new_page(), **{"Pass_phrase_(optional)": "open sesame"})
    guest = new_page(None, java_script_enabled=scripts)
    guest.goto(server.url.replace("127.0.0.1", INSECURE) + path)
    guest.get_by_label("Pass phrase").fill("open sesame")
    with guest.expect_request(lambda request: request.method == "POST") as entered:
        guest.get_by_role("button", name="Continue").click()
    headers = entered.value.all_headers()
    assert "sec-fetch-site" not in headers
    assert path not in headers.get("referer", "")
    sample(tmp_path / "a.bin", 5000)
    guest.set_input_files("#picker", tmp_path / "a.bin")
    if not scripts:
        guest.get_by_role("button", name="Upload", exact=True).click()
    expect(guest.locator("#sent > li")).to_have_count(1)
    guest.get_by_role("button", name="Delete a.bin").click()
    expect(guest.locator("#sent")).to_be_hidden()
    assert server.files() == []


class TestPlain:
    """Without JavaScript."""

    def test_grant_is_made_used_and_revoked(self, new_page: NewPage, server: Server, tmp_path: Path) -> None:
        owner = new_page("/", java_script_enabled=False)
        path = invite(owner, **{"Pass_phrase_(optional)": "open sesame"})
        expect(owner.get_by_role("button", name="Copy")).to_be_hidden()
        guest = new_page(path, java_script_enabled=False)
        guest.get_by_label("Pass phrase").fill("open sesame")
        guest.get_by_role("button", name="Continue").click()
        digests = {name: sample(tmp_path / name, size) for name, size in (("a.bin", 5000), ("b.bin", 6000))}
        guest.set_input_files("#picker", [tmp_path / name for name in digests])
        guest.get_by_role("button", name="Upload", exact=True).click()
        expect(guest.locator("#sent > li")).to_have_count(2)
        assert {name: record["sha256"] for name, record in stored(server, 2).items()} == digests
        guest.get_by_role("button", name="Delete a.bin").click()
        expect(guest.locator("#sent > li")).to_have_count(1)
        assert set(stored(server)) == {"b.bin"}
        revoke(owner)
        guest.set_input_files("#picker", tmp_path / "a.bin")
        guest.get_by_role("button", name="Upload", exact=True).click()
        expect(guest.get_by_role("heading")).to_have_text("This link has ended")

    def test_link_is_made_and_revoked(self, new_page: NewPage, server: Server) -> None:
        record = server.put("a.txt", b"hello")
        page = new_page(f"/view/{record['id']}", java_script_enabled=False)
        expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
        page.get_by_role("button", name="Make a link").click()
        url = page.get_by_label("Link to a.txt").input_value()
        assert curl(url).body == b"hello"
        page.get_by_role("link", name="Back to the file").click()
        page.get_by_role("button", name="Revoke").click()
        expect(page.locator("#links")).to_contain_text("1 link no longer works.")
        assert curl(url).status == 410


@pytest.mark.parametrize("where", ["list", "details"])
def test_link_is_copied_and_says_for_how_long(new_page: NewPage, server: Server, where: str) -> None:
    secret = token(server, "read", "upload")
    answer = curl("-H", f"Authorization: Bearer {secret}", "-T-", f"{server.url}/files/a.txt", stdin=b"hello")
    page = new_page(None, permissions=list(COPY))
    sign_in(page, secret)
    if where == "details":
        page.goto(f"/view/{answer.json['id']}")
    page.get_by_role("button", name="Copy link to a.txt").click()
    expect(page.locator("#made")).to_contain_text(
        re.compile(r"Link copied\. Whoever has it can download this file until \w+ \d+, \d{4}")
    )
    url = page.evaluate("navigator.clipboard.readText()")
    assert url == page.get_by_role("textbox", name="Link to a.txt").input_value()
    assert curl(url.replace(address(server), server.url)).body == b"hello"
    if where == "details":
        expect(page.locator("#links li")).to_have_count(1)
        page.get_by_role("button", name="Revoke").click()
        expect(page.locator("#links")).to_contain_text("1 link no longer works.")
        assert curl(url).status == 410
    else:
        page.get_by_role("button", name="Close").click()
        expect(page.get_by_role("button", name="Copy link to a.txt")).to_be_focused()


def test_link_can_be_copied_by_hand_where_the_browser_lets_no_page(new_page: NewPage, server: Server) -> None:
    server.put("a.txt", b"hello")
    page = new_page()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.get_by_role("button", name="Copy link to a.txt").click()
    expect(page.locator("#made")).to_contain_text("Copy this link.")
    assert page.evaluate("getSelection().toString()").startswith(address(server) + "/l/")


def test_keyboard_alone_makes_a_grant_and_sends_a_file(new_page: NewPage, tmp_path: Path) -> None:
    page = new_page()
    page.on("filechooser", lambda _: None)

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            told = page.evaluate("(now => now.ariaLabel || now.innerText || now.id)(document.activeElement)")
            if told == name:
                return
        pytest.fail(f"the keyboard does not get to {name!r}")

    page.locator("html.live").wait_for()
    tab_to("Receive files")
    page.keyboard.press("Enter")
    expect(page).to_have_title("Receive files · Spool")
    tab_to("New guest link")
    page.keyboard.press("Enter")
    tab_to("note")
    page.keyboard.type("By hand")
    tab_to("Make the link")
    page.keyboard.press("Enter")
    url = page.get_by_label("Address of the guest link").input_value()
    page.goto(url[url.index("/g/") :])
    expect(page.locator("html.live")).to_have_count(1)
    sample(tmp_path / "a.bin", 5000)
    tab_to("picker")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "a.bin")
    expect(page.locator("#sent > li")).to_have_count(1)
    tab_to("Delete a.bin")
    page.keyboard.press("Enter")
    expect(page.locator("#sent")).to_be_hidden()


def test_phone_shows_all_without_scrolling_sideways(new_page: NewPage, server: Server) -> None:
    record = server.put("a.png", PNG)
    page = new_page("/", **PHONE)
    paths = [invite(page, Note_to_the_guests="x" * 200), invite(page, **{"Pass_phrase_(optional)": "x"})]
    page.set_viewport_size({"width": 360, "height": 740})
    guest = new_page(paths[0], **PHONE)
    guest.set_input_files("#picker", [{"name": f"{'long' * 30}.txt", "mimeType": "text/plain", "buffer": b"x"}])
    expect(guest.locator("#sent > li")).to_have_count(1)
    assert guest.evaluate(WIDTH) == 360
    page.goto("/guests")
    page.locator("details.new > summary").tap()
    page.locator(".grants summary").first.tap()
    assert page.evaluate(WIDTH) == 360
    for path in (paths[1], "/g/none", f"/view/{record['id']}", "/"):
        page.goto(path)
        assert page.evaluate(WIDTH) == 360, path
    page.get_by_role("button", name="Copy link to a.png").tap()
    expect(page.locator("#made")).to_be_visible()
    assert page.evaluate(WIDTH) == 360
    small = page.evaluate("""[...document.querySelectorAll("a, button, input, select, summary")]
        .filter(each => each.checkVisibility({ opacityProperty: true }) && !each.closest(".hidden, .skip"))
        .map(each => [each.outerHTML.slice(0, 80), (each.closest("label") || each).getBoundingClientRect()])
        .filter(([_, box]) => box.width && (box.height < 24 || box.width < 24)).map(([text]) => text)""")
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(new_page: NewPage, server: Server, axe: str, scheme: str) -> None:
    record = server.put("a.txt", b"text")
    owner = new_page("/", color_scheme=scheme)
    path = invite(owner, Note_to_the_guests="Two files, please", **{"Files,_at_most": "2"})
    check(owner, axe, "a new guest link")
    locked = invite(owner, **{"Pass_phrase_(optional)": "x"})
    guest = new_page(path, color_scheme=scheme)
    guest.set_input_files("#picker", [{"name": "b.txt", "mimeType": "text/plain", "buffer": b"x"}])
    expect(guest.locator("#sent > li")).to_have_count(1)
    expect(guest.locator("#queue > li")).to_have_count(0)
    check(guest, axe, "the guest's page")
    guest.goto(locked)
    guest.get_by_label("Pass phrase").fill("wrong")
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("alert")).to_be_visible()
    check(guest, axe, "a wrong pass phrase")
    revoke(owner)
    owner.locator("details.new > summary").click()
    owner.locator(".grants summary").first.click()
    check(owner, axe, "guest links")
    guest.goto(locked)
    check(guest, axe, "a link that has ended")
    owner.goto(f"/view/{record['id']}")
    owner.get_by_role("button", name="Copy link").click()
    expect(owner.locator("#links li")).to_have_count(1)
    check(owner, axe, "a file with a link")


def test_pages_weigh_under_200_kb(new_page: NewPage) -> None:
    page = new_page()
    for path in (invite(page), "/guests"):
        sizes: dict[str, int] = {}
        page.on("response", lambda r, sizes=sizes: sizes.update({r.url: len(r.body())}))  # type: ignore[misc]
        page.context.clear_cookies()
        page.goto(path, wait_until="networkidle")
        print(path[:8], sum(sizes.values()))  # noqa: T201
        assert sum(sizes.values()) < 200_000
