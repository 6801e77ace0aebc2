"""Coverage-guided fuzzing of the sans-IO readers, from the vectors on; and their time, which must not explode.

Atheris was chosen over Hypothesis's `target()`, which has no coverage, and hypofuzz, which brings a web application:
it is one wheel, and finds its way into a grammar in seconds. It has that wheel for one platform, so that it is a
requirement only there, and only for the Python that runs these tests in CI.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from spool.errors import SpoolError
from spool.model import FileQuery
from spool.protocol import http, multipart
from spool.protocol.disposition import clean_filename, parse_disposition
from spool.protocol.resumable import Head, Limits
from spool.protocol.rufh import Rufh
from spool.protocol.tus import Tus
from spool.store.cursor import parse_cursor
from spool.web.connection import parse_trailer_section
from tests.process import EFFORT, lacking
from tests.protocol.test_multipart import VECTORS as FORMS
from tests.protocol.test_multipart import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "protocol" / "vectors"
SECONDS = 2 * EFFORT
TARGETS = ("multipart", "disposition", "fields", "tus", "rufh", "cursor", "units")
LARGEST_SEED = 2000
OPTIONS = ("-seed=1", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")
CURSORS = [
    b'["F",1,"a"]',
    b'["F","b","a"]',
    b'["F",null,[]]',
    b"[" * 1500,
    b'["F",1e9,"\\ud800"]',
    b"{}",
    b'["F",-9223372036854775808,""]',
]
SIZES = [b"64 KiB", b"10GB", b"1tib", b"7d", b"15m", b"0", b"true", b"8080", b"10.0.0.0/8, ::1/128", b"https://a.b/c"]


# Fuzzing


def _values(document: Any) -> Iterator[str]:
    """Every text in a vector, which is where the grammars' words are."""
    match document:
        case str():
            yield document
        case list() | dict():
            for member in document.values() if isinstance(document, dict) else document:
                yield from _values(member)


def _documents(folder: str) -> Iterator[Any]:
    for file in sorted((VECTORS / folder).glob("*.json")):
        document = json.loads(file.read_text("utf-8"))
        yield from document if isinstance(document, list) else [document]


def _requests(document: Any) -> Iterator[bytes]:
    """Each request of a dialect's vector as the fuzzer reads it: a line with method and size, then fields."""
    if not isinstance(document, dict):
        return
    for value in document.values():
        for member in value if isinstance(value, list) else [value]:
            yield from _requests(member)
    if "method" in document:
        fields = "".join(f"\n{name}: {value}" for name, value in document.get("headers", {}).items())
        yield (document["method"] + " " + "x" * min(document.get("content_length") or 0, 9) + fields).encode(
            "utf-8", "replace"
        )


def _forms() -> Iterator[bytes]:
    for vector in FORMS:
        if vector["boundary"]:
            yield to_bytes(vector["body"]).replace(vector["boundary"].encode("utf-8", "replace"), b"b")


def _seeds(target: str) -> list[bytes]:
    match target:
        case "multipart":
            return list(_forms())
        case "tus" | "rufh":
            return [request for document in _documents(target) for request in _requests(document)]
        case "cursor":
            return CURSORS
        case "units":
            return SIZES
    return [text.encode("utf-8", "surrogatepass") for document in _documents("http") for text in _values(document)]


@pytest.mark.parametrize("target", TARGETS)
def test_parser_raises_only_what_it_says(tmp_path: Path, target: str) -> None:
    if sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("the fuzzer is not a requirement here")
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris is not installed")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = [data for data in _seeds(target) if len(data) <= LARGEST_SEED]
    for at, data in enumerate(seeds):
        (corpus / str(at)).write_bytes(data)
    words = {word for data in seeds for word in re.findall(rb"[A-Za-z][\w\-/*+]{1,30}", data)}
    (tmp_path / "words").write_text("".join(f'"{word.decode()}"\n' for word in sorted(words)))
    # The fuzzer bounds the most memory that its process ever had, and to that Linux counts what the process had that
    # called exec: this one, which may hold more than the bound. So a small process comes between, and forks again.
    command = ["timeout", "-k", "5", f"{SECONDS + 50}"]
    command += [sys.executable, "-m", "tests.hostile.fuzz_parsers", target, f"-max_total_time={SECONDS}", *OPTIONS]
    command += [f"-dict={tmp_path / 'words'}", f"-artifact_prefix={tmp_path}/", str(corpus)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=SECONDS + 60)
    output = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, f"{output[-6000:]}\n{[(p.name, p.read_bytes()) for p in tmp_path.glob('*-*')]}"
    runs, covered = re.search(r"stat::number_of_executed_units: *(\d+)", output), re.findall(r"cov: (\d+)", output)
    assert runs
    print(f"\n{target}: {runs[1]} inputs, {len(seeds)} seeds, {covered[-1]} edges")  # noqa: T201


