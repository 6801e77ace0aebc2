"""What every index promises. A back-end's tests subclass IndexSuite and give it the fixture `index`."""

from __future__ import annotations

import asyncio
import fnmatch
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool.errors import BadRequest, NotFound, Rejected, SpoolError, Unavailable
from spool.model import Answer, File, FileId, FileQuery, Key, Override, Token, TokenId, Usage, Window
from spool.ports import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from spool.ports import Index

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)

# `index` is one for all examples of a test, and the suite runs once for each back-end.
properties = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow],
)


def a_file(name: str, **changes: object) -> File:
    file = File(
        id=FileId(f"id-{name}"),
        key=Key(f"key-{name}"),
        owner="ada",
        filename=f"{name}.jpg",
        size=100,
        media_type="image/jpeg",
        declared_type=None,
        sha256="ab" * 32,
        created_at=NOON,
        expires_at=None,
        metadata={},
    )
    return replace(file, **changes)


def an_answer(*files: File, created_at: datetime = NOON, **changes: object) -> Answer:
    return replace(Answer("ada", "key-1", "print-1", created_at, files), **changes)


def a_token(name: str, created_at: datetime = NOON) -> Token:
    return Token(TokenId(f"token-{name}"), name, frozenset({"read", "write"}), created_at, None)


async def walk(index: Index, query: FileQuery) -> AsyncIterator[list[File]]:
    """The pages, one by one."""
    while True:
        page = await index.files(query)
        assert len(page.items) <= query.limit
        yield list(page.items)
        if page.next is None:
            return
        query = replace(query, cursor=page.next)


async def listed(index: Index, query: FileQuery | None = None) -> list[File]:
    return [file async for page in walk(index, query or FileQuery()) for file in page]


async def empty(index: Index) -> None:
    for file in await listed(index):
        await index.remove(file.id)


def lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def passes(file: File, query: FileQuery) -> bool:
    """The model of the filters."""
    return (
        (query.q is None or lower(query.q) in lower(file.filename))
        and (query.filename is None or fnmatch.fnmatchcase(file.filename, query.filename))
        and (query.media_type is None or fnmatch.fnmatchcase(file.media_type, query.media_type))
        and (query.since is None or file.created_at >= query.since)
        and (query.until is None or file.created_at < query.until)
    )


def expected(files: list[File], query: FileQuery) -> list[File]:
    """The model of a listing."""
    passing = [file for file in files if passes(file, query)]
    return sorted(passing, key=lambda file: (getattr(file, query.sort), file.id), reverse=query.descending)


moments = st.integers(0, 4).map(lambda count: NOON + count * TICK)
names = st.text("aAbB%_*?[]\\é\u00c9\u212a\uffff\U0001f600 ", max_size=4)
globs = st.lists(st.sampled_from(["*", "?", "[ab]", "[A-B]", "a", "B", "%", "_", "é", "\U0001f600"]), max_size=4)
types = st.sampled_from(["image/jpeg", "audio/flac", "audio/ogg", "text/plain"])


@st.composite
def file_lists(draw: st.DrawFn) -> list[File]:
    numbers = draw(st.lists(st.integers(0, 999), unique=True, max_size=14))
    return [
        a_file(
            str(number),
            filename=draw(names),
            size=draw(st.integers(0, 3)),
            media_type=draw(types),
            created_at=draw(moments),
        )
        for number in numbers
    ]


queries = st.builds(
    FileQuery,
    limit=st.integers(1, 4),
    q=st.none() | names,
    filename=st.none() | globs.map("".join),
    media_type=st.none() | st.sampled_from(["audio/*", "*/*", "image/jpeg", "IMAGE/*", ""]),
    since=st.none() | moments,
    until=st.none() | moments,
    sort=st.sampled_from(["created_at", "size", "filename"]),
    descending=st.booleans(),
)


