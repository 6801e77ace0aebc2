"""What Spool cannot be made to do, because it has no means to: unpack, decode, run, or fetch; and where cookies are."""

from __future__ import annotations

import ast
import hashlib
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.process import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES: Final = sorted((Path(__file__).parent.parent.parent / "spool").rglob("*.py"))
UNPACKING: Final = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "zlib", "zipimport", "shutil"}
DECODING: Final = {"PIL", "xml", "html", "lxml", "email.parser", "wave", "plistlib"}
RUNNING: Final = {"subprocess", "multiprocessing", "pty", "code", "runpy", "pickle", "marshal", "shelve", "jinja2"}
FETCHING: Final = {"urllib.request", "http.client", "ftplib", "smtplib", "xmlrpc", "socketserver", "requests", "httpx"}
CALLS: Final = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.fork", "os.posix_spawn", "os.startfile"),
    *("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "asyncio.open_connection"),
    *("aiohttp.ClientSession", "ClientSession", "aiohttp.request", "socket.create_connection"),
}
ALLOWED: Final = {
    "client/connection.py": {"aiohttp.ClientSession"},  # a program of its own, which no part of the server may import
    # Connections that were taken, and workers: the same program, with what it serves as its input.
    "crew/channel.py": {"create_connection"},
    "spool/workers.py": {"pickle", "asyncio.create_subprocess_exec"},
    "api/page.py": {"html"},  # they escape, and parse nothing
    "pages/html.py": {"html"},
    # The only places that believe a cookie, and ask for more with it.
    "web/session.py": {"cookies", "set_cookie"},
    "web/guest_cookies.py": {"cookies", "set_cookie"},
}
ATTRIBUTES: Final = {"cookies", "set_cookie", "create_connection", "subprocess_exec", "subprocess_shell"}


def means(text: str) -> Iterator[str]:
    """What a source has in hand that it must not."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            case ast.Call():
                names = []
                if (name := ast.unparse(node.func)) in CALLS or name.startswith(("os.exec", "os.spawn")):
                    yield name
            case ast.Attribute(attr=attribute):
                names = []
                if attribute in ATTRIBUTES:
                    yield attribute
            case _:
                continue
        parts = {part for name in names for part in (name, name.partition(".")[0])}
        yield from sorted(parts & (UNPACKING | DECODING | RUNNING | FETCHING))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[path.parts.index("spool") + 1 :][-2:]))
def test_source_has_no_means_to_unpack_decode_run_or_fetch(path: Path) -> None:
    allowed = ALLOWED.get("/".join(path.parts[-2:]), set())
    assert [name for name in means(path.read_text()) if name not in allowed] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import zipfile", ["zipfile"]),
        ("from xml.etree import ElementTree", ["xml"]),
        ("import urllib.request", ["urllib.request"]),
        ("from urllib.parse import quote", []),
        ("import os\nos.execvp('sh', [])", ["os.execvp"]),
        ("from aiohttp import ClientSession\nClientSession()", ["ClientSession"]),
        ("response.set_cookie('a', 'b')", ["set_cookie"]),
        ("eval(text)", ["eval"]),
    ],
)
def test_means_are_found(text: str, found: list[str]) -> None:
    assert list(means(text)) == found


def zip_of(*names: str, size: int = 3) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, bytes(size))
    return file.getvalue()


def zip_of_a_link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return file.getvalue()


def tar_of_a_link() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


ARCHIVES: Final = {
    "bomb.zip": zip_of("zeros", size=64 * 2**20),
    "bomb.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + zlib.compress(bytes(64 * 2**20), 9)[2:-4] + bytes(8),
    "many.zip": zip_of(*map(str, range(1000))),
    "nested.zip": zip_of("a") + zip_of("b"),
    "slip.zip": zip_of("../../slipped", "/slipped", "..\\slipped", "C:\\slipped"),
    "link.zip": zip_of_a_link(),
    "link.tar.gz": tar_of_a_link(),
    "flood.png": png_of(65535, 65535),
    "laughs.xml": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "'
    + b"ha" * 1000
    + b'">]><l>'
    + b"&a;" * 1000
    + b"</l>",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("surface") / "spool") as server:
        server.put("first", b"libmagic reads its database at its first use")
        yield server


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_is_kept_as_it_came_and_never_unpacked(server: Server, name: str) -> None:
    data, memory, before = ARCHIVES[name], server.rss(), server.blobs()
    record = server.put(name, data)
    assert (record["size"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert [size for key, size in server.blobs().items() if key not in before] == [len(data)]
    assert server.rss() - memory < 32 * 2**20
    assert {path.name for path in server.dir.parent.iterdir()} == {"spool", "spool.log"}