# Time


PARSER_LIMITS = multipart.Limits(parts=100_000, headers=100_000, header_bytes=1 << 20)
VALIDATORS = http.Validators("x", http.parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"))  # type: ignore[arg-type]


def _part_head(text: str) -> None:
    head = b"--b\r\nContent-Disposition: " + text.encode("utf-8", "surrogatepass")
    multipart.Parser("b", PARSER_LIMITS).feed(head + b"\r\n\r\n")


def _form(text: str) -> None:
    multipart.Parser("b", PARSER_LIMITS).feed(
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + text.encode("utf-8", "surrogatepass")
    )


def _head(**headers: str) -> Head:
    return Head("POST", {"tus-resumable": "1.0.0", "upload-complete": "?1", **headers}, 5, has_body=True)


READERS: dict[str, Callable[[str], object]] = {
    "disposition": parse_disposition,
    "filename": clean_filename,
    "part head": _part_head,
    "form": _form,
    "range": lambda text: http.parse_range("bytes=" + text, 10**9),
    "if-match": lambda text: http.evaluate("GET", {"If-Match": text}, VALIDATORS),
    "date": http.parse_http_date,
    "accept": http.prefers_text,
    "media type": lambda text: http.parse_media_type("a/b" + text),
    "digests": http.parse_digests,
    "idempotency key": http.parse_idempotency_key,
    "host": http.is_host,
    "metadata": lambda text: Tus(Limits(9, 9)).parse(_head(**{"upload-metadata": text, "upload-length": "5"}), None),
    "concat": lambda text: Tus(Limits(9, 9)).parse(_head(**{"upload-concat": "final;" + text}), None),
    "checksum": lambda text: Tus(Limits(9, 9)).parse_trailer({"upload-checksum": text}),
    "draft": lambda text: Rufh(Limits(9, 9)).parse(_head(**{"upload-length": text, "content-disposition": text}), None),
    "cursor": lambda text: parse_cursor(FileQuery(cursor=text)),
    "trailers": lambda text: parse_trailer_section(text.encode("utf-8", "surrogatepass")),
}
PIECE = st.sampled_from(
    [
        *'"\\;=, \ta0*/:()-.[\r\n\u0301',
        *["W/", '"x"', "%22", "?1", ";a=1", "=:AA==:", ";q=0.", "con", "AAAA", "\\\\", '\\"', '="', "--b"],
        *(", ", "; ", "/tus/x ", "\r\n", "\r\n\r\n", "\r\n--b", "\r\n--b--", "0\r\n", "X: y\r\n"),
    ]
)
TEXT = st.lists(PIECE, max_size=3).map("".join)
SMALL, TIMES = 4096, 8
FREE = 0.03
"""Seconds of processor for 32 KiB that need no explanation."""
FACTOR = 24
"""An eightfold text may take as many times as long; a quadratic one takes 64."""


@pytest.mark.parametrize("reader", READERS)
def test_parser_takes_time_in_proportion(reader: str) -> None:
    @seed(20261125)
    @settings(max_examples=60 * EFFORT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXT, TEXT.filter(bool), TEXT)
    @example("", "0\r\n", "\r\n0\r\n\r\n")
    @example("", ";a=1", "")
    def pump(first: str, unit: str, last: str) -> None:
        count = SMALL // len(unit)
        large = _seconds(READERS[reader], first + unit * (count * TIMES) + last)
        if large > FREE:
            assert large < FACTOR * _seconds(READERS[reader], first + unit * count + last), (first, unit, last)

    pump()


def _seconds(read: Callable[[str], object], text: str) -> float:
    """Of the processor; the least of three, because others run on it too."""
    return min(_once(read, text) for _ in range(3))


def _once(read: Callable[[str], object], text: str) -> float:
    start = time.thread_time()
    with suppress(SpoolError):
        read(text)
    return time.thread_time() - start
