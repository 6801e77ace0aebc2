"""What REDbot, which checks how servers speak HTTP, finds to say of the addresses of a file."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.process import Server, curl, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = b"hello, this is text\n" * 5000
FINE: Final = {
    "The server's clock is correct.",
    "The Content-Length header is correct.",
    "The resource last changed N seconds ago.",
    "The resource last changed less than N seconds ago.",
    "This response instructs browsers not to 'sniff' its media type.",
    "This response sets a Content Security Policy.",
    "This response is only available for reading to requests from the same origin.",
    "This response's Referrer-Policy ('no-referrer') restricts referrer leakage.",
}
"""What it may say of any."""
UNKEPT: Final = {"This response can't be stored by caches."}
BYTES: Final = {
    "This response allows only private caches to store it.",
    "This response cannot be served from cache without validation.",
    "If-None-Match conditional requests are supported.",
    "If-Modified-Since conditional requests are supported.",
    "A ranged request returned the correct partial content.",
}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """What it says of each address."""
    program = Path(sys.executable).with_name("redbot")
    if not program.exists():
        lacking("redbot is not installed")
    with Server(tmp_path_factory.mktemp("redbot") / "spool") as server:
        record = server.put("a.txt", DATA)
        json = ("-H", "Content-Type: application/json", "-d", "{}")
        link = curl("-X", "POST", *json, f"{record['url']}/links").json["url"]
        media = f"{server.url}/media/{record['id']}/a.txt"
        addresses = {
            "content": record["content_url"],
            "media": media,
            "link": link,
            "record": record["url"],
            "listing": f"{server.url}/files",
        }
        with ThreadPoolExecutor(2) as pool:
            yield dict(
                zip(addresses, pool.map(lambda address: check(program, address), addresses.values()), strict=True)
            )


def check(program: Path, address: str) -> set[str]:
    command = [program, "-o", "text", address]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return {
        re.sub(r"\b\d+ seconds?|\b\d+ minutes?", "N seconds", note)
        for note in re.findall(r"^ +\* (.+)$", told, re.MULTILINE)
    }


@pytest.mark.parametrize(
    ("address", "promises"),
    [("content", UNKEPT), ("media", BYTES), ("link", BYTES), ("record", UNKEPT), ("listing", UNKEPT)],
)
def test_address_is_spoken_of_well(notes: dict[str, set[str]], address: str, promises: set[str]) -> None:
    assert notes[address] >= promises
    assert notes[address] - promises <= FINE