class IndexSuite:
    @pytest.fixture
    def index(self) -> Index:
        raise NotImplementedError

    # finish

    async def test_finish_records_every_member_of_a_file(self, index: Index) -> None:
        file = a_file(
            "1",
            filename="Ärger \U0001f600\u0000\n'\"%.jpg",
            size=1 << 50,
            declared_type="image/png",
            created_at=NOON + TICK,
            expires_at=NOON + DAY + TICK,
            metadata={"title": "\U0001f3b5", "tag": ["b", "a", "b"], "": ""},
        )
        await index.finish([file])
        assert await index.file(file.id) == file

    async def test_finish_keeps_the_order_of_metadata(self, index: Index) -> None:
        await index.finish([a_file("1", metadata={"z": "1", "a": "2", "m": "3"})])
        assert list((await index.file(FileId("id-1"))).metadata) == ["z", "a", "m"]

    async def test_finish_is_all_or_none(self, index: Index) -> None:
        await index.finish([a_file("1")])
        with pytest.raises(SpoolError):
            await index.finish([a_file("2"), a_file("1", key=Key("other"))], an_answer())
        assert await listed(index) == [a_file("1")]
        assert await index.usage("ada") == Usage(1, 100)
        assert await index.answer("ada", "key-1", NOON) is None

    async def test_finish_shares_the_blob_of_a_file_with_the_same_bytes(self, index: Index) -> None:
        assert await index.finish([a_file("1")], share=True) == [a_file("1")]
        assert await index.finish([a_file("2")], share=True) == [a_file("2", key="key-1")]
        assert await index.file(FileId("id-2")) == a_file("2", key="key-1")

    async def test_finish_shares_within_one_call(self, index: Index) -> None:
        recorded = await index.finish([a_file("1"), a_file("2", sha256="cd" * 32), a_file("3")], share=True)
        assert [file.key for file in recorded] == ["key-1", "key-2", "key-1"]

    @pytest.mark.parametrize("other", [{"size": 99}, {"sha256": "ab" * 31 + "ac"}, {"sha256": "ac" + "ab" * 31}])
    async def test_finish_shares_nothing_with_other_bytes(self, index: Index, other: dict[str, object]) -> None:
        await index.finish([a_file("1", **other)], share=True)
        assert await index.finish([a_file("2")], share=True) == [a_file("2")]

    async def test_finish_shares_nothing_unless_told_to(self, index: Index) -> None:
        await index.finish([a_file("1")])
        assert await index.finish([a_file("2")]) == [a_file("2")]

    async def test_finish_shares_nothing_with_a_file_that_was_removed(self, index: Index) -> None:
        await index.finish([a_file("1")])
        await index.remove(FileId("id-1"))
        assert await index.finish([a_file("2")], share=True) == [a_file("2")]

    async def test_finish_heals_damaged_files_with_the_same_bytes(self, index: Index) -> None:
        await index.finish([a_file("1"), a_file("2", size=99), a_file("3")])
        for key in ("key-1", "key-2", "key-3"):
            await index.mark(Key(key), "digest")
        assert await index.finish([a_file("4")], share=True) == [a_file("4")]
        assert await listed(index, FileQuery(descending=False)) == [
            a_file("1", key="key-4"),
            a_file("2", size=99, damage="digest"),
            a_file("3", key="key-4"),
            a_file("4"),
        ]

    @pytest.mark.parametrize("body", [b"", b"\0", b"body" * 16_384])
    async def test_finish_records_the_bytes_of_inline_files(self, index: Index, body: bytes) -> None:
        file, other = a_file("1", inline=True), a_file("2")
        assert await index.finish([file, other], bodies={file.id: body}) == [file, other]
        assert [await index.file(f.id) for f in (file, other)] == [file, other]
        assert await index.body(file.id) == body
        assert await listed(index, FileQuery(descending=False)) == [file, other]

    async def test_body_of_what_is_not_inline_is_not_found(self, index: Index) -> None:
        await index.finish([a_file("1")])
        for name in ("id-1", "missing"):
            with pytest.raises(NotFound):
                await index.body(FileId(name))

    async def test_finish_that_is_refused_keeps_no_bytes(self, index: Index) -> None:
        await index.finish([a_file("1")])
        with pytest.raises(SpoolError):
            await index.finish([a_file("2", inline=True), a_file("1")], bodies={FileId("id-2"): b"body"})
        with pytest.raises(NotFound):
            await index.body(FileId("id-2"))

    async def test_remove_takes_the_bytes_of_an_inline_file(self, index: Index) -> None:
        file, other = a_file("1", inline=True), a_file("2", inline=True)
        await index.finish([file, other], bodies={file.id: b"body", other.id: b"other"})
        assert await index.remove(file.id) == file
        with pytest.raises(NotFound):
            await index.body(file.id)
        assert await index.body(other.id) == b"other"

    @pytest.mark.parametrize("inline", [(True, False), (False, True), (True, True)])
    async def test_inline_files_share_nothing(self, index: Index, inline: tuple[bool, bool]) -> None:
        files = [a_file("1", inline=inline[0]), a_file("2", inline=inline[1])]
        for file in files:
            bodies = {file.id: b"body"} if file.inline else {}
            assert await index.finish([file], share=True, bodies=bodies) == [file]
        assert [await index.file(file.id) for file in files] == files
        assert await index.finish([a_file("3")], share=True) == [
            a_file("3", key=next((file.key for file in files if not file.inline), "key-3"))
        ]

    async def test_damaged_inline_file_is_given_no_blob(self, index: Index) -> None:
        file = a_file("1", inline=True)
        await index.finish([file], bodies={file.id: b"body"})
        assert await index.mark(file.key, "digest") == [replace(file, damage="digest")]
        assert await index.finish([a_file("2"), a_file("3")], share=True) == [a_file("2"), a_file("3", key="key-2")]
        assert await index.file(file.id) == replace(file, damage="digest")
        assert await index.mark(file.key, None) == [file]

    async def test_inline_file_stays_inline_whatever_becomes_of_its_record(self, index: Index) -> None:
        file, other = a_file("1", inline=True, expires_at=NOON), a_file("2", expires_at=NOON)
        await index.finish([file, other], bodies={file.id: b""})
        changed = await index.annotate(file.id, lambda file: replace(file, filename="new"))
        assert changed == replace(file, filename="new")
        assert [f.inline for f in await index.expired(NOON, 10)] == [f.id == file.id for f in (file, other)]
        assert [f.inline for f in await index.by_key(None, 10)] == [True, False]
        assert [f.inline for key in ("key-1", "key-2") for f in await index.mark(Key(key), "size")] == [True, False]
        assert await index.remove(file.id) == replace(changed, damage="size")
        assert await index.usage("ada") == Usage(1, 100)
        assert await index.check() == []

    async def test_key_of_an_inline_file_is_referenced(self, index: Index) -> None:
        file = a_file("1", inline=True)
        await index.finish([file], bodies={file.id: b"body"})
        assert await index.referenced([file.key, Key("other")]) == {file.key}

    async def test_an_answer_names_the_files_as_recorded(self, index: Index) -> None:
        await index.finish([a_file("1")])
        await index.finish([a_file("2")], an_answer(a_file("2")), share=True)
        answer = await index.answer("ada", "key-1", NOON)
        assert answer == an_answer(a_file("2", key="key-1"))

    async def test_by_key_walks_in_the_order_of_keys_and_ids(self, index: Index) -> None:
        files = [a_file("3", key="b"), a_file("1", key="c"), a_file("2", key="b"), a_file("4", key="a")]
        await index.finish(files)
        found: list[File] = []
        while lot := await index.by_key(found[-1] if found else None, 1):
            found += lot
        assert found == sorted(files, key=lambda file: (file.key, file.id))
        assert await index.by_key(None, 3) == found[:3]

    async def test_mark_tells_the_files_that_are_newly_damaged(self, index: Index) -> None:
        await index.finish([a_file("1", key="shared"), a_file("2", key="shared"), a_file("3")])
        marked = await index.mark(Key("shared"), "missing")
        expected = [a_file(name, key="shared", damage="missing") for name in "12"]
        assert sorted(marked, key=lambda file: file.id) == expected
        assert await index.mark(Key("shared"), "missing") == []
        assert (await index.file(FileId("id-3"))).damage is None
        assert [file.damage for file in await index.mark(Key("shared"), None)] == [None, None]

    async def test_heal_gives_all_that_share_a_blob_another_one(self, index: Index) -> None:
        await index.finish([a_file("1", key="shared"), a_file("2", key="shared"), a_file("3")])
        await index.mark(Key("shared"), "missing")
        await index.heal(Key("shared"), Key("sound"))
        assert [(await index.file(FileId(f"id-{name}"))).key for name in "123"] == ["sound", "sound", "key-3"]
        assert await index.file(FileId("id-1")) == a_file("1", key="sound")

    async def test_check_finds_nothing_wrong_with_a_sound_index(self, index: Index) -> None:
        await index.finish([a_file("1"), a_file("2", owner="bob")])
        await index.remove(FileId("id-2"))
        assert await index.check() == []

    async def test_finish_by_two_hundred_at_once_records_all(self, index: Index) -> None:
        files = [a_file(f"{number:03}") for number in range(200)]
        await asyncio.gather(*(index.finish([file]) for file in files))
        assert await listed(index, FileQuery(descending=False)) == files

    async def test_finish_completes_even_if_the_caller_is_cancelled(self, index: Index) -> None:
        callers = [asyncio.ensure_future(index.finish([a_file(str(number))])) for number in range(5)]
        await asyncio.sleep(0)  # each has asked
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await index.probe()  # comes after what was asked before
        assert len(await listed(index)) == 5

    async def test_a_refused_verb_leaves_those_beside_it_alone(self, index: Index) -> None:
        await index.finish([a_file("1")], an_answer())
        outcomes = await asyncio.gather(
            index.finish([a_file("2")]),
            index.remove(FileId("missing")),
            index.finish([a_file("3"), a_file("1")]),
            index.finish([a_file("4")], an_answer()),
            index.finish([a_file("5")]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [
            list,
            NotFound,
            type(outcomes[2]),
            Rejected,
            list,
        ]
        assert isinstance(outcomes[2], SpoolError)
        assert {file.id for file in await listed(index)} == {"id-1", "id-2", "id-5"}

    async def test_a_verb_that_returned_is_seen_by_every_reader(self, index: Index) -> None:
        for number in range(20):
            await index.finish([a_file(str(number))])
            found = await asyncio.gather(*(index.file(FileId(f"id-{number}")) for _ in range(8)))
            assert {file.id for file in found} == {f"id-{number}"}

    # file, annotate, remove

    async def test_file_that_is_not_there_is_not_found(self, index: Index) -> None:
        with pytest.raises(NotFound):
            await index.file(FileId("id-1"))

    async def test_annotate_changes_file_name_metadata_and_expiry(self, index: Index) -> None:
        await index.finish([a_file("1")])
        after = a_file("1", filename="new \U0001f600", metadata={"a": ["b", "c"]}, expires_at=NOON + DAY)
        assert await index.annotate(FileId("id-1"), lambda _: after) == after
        assert await index.file(FileId("id-1")) == after

    async def test_annotate_changes_nothing_else(self, index: Index) -> None:
        await index.finish([a_file("1")])
        after = await index.annotate(FileId("id-1"), lambda file: replace(file, size=7, owner="bob"))
        assert after == a_file("1") == await index.file(FileId("id-1"))

    async def test_annotate_whose_edit_raises_raises_it_and_changes_nothing(self, index: Index) -> None:
        def edit(_: File) -> File:
            raise BadRequest("no")

        await index.finish([a_file("1")])
        with pytest.raises(BadRequest, match="no"):
            await index.annotate(FileId("id-1"), edit)
        assert await index.file(FileId("id-1")) == a_file("1")

    async def test_annotate_of_a_missing_file_is_not_found(self, index: Index) -> None:
        with pytest.raises(NotFound):
            await index.annotate(FileId("id-1"), lambda file: file)

    async def test_concurrent_annotations_lose_nothing(self, index: Index) -> None:
        def count(file: File) -> File:
            return replace(file, metadata={"count": str(int(str(file.metadata.get("count", "0"))) + 1)})

        await index.finish([a_file("1")])
        await asyncio.gather(*(index.annotate(FileId("id-1"), count) for _ in range(50)))
        assert (await index.file(FileId("id-1"))).metadata == {"count": "50"}

    async def test_remove_returns_what_was_and_is_for_good(self, index: Index) -> None:
        await index.finish([a_file("1"), a_file("2")])
        assert await index.remove(FileId("id-1")) == a_file("1")
        assert await listed(index) == [a_file("2")]
        with pytest.raises(NotFound):
            await index.remove(FileId("id-1"))

    async def test_of_two_that_remove_a_file_one_gets_it(self, index: Index) -> None:
        await index.finish([a_file("1")])
        outcomes = await asyncio.gather(*(index.remove(FileId("id-1")) for _ in range(4)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(File) == 1

    # expired, referenced, usage

    async def test_expired_gives_the_earliest_first_and_none_too_soon(self, index: Index) -> None:
        days = {"never": None, "later": NOON + TICK, "now": NOON, "before": NOON - DAY, "first": NOON - 2 * DAY}
        await index.finish([a_file(name, expires_at=moment) for name, moment in days.items()])
        assert [file.id for file in await index.expired(NOON, 10)] == ["id-first", "id-before", "id-now"]
        assert [file.id for file in await index.expired(NOON, 2)] == ["id-first", "id-before"]

    async def test_referenced_gives_the_keys_that_records_name(self, index: Index) -> None:
        await index.finish([a_file("1"), a_file("2"), a_file("\U0001f600'")])
        await index.remove(FileId("id-2"))
        many = [Key(f"key-{number}") for number in range(1, 40_000)]
        assert await index.referenced([*many, Key("key-\U0001f600'")]) == {"key-1", "key-\U0001f600'"}
        assert await index.referenced(frozenset()) == set()

    async def test_usage_is_exact_after_files_come_and_go(self, index: Index) -> None:
        await index.finish([a_file(str(number), size=10**number) for number in range(6)])
        await index.finish([a_file("b", owner="bob", size=7)])
        await index.remove(FileId("id-2"))
        await index.annotate(FileId("id-3"), lambda file: replace(file, filename="x"))
        assert await index.usage("ada") == Usage(5, 111_011)
        assert await index.usage("bob") == Usage(1, 7)

    async def test_usage_of_one_who_keeps_nothing_is_nothing(self, index: Index) -> None:
        await index.finish([a_file("1")])
        await index.remove(FileId("id-1"))
        assert [await index.usage("ada"), await index.usage("eve")] == [Usage(0, 0)] * 2

    # answers

    async def test_answer_is_what_finish_was_given(self, index: Index) -> None:
        answer = an_answer(a_file("1", metadata={"a": ["b"]}, expires_at=NOON), a_file("2"))
        await index.finish(answer.files, answer)
        assert await index.answer("ada", "key-1", NOON) == answer

    async def test_answer_is_found_by_owner_key_and_moment(self, index: Index) -> None:
        await index.finish([], an_answer())
        assert await index.answer("ada", "key-1", NOON + TICK) is None
        assert await index.answer("ada", "key-2", NOON) is None
        assert await index.answer("bob", "key-1", NOON) is None

    async def test_answer_stays_what_was_told_whatever_becomes_of_the_files(self, index: Index) -> None:
        answer = an_answer(a_file("1"), a_file("2"))
        await index.finish(answer.files, answer)
        await index.remove(FileId("id-1"))
        await index.annotate(FileId("id-2"), lambda file: replace(file, filename="new"))
        assert await index.answer("ada", "key-1", NOON) == answer

    @pytest.mark.parametrize("age", [timedelta(0), DAY, -DAY])
    async def test_an_answer_within_its_day_is_not_replaced(self, index: Index, age: timedelta) -> None:
        first = an_answer(a_file("1"))
        await index.finish(first.files, first)
        with pytest.raises(Rejected):
            await index.finish([a_file("2")], an_answer(fingerprint="print-2", created_at=NOON + age))
        assert await index.answer("ada", "key-1", NOON - DAY) == first
        assert await listed(index) == [a_file("1")]

    async def test_an_answer_older_than_a_day_is_replaced(self, index: Index) -> None:
        await index.finish([a_file("1")], an_answer(a_file("1")))
        second = an_answer(a_file("2"), fingerprint="print-2", created_at=NOON + DAY + TICK)
        await index.finish(second.files, second)
        assert await index.answer("ada", "key-1", NOON) == second

    async def test_of_many_with_one_idempotency_key_one_is_recorded(self, index: Index) -> None:
        finishes = (index.finish([a_file(str(number))], an_answer()) for number in range(10))
        outcomes = await asyncio.gather(*finishes, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Rejected) == 9
        assert len(await listed(index)) == 1

    async def test_forget_drops_what_was_recorded_before(self, index: Index) -> None:
        for age in range(4):
            await index.finish([], an_answer(created_at=NOON - age * TICK, idempotency_key=f"key-{age}"))
        assert await index.forget(NOON - TICK) == 2
        kept = [age for age in range(4) if await index.answer("ada", f"key-{age}", NOON - DAY)]
        assert kept == [0, 1]

    # tokens

    async def test_token_is_found_by_the_hash_of_its_secret(self, index: Index) -> None:
        token = replace(a_token("ci"), expires_at=NOON - DAY)
        await index.add_token(token, "hash-1")
        assert await index.token("hash-1") == token
        assert await index.token("hash-2") is None

    async def test_a_second_token_with_the_same_secret_is_refused(self, index: Index) -> None:
        await index.add_token(a_token("1"), "hash-1")
        with pytest.raises(SpoolError):
            await index.add_token(a_token("2"), "hash-1")

    async def test_tokens_come_oldest_first(self, index: Index) -> None:
        tokens = [a_token(str(age), NOON - age * TICK) for age in range(3)]
        for token in tokens:
            await index.add_token(token, token.id)
        assert list(await index.tokens()) == tokens[::-1]

    async def test_a_revoked_token_is_not_known(self, index: Index) -> None:
        await index.add_token(a_token("1"), "hash-1")
        await index.revoke(TokenId("token-1"))
        assert await index.token("hash-1") is None
        assert list(await index.tokens()) == []
        with pytest.raises(NotFound):
            await index.revoke(TokenId("token-1"))

    # sessions

    async def test_session_is_found_by_the_hash_of_its_secret(self, index: Index) -> None:
        await index.add_token(a_token("ada"), "hash-1")
        await index.set_override(Override("ada", uploads=4))
        session = Session(replace(a_token("ada"), override=Override("ada", uploads=4)), NOON + DAY)
        await index.add_session(session, "session-1", NOON)
        assert await index.session("session-1") == session
        assert await index.session("session-2") is None
        assert await index.session("hash-1") is None

    async def test_session_ends_with_its_token(self, index: Index) -> None:
        for name in ("1", "2"):
            await index.add_token(a_token(name), f"hash-{name}")
            await index.add_session(Session(a_token(name), NOON + DAY), f"session-{name}", NOON)
        await index.revoke(TokenId("token-1"))
        assert await index.session("session-1") is None
        assert await index.session("session-2") is not None

    async def test_session_that_was_ended_is_not_known(self, index: Index) -> None:
        await index.add_token(a_token("1"), "hash-1")
        for name in ("1", "2"):
            await index.add_session(Session(a_token("1"), NOON + DAY), f"session-{name}", NOON)
        await index.end_session("session-1")
        await index.end_session("session-1")
        assert await index.session("session-1") is None
        assert await index.session("session-2") is not None

    async def test_session_of_a_revoked_token_is_refused(self, index: Index) -> None:
        with pytest.raises(NotFound):
            await index.add_session(Session(a_token("1"), NOON + DAY), "session-1", NOON)

    async def test_sessions_that_expired_go_when_another_is_added(self, index: Index) -> None:
        await index.add_token(a_token("1"), "hash-1")
        await index.add_session(Session(a_token("1"), NOON), "session-1", NOON - DAY)
        assert await index.session("session-1") is not None
        await index.add_session(Session(a_token("1"), NOON + DAY), "session-2", NOON)
        assert await index.session("session-1") is None

    async def test_has_tokens_tells_whether_there_is_one(self, index: Index) -> None:
        before = await index.has_tokens()
        await index.add_token(a_token("1"), "hash-1")
        assert [before, await index.has_tokens()] == [False, True]

    # allowances

    async def test_override_is_what_was_set(self, index: Index) -> None:
        override = Override("ada", 2**62, 0, 3, 4)
        await index.set_override(override)
        assert await index.override("ada") == override
        assert await index.override("bob") is None

    async def test_override_keeps_what_the_next_one_leaves_open(self, index: Index) -> None:
        await index.set_override(Override("ada", quota=1, uploads=4))
        await index.set_override(Override("ada", quota=2, quota_files=0))
        assert await index.override("ada") == Override("ada", quota=2, quota_files=0, uploads=4)

    async def test_override_that_is_cleared_is_gone(self, index: Index) -> None:
        await index.set_override(Override("ada", quota=1))
        await index.set_override(Override("bob", quota=1))
        await index.clear_override("ada")
        assert list(await index.overrides()) == [Override("bob", quota=1)]
        with pytest.raises(NotFound):
            await index.clear_override("ada")

    async def test_overrides_come_by_owner(self, index: Index) -> None:
        overrides = [Override(owner, quota=1) for owner in ("bob", "ada", "éva")]
        for override in overrides:
            await index.set_override(override)
        assert list(await index.overrides()) == sorted(overrides, key=lambda override: override.owner)

    async def test_token_comes_with_the_override_of_its_principal(self, index: Index) -> None:
        await index.add_token(a_token("ada"), "hash-1")
        await index.add_token(a_token("bob"), "hash-2")
        await index.set_override(Override("ada", uploads=4))
        assert await index.token("hash-1") == replace(a_token("ada"), override=Override("ada", uploads=4))
        assert await index.token("hash-2") == a_token("bob")

    async def test_window_is_the_last_that_was_kept(self, index: Index) -> None:
        windows = [Window("ada", NOON, 1), Window("bob", NOON + TICK, 2)]
        await index.keep_windows(windows, NOON - DAY)
        await index.keep_windows([Window("ada", NOON + TICK, 3)], NOON - DAY)
        kept = sorted(await index.windows(), key=lambda window: window.owner)
        assert kept == [Window("ada", NOON + TICK, 3), windows[1]]

    async def test_windows_that_are_over_are_gone(self, index: Index) -> None:
        await index.keep_windows([Window("ada", NOON, 1), Window("bob", NOON + TICK, 2)], NOON)
        assert list(await index.windows()) == [Window("bob", NOON + TICK, 2)]

    # the whole

    async def test_secret_is_32_bytes_and_stays(self, index: Index) -> None:
        secret = await index.secret()
        await index.probe()
        assert len(secret) == 32
        assert await index.secret() == secret

    async def test_aclose_does_what_was_asked_and_ends_all(self, index: Index) -> None:
        finish = asyncio.ensure_future(index.finish([a_file("1")]))
        reading = asyncio.ensure_future(index.usage("ada"))
        await asyncio.sleep(0)  # both have asked
        await index.aclose()
        await asyncio.gather(finish, reading)
        with pytest.raises(Unavailable):
            await index.finish([a_file("2")])
        with pytest.raises(Unavailable):
            await index.file(FileId("id-1"))
        await index.aclose()

    # files

    @properties
    @given(files=file_lists(), query=queries)
    async def test_a_walk_is_the_sorted_list_of_what_passes(
        self, index: Index, files: list[File], query: FileQuery
    ) -> None:
        await empty(index)
        await index.finish(files)
        assert await listed(index, query) == expected(files, query)

    @properties
    @given(files=file_lists(), query=queries, changes=st.data())
    async def test_a_walk_meets_once_what_exists_throughout(
        self, index: Index, files: list[File], query: FileQuery, changes: st.DataObject
    ) -> None:
        await empty(index)
        half = len(files) // 2
        throughout, coming, going = files[:half], files[half : -half // 2], files[-half // 2 :]
        await index.finish([*throughout, *going])
        met = []
        async for page in walk(index, query):
            met += page
            if coming and changes.draw(st.booleans()):
                await index.finish([coming.pop()])
            if going and changes.draw(st.booleans()):
                await index.remove(going.pop().id)
        assert len({file.id for file in met}) == len(met)
        assert [file for file in met if file in throughout] == expected(throughout, query)

    async def test_files_of_the_same_moment_come_by_id(self, index: Index) -> None:
        files = [a_file(letter) for letter in "bca"]
        await index.finish(files)
        assert [file.id for file in await listed(index, FileQuery(limit=1))] == ["id-c", "id-b", "id-a"]

    async def test_the_last_full_page_has_no_next(self, index: Index) -> None:
        await index.finish([a_file("1"), a_file("2")])
        assert (await index.files(FileQuery(limit=2))).next is None

    async def test_a_cursor_may_come_with_another_limit(self, index: Index) -> None:
        await index.finish([a_file(letter) for letter in "abc"])
        page = await index.files(FileQuery(limit=1))
        rest = await index.files(FileQuery(limit=9, cursor=page.next))
        assert [file.id for file in rest.items] == ["id-b", "id-a"]

    async def test_a_cursor_is_made_of_url_safe_characters(self, index: Index) -> None:
        await index.finish([a_file(str(number), filename="\U0001f600?>~" * number) for number in range(9)])
        page = await index.files(FileQuery(limit=7, sort="filename", descending=False))
        assert page.next is not None
        assert page.next.replace("-", "a").replace("_", "a").isalnum()

    @pytest.mark.parametrize(
        "other",
        [
            {"sort": "size"},
            {"sort": "filename"},
            {"descending": False},
            {"q": "b"},
            {"q": None},
            {"filename": "a*"},
            {"media_type": "image/*"},
            {"since": NOON},
            {"until": NOON + DAY},
        ],
    )
    async def test_a_cursor_of_another_query_is_refused(self, index: Index, other: dict[str, object]) -> None:
        await index.finish([a_file(letter) for letter in "abc"])
        query = FileQuery(limit=1, q="", filename="*", media_type="*")
        page = await index.files(query)
        with pytest.raises(BadRequest):
            await index.files(replace(query, cursor=page.next, **other))

    @properties
    @given(query=queries, cursor=st.text(max_size=40))
    async def test_a_cursor_that_nobody_gave_is_refused(self, index: Index, query: FileQuery, cursor: str) -> None:
        with pytest.raises(BadRequest):
            await index.files(replace(query, cursor=cursor))

    @properties
    @given(place=st.integers(0, 200), character=st.characters(codec="utf-8"))
    async def test_a_cursor_that_was_tampered_with_gives_a_page_or_is_refused(
        self, index: Index, place: int, character: str
    ) -> None:
        await empty(index)
        await index.finish([a_file(letter) for letter in "abc"])
        cursor = (await index.files(FileQuery(limit=1))).next
        assert cursor is not None
        place %= len(cursor)
        try:
            page = await index.files(FileQuery(cursor=cursor[:place] + character + cursor[place + 1 :]))
        except BadRequest:
            return
        assert len(page.items) <= 3
