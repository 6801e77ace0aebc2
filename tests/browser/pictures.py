"""Makes the pictures of doc/: `python -m tests.browser.pictures`."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGUMENTS, address, throttle
from tests.process import Server, curl

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOC: Final = Path(__file__).parent.parent.parent / "doc"
SOUND: Final = b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(2038) + (b"\xff\xfb\x90\x64" + bytes(413)) * 9000


def picture(red: int, green: int) -> bytes:
    """A PNG of a soft slope of colour."""
    rows = b"".join(b"\0" + bytes(v for x in range(96) for v in (red + x // 2, green + y // 2, 150)) for y in range(96))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


FILES: Final = {
    "Harbour.png": picture(40, 90),
    "notes-from-the-meeting.txt": b"hello\n" * 900,
    "Interview-with-Ada.mp3": SOUND,
    "report-2026-Q3.pdf": b"%PDF-1.7\n" + bytes(200_000),
    "Garden.png": picture(60, 140),
}


def take(browser: Browser, server: Server, picture_id: str) -> None:
    """The list with an upload under way, in the dark on a phone, and one file."""
    page = browser.new_page(viewport={"width": 960, "height": 720}, base_url=address(server))
    page.goto("/")
    throttle(page, 2_000_000)
    page.set_input_files("#picker", [{"name": "concert.wav", "mimeType": "audio/wav", "buffer": bytes(40_000_000)}])
    page.get_by_text("left").wait_for()
    page.get_by_label("Select report-2026-Q3.pdf").check()
    page.mouse.move(0, 0)
    page.screenshot(path=DOC / "page.png")
    options = {"width": 360, "height": 740}
    phone = browser.new_page(
        viewport=options, is_mobile=True, has_touch=True, color_scheme="dark", base_url=address(server)
    )
    phone.goto("/")
    phone.locator("html.live").wait_for()
    phone.screenshot(path=DOC / "phone.png")
    page.goto(f"/view/{picture_id}")
    page.locator("img").first.wait_for()
    page.screenshot(path=DOC / "file.png")


def take_guest(browser: Browser, server: Server) -> None:
    """What a guest sees who has sent one file and sends another."""
    bounds = {"note": "Footage of day 3, please.", "max_files": 20, "max_size": 10**11, "types": ["video/*", "image/*"]}
    made = curl("-H", "Content-Type: application/json", "-d", json.dumps(bounds), f"{server.url}/grants").json
    page = browser.new_page(viewport={"width": 960, "height": 900}, base_url=address(server))
    page.goto(made["url"].replace("127.0.0.1", "localhost"))
    page.set_input_files("#picker", [{"name": "Garden.png", "mimeType": "image/png", "buffer": FILES["Garden.png"]}])
    page.locator("#queue > li").wait_for(state="detached")
    throttle(page, 2_000_000)
    page.set_input_files("#picker", [{"name": "camera-2.mp4", "mimeType": "video/mp4", "buffer": bytes(40_000_000)}])
    page.get_by_text("left").wait_for()
    page.screenshot(path=DOC / "guest.png")


def main() -> None:
    """Overwrites doc/page.png, doc/phone.png, doc/file.png and doc/guest.png."""
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory) / "spool") as server:
        ids = {name: server.put(name, data)["id"] for name, data in FILES.items()}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
            take(browser, server, ids["Garden.png"])
            take_guest(browser, server)
            browser.close()


if __name__ == "__main__":
    main()
