"""What a browser is told about files that somebody made to attack whoever opens them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.web.conftest import PNG, form

if TYPE_CHECKING:
    from tests.web.conftest import Serve, Spool

SCRIPT: Final = b"<script>fetch('/files').then(r => r.text()).then(alert)</script>"
XHTML: Final = b'<html xmlns="http://www.w3.org/1999/xhtml"><body>' + SCRIPT + b"</body></html>"
SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + SCRIPT + b"</svg>"
XSLT: Final = b'<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="#x"?><x/>'
PDF: Final = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n"
GIF: Final = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
MP3: Final = b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\xff\xfb\x90\x64" + bytes(400)

ATTACKS: Final = {
    "page.html": b"<!DOCTYPE html>" + SCRIPT,
    "page.htm": SCRIPT,
    "late.html": b" " * 600 + b"<!DOCTYPE html>" + SCRIPT,
    "far.html": b"words " * 1000 + b"<!DOCTYPE html>" + SCRIPT,
    "bom.html": b"\xef\xbb\xbf<!DOCTYPE html>" + SCRIPT,
    "utf16.html": "\ufeff<!DOCTYPE html><script>alert(1)</script>".encode("utf-16-le"),
    "utf7.html": b"+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "page.xhtml": b'<?xml version="1.0"?>' + XHTML,
    "bare.xhtml": XHTML,
    "image.svg": b'<?xml version="1.0"?>' + SVG,
    "bare.svg": SVG,
    "style.xml": XSLT,
    "entities.xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "math.xml": b'<math xmlns="http://www.w3.org/1998/Math/MathML"><maction actiontype="statusline">x</maction></math>',
    "paper.pdf": PDF,
    "script.js": b"alert(document.domain)\n",
    "worker.js": b"self.addEventListener('fetch', e => e.respondWith(new Response('mine')))\n",
    "module.mjs": b"import '/x';export default 1\n",
    "style.css": b"@import '/x'; body { background: url(/x) }\n",
    "cache.appcache": b"CACHE MANIFEST\nFALLBACK:\n/ /media/x/x\n",
    "flash.swf": b"FWS\x05" + bytes(40),
    "page.mhtml": b"MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\n" + SCRIPT,
    "gif.js": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)//;",
    "gif.html": GIF + SCRIPT,
    "png.html": PNG + SCRIPT,
    "jpeg.html": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xfe\x00\x50" + SCRIPT,
    "pdf.html": PDF + SCRIPT,
    "html.pdf": b"<!-- " + b" " * 20 + PDF + b"-->" + SCRIPT,
    "mp3.html": MP3 + SCRIPT,
    "webp.html": b"RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00\x00\x00\x30\x01\x00\x9d\x01\x2a\x01\x00\x01\x00" + SCRIPT,
    "bmp.js": b"BM/*" + bytes(30) + b"*/=1;alert(1)",
    "zip.html": b"PK\x03\x04" + bytes(26) + SCRIPT,
    "playlist.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "playlist.pls": b"[playlist]\nFile1=http://localhost/\n",
    "empty.html": b"",
}
CLAIMS: Final = ("text/html", "image/svg+xml", "application/xhtml+xml", "image/png", "text/html; charset=utf-7")
SHOWN: Final = re.compile(r"(audio|video)/[\w.+-]+|image/(png|jpeg|gif|webp|bmp)|text/plain", re.ASCII)
"""Types that no browser runs, as long as it does not guess another."""
FENCE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
WAYS: Final = (
    ("GET", {}, 200),
    ("HEAD", {}, 200),
    ("GET", {"Range": "bytes=0-3"}, 206),
    ("GET", {"Range": "bytes=0-1,3-4"}, 206),
    ("GET", {"If-None-Match": "*"}, 304),
)


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_is_fenced_in_whatever_it_claims_and_however_it_is_asked_for(spool: Spool, name: str) -> None:
    data = ATTACKS[name]
    for claim in CLAIMS:
        record = await spool.stored(name, data, headers={"Content-Type": claim})
        for method, headers, status in WAYS if data else WAYS[:2]:
            answer = await spool.request(method, f"/media/{record['id']}/{name}", headers=headers)
            told = {field: answer.headers.get(field) for field in FENCE}
            assert (answer.status, told) == (status, FENCE), (claim, headers)
            shown = answer.headers["Content-Disposition"].startswith("inline")
            assert shown == bool(SHOWN.fullmatch(record["media_type"])), record["media_type"]
            assert answer.headers["Content-Disposition"].endswith(f'; filename="{name}"')


async def test_parts_of_several_ranges_are_of_the_type_that_was_detected(spool: Spool) -> None:
    record = await spool.stored("a", ATTACKS["gif.html"], headers={"Content-Type": "text/html"})
    answer = await spool.media(record, Range="bytes=0-1,3-4")
    assert answer.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert re.findall(rb"Content-Type: (\S+)", answer.body) == [b"image/gif"] * 2


async def test_type_is_never_that_of_a_name_or_a_claim(spool: Spool) -> None:
    for name in ("a.html", "a.svg", "a.js", "a.css", "a.swf"):
        record = await spool.stored(name, b"just words\n", headers={"Content-Type": "text/html"})
        assert (await spool.media(record)).headers["Content-Type"] == "text/plain"


async def test_media_on_another_origin_are_fenced_in_too(serve: Serve) -> None:
    spool = await serve({"server.media_base_url": "https://media.example.org"})
    spool.token = await spool.new_token("admin")
    record = await spool.stored("a.html", ATTACKS["page.html"])
    answer = await spool.media(record)
    assert {field: answer.headers.get(field) for field in FENCE} == {
        **FENCE,
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_no_answer_may_be_taken_for_another_type(spool: Spool) -> None:
    record = await spool.stored("<script>.html", ATTACKS["page.html"])
    body, headers = form(("<script>", None, b"<script>"), ("f", "<script>.html", b"<script>"))
    text = {"Accept": "text/plain"}
    answers = [
        await spool.request("POST", "/files", data=body, headers=headers),
        await spool.put("<script>", headers=text),
        await spool.get("/files?q=<script>"),
        await spool.get("/files?<script>"),
        await spool.get("/files/latest"),
        await spool.get("/<script>"),
        await spool.get(f"/files/{record['id']}"),
        await spool.get(f"/files/{record['id']}/content"),
        await spool.get("/files/<script>"),
        await spool.get("/media/<script>/<script>"),
        await spool.media(record, Range="bytes=9999-"),
        await spool.media(record, If_Match='"<script>"'),
        *[await spool.get(path) for path in ("/healthz", "/readyz", "/problems/not-found", "/openapi.json", "/docs")],
        await spool.request("OPTIONS", "/tus"),
        await spool.request("DELETE", f"/files/{record['id']}"),
        await spool.request("SCRIPT", "/files"),
    ]
    told = [(answer.status, answer.headers.get("X-Content-Type-Options")) for answer in answers]
    assert [status for status, sniffing in told if sniffing != "nosniff"] == []
    types = {answer.headers["Content-Type"].partition(";")[0] for answer in answers if answer.body}
    assert types == {"application/json", "application/problem+json", "text/plain", "text/html"}
    assert [a for a in answers if "text/html" in a.headers.get("Content-Type", "") and b"<script" in a.body] == []


async def test_page_for_programmers_cannot_be_framed(spool: Spool) -> None:
    policy = (await spool.get("/docs")).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
