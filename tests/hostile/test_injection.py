"""Text of a client's in every place that an answer, a log line or a path is made of."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from spool.protocol.disposition import parse_disposition
from tests.hostile.wire import Message, exchange, parse_replies
from tests.process import Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.wire import Reply

AT_ONCE: Final = 16
CANARY: Final = b"nobody may read this"

ATTACKS: Final = {
    "crlf": b"a\r\nX-Evil: 1",
    "lf": b"a\nX-Evil: 1",
    "cr": b"a\rX-Evil: 1",
    "folded": b"a\r\n X-Evil: 1",
    "nul": b"a\x00X-Evil: 1",
    "vertical": b"a\x0b\x0cX-Evil: 1",
    "escaped": b"a%0d%0aX-Evil:%201",
    "backslash": b"a\\r\\nX-Evil: 1",
    "truncated": "a\u010d\u010aX-Evil: 1".encode(),  # CR and LF once the high bytes are dropped
    "separators": "a\u2028X-Evil: 1\u2029\u0085".encode(),
    "latin": b"a\xff\xfe\x85\xa0",
    "bidi": "a\u202egnp.exe\u2066\u200b\ufeff".encode(),
    "terminal": b"a\x1b[2J\x1b]0;owned\x07",
    "json": b'a", "level": "error", "x": "',
    "pairs": b"a level=error request.finished status=200",
    "format": b"%s%n{0}{event}${jndi:ldap://x}",
}
FIELDS: Final = (
    *(b"Origin", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Forwarded-For", b"Forwarded", b"User-Agent"),
    *(b"Referer", b"Idempotency-Key", b"Content-Type", b"Content-Disposition", b"Content-Digest", b"Accept"),
    *(b"X-Request-ID", b"Cookie", b"Expect", b"Range", b"If-Match", b"Connection", b"Upgrade"),
    *(b"Access-Control-Request-Method", b"Access-Control-Request-Headers", b"Upload-Draft-Interop-Version"),
)
TUS: Final = (b"Upload-Metadata", b"Upload-Concat", b"Upload-Checksum", b"Upload-Length", b"Tus-Resumable")


@dataclass
class Target:
    """A server that believes its proxy and lets pages of every origin in."""

    server: Server
    token: bytes

    def request(
        self, method: bytes, path: bytes, *fields: bytes, body: bytes = b"", host: bytes = b"localhost"
    ) -> Message:
        lines = [b"Host: " + host, b"Authorization: Bearer " + self.token, *fields, b"Content-Length: %d" % len(body)]
        return Message(b"%s %s HTTP/1.1\r\n%s\r\n\r\n" % (method, path, b"\r\n".join(lines)) + body)

    def replies(self, *messages: Message) -> list[Reply]:
        """The strictly read answer to each; one that was cut short has none."""

        async def send() -> list[bytes]:
            received = []
            for start in range(0, len(messages), AT_ONCE):
                lot = messages[start : start + AT_ONCE]
                received += await asyncio.gather(*(exchange(self.server.port, message) for message in lot))
            return received

        return [
            reply
            for message, received in zip(messages, asyncio.run(send()), strict=True)
            for reply in parse_replies(received, message.method, b"GET")[:1]
        ]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("injection")
    (root / "canary").write_bytes(CANARY)
    env = {
        "SPOOL_SERVER_CORS_ORIGINS": "*",
        "SPOOL_SERVER_TRUSTED_PROXIES": "127.0.0.1",
        "SPOOL_LIMITS_IDLE_TIMEOUT": "2s",
    }
    with Server(root / "spool", env=env) as server:
        # A server behind a proxy is open to nobody: its first token is what it prints.
        found = eventually(lambda: re.search(r"spool_[\w-]+", server.log()))
        yield Target(server, found[0].encode())


def check(replies: list[Reply]) -> None:
    """None of them has a field that only a client made, and none is a failure."""
    assert [reply for reply in replies if "x-evil" in reply.headers or reply.status >= 500] == []
    told = [value for reply in replies for name, value in reply.headers.items() if not name.startswith("access-")]
    assert [value for value in told if not (value.isascii() and value.isprintable())] == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_field_of_a_client_splits_no_answer(target: Target, attack: str) -> None:
    value = ATTACKS[attack]
    messages = [target.request(b"PUT", b"/files/a", name + b": " + value, body=b"hello") for name in FIELDS]
    messages += [target.request(b"OPTIONS", b"/files", name + b": " + value) for name in FIELDS]
    given = {b"Tus-Resumable": b"1.0.0", b"Upload-Length": b"5"}
    for name in TUS:
        fields = [key + b": " + text for key, text in {**given, name: value}.items()]
        messages.append(target.request(b"POST", b"/tus", *fields))
    messages.append(target.request(b"PUT", b"/files/a", host=value))
    check(target.replies(*messages))


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_that_is_kept_splits_no_answer(target: Target, attack: str) -> None:
    text = ATTACKS[attack].decode("utf-8", "replace")
    quoted = b"".join(b"%%%02x" % byte for byte in ATTACKS[attack])
    disposition = b"Content-Disposition: attachment; filename*=utf-8''" + quoted
    stored = target.replies(
        target.request(b"PUT", b"/files/" + quoted + b"?" + quoted + b"=" + quoted, body=b"hello"),
        target.request(b"PUT", b"/files/", disposition, body=b"hello"),
    )
    [*ids] = [str(json.loads(reply.body)["id"]).encode() for reply in stored]
    assert len(ids) == 2
    change = json.dumps({"filename": text, "metadata": {text: [text]}}).encode()
    message = target.request(b"PATCH", b"/files/" + ids[0], b"Content-Type: application/json", body=change)
    check(target.replies(message))
    ways = (b"/files/%s", b"/media/%s/x", b"/files/%s/content", b"/media/%s/x?download")
    places = [way % file_id for file_id in ids for way in ways]
    messages = [target.request(method, place) for place in places for method in (b"GET", b"HEAD")]
    found = target.request(b"GET", b"/files?limit=1&q=" + quoted)
    replies = target.replies(*messages, found, target.request(b"GET", b"/files/latest?q=" + quoted))
    check([*stored, *replies])
    records = [json.loads(reply.body) for reply in replies if reply.body[:5] == b'{"id"']
    told = [reply.headers["content-disposition"] for reply in replies if "content-disposition" in reply.headers]
    assert {parse_disposition(value).filename for value in told} == {record["filename"] for record in records}


TRICKS: Final = (
    *(b"../canary", b"../../canary", b"%2e%2e/canary", b"%2e%2e%2fcanary", b"..%2f..%2fcanary", b"..%5c..%5ccanary"),
    *(b"%252e%252e%252fcanary", b"..%c0%afcanary", b"%c0%ae%c0%ae/canary", b"..;/canary", b"....//canary"),
    *(b"/canary", b"//canary", b"%2fcanary", b"file:///canary", b"%5c%5chost%5cshare", b"C:%5Ccanary", b"c:canary"),
    *(b"%00", b"canary%00", b"%00canary", b"%ff%fe", b"%e2%80%ae", b"%0d%0a", b"%F0%9F%92%A9" * 100),
    *(b".", b"..", b"%2e", b"%2e%2e", b"~", b"*", b"index.db", b"incoming", b"blobs%2f00", b"lock", b"..%2flock"),
    *(b"CON", b"NUL", b"a::$DATA", b"x" * 4000, b"%41" * 2000, b"' OR 1=1 --", b"%25", b"%", b"%zz", b"-1", b"0"),
)


@pytest.mark.parametrize("place", [b"/files/%s", b"/media/%s/x", b"/files/%s/content", b"/tus/%s", b"/uploads/%s"])
def test_id_that_is_a_path_leads_nowhere(target: Target, place: bytes) -> None:
    before = sorted(path.name for path in target.server.dir.iterdir())
    tus = b"Tus-Resumable: 1.0.0"
    messages = [
        target.request(method, (place % trick).replace(b" ", b"%20"), tus)
        for trick in TRICKS
        for method in (b"GET", b"HEAD", b"DELETE", b"PATCH")
    ]
    replies = target.replies(*messages)
    assert [reply for reply in replies if not 400 <= reply.status < 500] == []
    assert [reply for reply in replies if CANARY in reply.body] == []
    assert (target.server.dir.parent / "canary").read_bytes() == CANARY
    assert sorted(path.name for path in target.server.dir.iterdir()) == before


@pytest.mark.parametrize("trick", [trick for trick in TRICKS if b"/" not in trick and len(trick) < 2000])
def test_name_that_is_a_path_is_none_on_the_disk(target: Target, trick: bytes) -> None:
    trick = trick.replace(b" ", b"%20")
    (reply,) = target.replies(target.request(b"PUT", b"/files/" + trick, body=trick))
    if reply.status == 201:
        name = json.loads(reply.body)["filename"]
        assert name.isprintable()
        assert not set(name) & set("/\\:")
    outside = {path.name for path in target.server.dir.parent.iterdir()}
    assert outside == {"canary", "spool", "spool.log"}
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in target.server.blobs())


def test_log_has_one_event_a_line_whatever_clients_sent(target: Target) -> None:
    """After all of the above, which `-k` may have left out."""
    for attack in ATTACKS.values():
        quoted = b"".join(b"%%%02x" % byte for byte in attack)
        secret = b"?token=in-the-query&" + quoted
        agent = b"User-Agent: in-the-agent"
        target.replies(
            target.request(b"PUT", b"/files/" + quoted + secret, agent, b"Cookie: in=the-cookie", body=b"hello"),
            target.request(b"GET", b"/" + quoted + secret, agent, b"X-Forwarded-For: 10.0.0.1 " + attack),
        )
    first, *lines = target.server.log().splitlines()
    assert first.startswith("admin token, shown only now: ")
    events = [json.loads(line) for line in lines]
    assert {event["event"] for event in events} <= {
        "server.started",
        "request.finished",
        "upload.committed",
        "upload.refused",
    }
    assert all(line.isascii() and line.isprintable() for line in lines)
    text = "\n".join(lines)
    assert [
        word for word in ("in-the-query", "in-the-agent", "the-cookie", target.token.decode()) if word in text
    ] == []
