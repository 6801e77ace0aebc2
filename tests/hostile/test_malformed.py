"""Ten thousand malformed requests to the real server, and what has to be true of every answer and of what is left."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.malformed import AREAS as OF_EVERYBODY
from tests.hostile.malformed import SHUT
from tests.hostile.strangers import strangers
from tests.hostile.wire import ALIVE, Message, Reply, exchange, parse_replies
from tests.process import EFFORT, Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = 10_000 * EFFORT
BATCH = 8
"""Requests under way at the same time, each on a connection of its own."""
AREAS = {**OF_EVERYBODY, "strangers": strangers()}
SHARES = {"heads": 12, "multiparts": 12, "tiny-parts": 1, "strangers": 4}
"""What an area has of a hundredth of all requests, if it is not 9."""
MOST_MEMORY = 400 * 1024 * 1024
LIMITS = {
    "SPOOL_LIMITS_IDLE_TIMEOUT": "2s",
    "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
    "SPOOL_LIMITS_MAX_FILE_SIZE": "1 GiB",
    "SPOOL_LIMITS_MAX_UPLOADS": "1000000",  # nobody is refused for what others left
}


@dataclass
class Target:
    """The server that is sent to, and what has been sent."""

    server: Server
    loop: asyncio.Runner
    file: bytes
    """The id of a file that is there all the time."""
    descriptors: int
    """Open before the first request."""
    secrets: dict[bytes, bytes]
    """Of two grants, the second with a pass phrase, by what stands for them."""
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: set[str] = field(default_factory=set)
    """The digests of all bodies that may have become files."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Server(tmp_path_factory.mktemp("malformed") / "spool", env=LIMITS) as server, asyncio.Runner() as loop:
        stored = curl("-T", "-", f"{server.url}/files/there", stdin=b"hello there").json
        descriptors = len(server.descriptors())
        secrets = {b"GRANT": _grant(server, "{}"), b"CLOSED": _grant(server, '{"passphrase": "sesame"}')}
        yield Target(server, loop, stored["id"].encode(), descriptors, secrets, bodies={stored["sha256"]})


def _grant(server: Server, members: str) -> bytes:
    made = curl("-H", "Content-Type: application/json", "-d", members, f"{server.url}/grants").json
    return str(made["url"]).rpartition("/")[2].encode()


def _filled(target: Target, data: bytes) -> bytes:
    for word, secret in {b"FILE": target.file, **target.secrets}.items():
        data = data.replace(word, secret)
    return data


@pytest.mark.parametrize("area", AREAS)
def test_malformed_request_is_answered_or_closed_and_never_fails(target: Target, area: str) -> None:
    before, share = target.sent, -(-REQUESTS * SHARES.get(area, 9) // 100)

    @seed(20261125)
    @settings(
        max_examples=-(-share // BATCH),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.lists(AREAS[area], min_size=BATCH, max_size=BATCH))
    def send(batch: list[Message]) -> None:
        messages = [replace(message, data=_filled(target, message.data)) for message in batch]
        for message, received in zip(messages, target.loop.run(_exchange(target.server.port, messages)), strict=True):
            _note(target, message)
            _judge(target, message, received)
        assert _tracebacks(target.server) == []

    send()
    assert target.sent - before >= share


async def _exchange(port: int, messages: list[Message]) -> list[bytes]:
    return await asyncio.gather(*(exchange(port, message) for message in messages))


def _note(target: Target, message: Message) -> None:
    target.sent += 1
    target.bodies.update(hashlib.sha256(body).hexdigest() for body in message.bodies)


def _judge(target: Target, message: Message, received: bytes) -> None:
    replies = parse_replies(received, message.method, b"GET")
    assert len(replies) <= message.answers + 1, f"more answers than requests: {received!r}"
    target.statuses.update(reply.status for reply in replies[:1])
    for reply in replies[: message.answers]:
        assert reply.status < 500, reply
        if reply.status >= 400:
            _judge_refusal(message, reply)
    if message.refused:
        assert all(reply.status >= 400 for reply in replies[:1]), f"not refused: {received!r}"
    if message.final:
        assert len(replies) <= 1, f"went on after it: {received!r}"
    for reply in replies[message.answers :]:
        assert reply.body == ALIVE or reply.status == 400, f"the probe is answered by {reply}"


def _judge_refusal(message: Message, reply: Reply) -> None:
    assert reply.headers.get("content-type") == "application/problem+json", reply
    assert reply.headers.get("x-content-type-options") == "nosniff", reply
    assert reply.headers.get("cache-control") == "no-store", reply
    if message.method == b"HEAD" and not reply.body:
        return
    problem = reply.problem
    assert problem["status"] == reply.status
    assert problem["type"].startswith(("/problems/", "https://iana.org/assignments/http-problem-types#"))
    assert problem["title"]
    assert problem["detail"]


def _tracebacks(server: Server) -> list[str]:
    """What the log has of failures that nobody foresaw."""
    text = server.log()
    found = [line for line in text.splitlines() if '"request.failed"' in line or not line.startswith("{")]
    server.log_path.write_text("")
    return found


def test_malformed_requests_publish_nothing_truncated(target: Target) -> None:
    for path in target.server.dir.glob("blobs/*/*"):
        content = path.read_bytes()
        assert SHUT in content or hashlib.sha256(content).hexdigest() in target.bodies, content[:200]


def test_malformed_requests_leave_nothing_behind(target: Target) -> None:
    """After all of the above, which `-k` may have left out."""
    server = target.server
    answers, memory = dict(sorted(target.statuses.items())), server.rss() >> 20
    print(f"\n{target.sent} malformed requests were answered by {answers}, with {memory} MiB at most")  # noqa: T201
    eventually(lambda: server.staged() == 0)
    eventually(lambda: len(server.descriptors()) <= target.descriptors)
    files = server.files()
    assert server.rss() < MOST_MEMORY
    assert sorted(_digests(server)) == sorted({file["sha256"] for file in files})
    assert curl("-T", "-", f"{server.url}/files/after", stdin=b"as ever").status == 201


def _digests(server: Server) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in server.dir.glob("blobs/*/*")]
