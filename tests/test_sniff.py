"""The real libmagic, on the least that a file of each type starts with."""

from __future__ import annotations

import asyncio
import io
import struct
import wave
import zipfile
import zlib
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from spool.sniff import MagicSniffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("notes.txt", "notes")
    return out.getvalue()


def webm() -> bytes:
    elements = b"\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04"
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(elements)]) + elements + b"\x18\x53\x80\x67\x01" + b"\xff" * 7


MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)
ID3 = b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(2038)
MP4 = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp41") + struct.pack(">I4s", 8, b"free")
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>Spool</title></head><body></body></html>\n"


@pytest.fixture
async def sniffer() -> AsyncIterator[MagicSniffer]:
    async with aclosing(MagicSniffer()) as sniffer:
        yield sniffer


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        pytest.param(png(), "image/png", id="png"),
        pytest.param(MP3_FRAME * 10, "audio/mpeg", id="mp3"),
        pytest.param(ID3 + MP3_FRAME * 5, "audio/mpeg", id="mp3 with a tag"),
        pytest.param(wav(), "audio/x-wav", id="wav"),
        pytest.param(MP4, "video/mp4", id="mp4"),
        pytest.param(webm(), "video/webm", id="webm"),
        pytest.param(PDF, "application/pdf", id="pdf"),
        pytest.param(zipped(), "application/zip", id="zip"),
        pytest.param(b"just some words\n", "text/plain", id="text"),
        pytest.param("Grüße und Küsse\n".encode(), "text/plain", id="text in UTF-8"),
        pytest.param(HTML, "text/html", id="html"),
        pytest.param(b"", "application/x-empty", id="empty"),
        pytest.param(b"\x00\x01\x02\x03", "application/octet-stream", id="anything"),
    ],
)
async def test_sniffer_knows_the_type(sniffer: MagicSniffer, head: bytes, media_type: str) -> None:
    assert await sniffer.sniff(head) == media_type


async def test_sniffer_is_not_fooled_by_what_comes_later(sniffer: MagicSniffer) -> None:
    assert await sniffer.sniff(png() + HTML * 100) == "image/png"


async def test_sniffer_takes_heads_at_once(sniffer: MagicSniffer) -> None:
    heads = [png(), PDF, HTML, b""] * 25
    types = ["image/png", "application/pdf", "text/html", "application/x-empty"] * 25
    assert await asyncio.gather(*map(sniffer.sniff, heads)) == types


async def test_sniffer_reads_a_large_head_without_going_through_all_of_it(sniffer: MagicSniffer) -> None:
    assert await sniffer.sniff(bytes(64 * 1024) + png()) == "application/octet-stream"
