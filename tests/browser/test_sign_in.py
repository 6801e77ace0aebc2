"""Sign-in with a real browser, and pages that would like to use it."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import INSECURE, address, sign_in, token
from tests.process import Server, curl, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import NewPage


@contextmanager
def stranger(text: str) -> Iterator[int]:
    """A server of somebody else's page; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!DOCTYPE html><title>stranger</title>{text}".encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd.server_port
        httpd.shutdown()
        thread.join()


def put(server: Server, secret: str) -> str:
    """The id of a file that is there."""
    answer = curl("-H", f"Authorization: Bearer {secret}", "-T", __file__, f"{server.url}/files/kept.txt")
    return str(answer.json["id"])


def listed(server: Server, secret: str) -> list[str]:
    files = curl("-H", f"Authorization: Bearer {secret}", f"{server.url}/files").json["files"]
    return [record["filename"] for record in files]


def test_sign_in_leads_to_the_page_that_was_asked_for_and_sign_out_ends_it(new_page: NewPage, server: Server) -> None:
    secret = token(server, "admin")
    id_ = put(server, secret)
    page = new_page(f"/view/{id_}")
    expect(page).to_have_title("Sign in · Spool")
    page.get_by_label("Token").fill("spool_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This token is unknown, expired or revoked.")
    page.get_by_label("Token").fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="kept.txt")).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_title("Sign in · Spool")
    page.goto("/")
    expect(page).to_have_title("Sign in · Spool")


def test_revoked_token_ends_the_session_in_an_open_page(new_page: NewPage, server: Server) -> None:
    secret = token(server, "admin")
    put(server, secret)
    page = new_page(None)
    sign_in(page, secret)
    expect(page.locator("#files > li")).to_have_count(1)
    tokens = [sys.executable, "-m", "spool", "token"]
    listing = subprocess.run([*tokens, "ls", "--dir", str(server.dir)], capture_output=True, text=True, check=True)
    id_ = listing.stdout.split()[0]
    subprocess.run([*tokens, "revoke", id_, "--dir", str(server.dir)], capture_output=True, check=True)
    assert page.evaluate("fetch('/files').then(answer => answer.status)") == 401
    page.set_input_files("#picker", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"}])
    expect(page.locator("#queue .wrong")).to_contain_text("You are signed out.")
    page.get_by_role("alert").get_by_role("link", name="Sign in").click()
    expect(page).to_have_title("Sign in · Spool")


class TestPlainHttp:
    """Where `server.base_url` says TLS, a browser that came without would keep no cookie."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        env = {"SPOOL_SERVER_PORT": str(free_port()), "SPOOL_SERVER_BASE_URL": "https://files.example"}
        with Server(tmp_path / "spool", env=env) as running:
            yield running

    def test_sign_in_leads_to_the_address_that_works(self, new_page: NewPage, server: Server) -> None:
        secret = token(server, "admin")
        page = new_page(None)
        page.goto(server.url.replace("127.0.0.1", INSECURE) + "/?q=a")
        expect(page.locator("main")).to_contain_text("You came by plain HTTP")
        expect(page.get_by_label("Token")).to_have_count(0)
        way = "https://files.example/login?next=%2F%3Fq%3Da"
        expect(page.locator("main a")).to_have_attribute("href", way)
        sign_in(page, secret)  # at this machine's own name a browser keeps it
        expect(page.locator("#files")).to_have_count(1)


@pytest.mark.parametrize("neighbour", [True, False], ids=["same site", "cross site"])
def test_page_of_a_stranger_changes_and_reads_nothing(new_page: NewPage, server: Server, neighbour: bool) -> None:  # noqa: FBT001
    secret = token(server, "admin")
    id_ = put(server, secret)
    page = new_page(None)
    sign_in(page, secret)
    page.goto("/")
    url = address(server)
    form_token = page.locator('meta[name="form-token"]').get_attribute("content")
    forms = [
        (f"/delete?form_token={form_token}", f"<input name=id value={id_}><input name=confirmed value=1>"),
        (f"/view/{id_}?form_token={form_token}", "<input name=filename value=stolen.txt>"),
        (f"/logout?form_token={form_token}", ""),
        ("/login", "<input name=token value=spool_theirs>"),
    ]
    text = "".join(f'<form method=post action="{url}{path}">{fields}<button></button></form>' for path, fields in forms)
    with stranger(text) as port:
        host = "localhost" if neighbour else "127.0.0.1"
        for number in range(len(forms)):
            page.goto(f"http://{host}:{port}/")
            with page.expect_navigation() as navigation:
                page.locator("button").nth(number).click()
            assert navigation.value.status in (403, 303, 200)
        page.goto(f"http://{host}:{port}/")
        assert _tries(page, url, id_) == ["refused", "refused", "refused"]
        assert not page.evaluate(f"""new Promise(done => {{
            const image = new Image(); image.onload = () => done(true); image.onerror = () => done(false);
            image.src = "{url}/media/{id_}/x"; }})""")
    assert listed(server, secret) == ["kept.txt"]
    page.goto("/")
    expect(page.locator("#files > li")).to_have_count(1)


def _tries(page: Page, url: str, id_: str) -> list[str]:
    """What comes of fetching with the cookie: to read, to delete, to send a form."""
    return list(
        page.evaluate(f"""Promise.all([
            fetch("{url}/files", {{ credentials: "include" }}),
            fetch("{url}/files/{id_}", {{ method: "DELETE", credentials: "include" }}),
            fetch("{url}/delete", {{ method: "POST", credentials: "include", body: new URLSearchParams("id={id_}") }}),
        ].map(answer => answer.then(() => "read", () => "refused")))""")
    )


def test_page_cannot_be_framed(chromium: Browser, server: Server) -> None:
    page = chromium.new_page()
    with stranger(f'<iframe src="{address(server)}/login"></iframe>') as port, page.expect_console_message() as message:
        page.goto(f"http://localhost:{port}/")
    assert "frame-ancestors" in message.value.text
    page.close()
