"""What every index promises about resumable uploads. A back-end's tests subclass UploadsSuite and give it `index`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.errors import NotFound, Rejected, SpoolError, Superseded
from spool.model import FileId, Intent, Key, Resumable, Staged, UploadId, Usage

from .index_suite import DAY, NOON, TICK, a_file, an_answer, listed, properties
from .uploads_model import EVER, Model, an_upload, clear, complete, file_of, finished

if TYPE_CHECKING:
    from spool.ports import Index


class UploadsSuite:
    @pytest.fixture
    def index(self) -> Index:
        raise NotImplementedError

    # add_upload, upload

    @pytest.mark.parametrize("size", [None, 0, 1 << 50])
    async def test_add_upload_records_every_member(self, index: Index, size: int | None) -> None:
        intent = Intent(
            "Ärger \U0001f600\0\n'\"%.jpg",
            size,
            "image/png",
            {"sha-256": bytes(range(32)), "sha-512": b""},
            {"title": "\U0001f3b5", "tag": ["b", "a", "b"], "": ""},
            NOON + TICK,
        )
        upload = an_upload(
            "1",
            intent=intent,
            notes={"Upload-Metadata": "filename d29ybGQ=,é", "": "\0"},
            partial=True,
            created_at=NOON + TICK,
            expires_at=NOON + DAY + TICK,
            staged=Staged(7, "the store's \U0001f600 own"),
            epoch=3,
            media_type="image/jpeg",
        )
        await index.add_upload(upload)
        assert await index.upload(upload.id) == upload

    async def test_add_upload_keeps_the_order_of_metadata_and_notes(self, index: Index) -> None:
        words = {"z": "1", "a": "2", "m": "3"}
        await index.add_upload(an_upload("1", intent=Intent("1", metadata=dict(words)), notes=words))
        upload = await index.upload(UploadId("up-1"))
        assert list(upload.intent.metadata) == list(upload.notes) == ["z", "a", "m"]

    @pytest.mark.parametrize("changes", [{"key": Key("other")}, {"id": UploadId("other")}])
    async def test_a_second_upload_of_the_same_id_or_blob_is_refused(
        self, index: Index, changes: dict[str, object]
    ) -> None:
        await index.add_upload(an_upload("1"))
        with pytest.raises(SpoolError):
            await index.add_upload(replace(an_upload("1"), **changes))
        assert await index.usage("ada") == Usage(0, 100, 1)
        assert await index.promised() == 100

    async def test_upload_that_is_not_there_is_not_found(self, index: Index) -> None:
        with pytest.raises(NotFound):
            await index.upload(UploadId("up-1"))

    # claim, advance

    async def test_claim_raises_the_epoch_and_nothing_else(self, index: Index) -> None:
        await index.add_upload(an_upload("1"))
        assert await index.claim(UploadId("up-1")) == an_upload("1", epoch=1)
        assert await index.claim(UploadId("up-1")) == an_upload("1", epoch=2) == await index.upload(UploadId("up-1"))

    async def test_claim_of_a_missing_upload_is_not_found(self, index: Index) -> None:
        with pytest.raises(NotFound):
            await index.claim(UploadId("up-1"))

    async def test_claims_at_once_get_an_epoch_each(self, index: Index) -> None:
        await index.add_upload(an_upload("1"))
        claims = await asyncio.gather(*(index.claim(UploadId("up-1")) for _ in range(50)))
        assert sorted(upload.epoch for upload in claims) == list(range(1, 51))

    async def test_advance_changes_what_may_change(self, index: Index) -> None:
        await index.add_upload(an_upload("1", size=None))
        after = an_upload(
            "1",
            intent=Intent("new", 9, "image/png", {"sha-256": b"\xff"}, {"a": ["b", "c"]}, NOON),
            expires_at=NOON + 2 * DAY,
            staged=Staged(9, "own"),
            state="complete",
            media_type="image/jpeg",
        )
        await index.advance(after)
        assert await index.upload(after.id) == after

    async def test_advance_changes_nothing_else(self, index: Index) -> None:
        before = an_upload("1")
        await index.add_upload(before)
        other = replace(before, key=Key("x"), owner="bob", dialect="x", notes={"a": "b"}, partial=True, created_at=EVER)
        await index.advance(other)
        assert await index.upload(before.id) == before

    async def test_advance_changes_no_other_upload(self, index: Index) -> None:
        await index.add_upload(an_upload("1"))
        await index.add_upload(an_upload("2"))
        await index.advance(an_upload("1", offset=5))
        assert await index.upload(UploadId("up-2")) == an_upload("2")

    async def test_advance_of_an_older_epoch_is_superseded_and_changes_nothing(self, index: Index) -> None:
        await index.add_upload(an_upload("1"))
        older, newer = await index.claim(UploadId("up-1")), await index.claim(UploadId("up-1"))
        with pytest.raises(Superseded):
            await index.advance(replace(older, staged=Staged(50), state="complete", expires_at=EVER))
        assert await index.upload(UploadId("up-1")) == newer
        assert [await index.usage("ada"), await index.promised()] == [Usage(0, 100, 1), 100]
        await index.advance(replace(newer, staged=Staged(10)))
        assert await index.promised() == 90

    async def test_advance_of_a_newer_epoch_or_a_missing_upload_is_superseded(self, index: Index) -> None:
        with pytest.raises(Superseded):
            await index.advance(an_upload("1"))
        await index.add_upload(an_upload("1"))
        with pytest.raises(Superseded):
            await index.advance(an_upload("1", offset=7, epoch=1))
        assert await index.upload(UploadId("up-1")) == an_upload("1")

    async def test_advance_completes_even_if_the_caller_is_cancelled(self, index: Index) -> None:
        uploads = [an_upload(str(number)) for number in range(5)]
        for upload in uploads:
            await index.add_upload(upload)
        callers = [asyncio.ensure_future(index.advance(replace(upload, staged=Staged(7)))) for upload in uploads]
        await asyncio.sleep(0)  # each has asked
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await index.probe()  # comes after what was asked before
        assert [(await index.upload(upload.id)).staged.offset for upload in uploads] == [7] * 5

    async def test_of_claims_and_advances_at_once_only_the_latest_claim_advances(self, index: Index) -> None:
        await index.add_upload(an_upload("1", size=1_000))

        async def continue_upload(offset: int) -> int:
            upload = await index.claim(UploadId("up-1"))
            await asyncio.sleep(0)
            await index.advance(replace(upload, staged=Staged(offset)))
            return upload.epoch

        outcomes = await asyncio.gather(*map(continue_upload, range(1, 31)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {int, Superseded}
        assert outcomes[29] == 30
        assert (await index.upload(UploadId("up-1"))).staged.offset == 30

    # finish

    async def test_finish_turns_a_complete_upload_into_its_file(self, index: Index) -> None:
        upload = complete("1", epoch=2)
        await index.add_upload(upload)
        answer = an_answer(file_of(upload))
        await index.finish([file_of(upload)], answer, upload)
        assert await index.upload(upload.id) == finished(upload)
        assert await listed(index) == [file_of(upload)]
        assert await index.answer("ada", "key-1", NOON) == answer

    @pytest.mark.parametrize(
        ("row", "asked"),
        [
            (an_upload("1"), an_upload("1")),
            (an_upload("1"), complete("1")),
            (complete("1", epoch=2), complete("1", epoch=1)),
            (complete("1", epoch=1), complete("1", epoch=2)),
            (complete("2"), complete("1")),
        ],
    )
    async def test_finish_of_a_row_that_is_not_complete_at_its_epoch_is_superseded(
        self, index: Index, row: Resumable, asked: Resumable
    ) -> None:
        await index.add_upload(row)
        with pytest.raises(Superseded):
            await index.finish([file_of(asked)], an_answer(), asked)
        assert await index.upload(row.id) == row
        assert await listed(index) == []
        assert await index.answer("ada", "key-1", NOON) is None
        assert await index.usage("ada") == Usage(0, 100, 1)

    async def test_finish_that_is_refused_leaves_the_upload_as_it_was(self, index: Index) -> None:
        await index.finish([], an_answer())
        await index.finish([a_file("1", key=Key("other"))])
        for name in "12":
            await index.add_upload(complete(name))
        with pytest.raises(SpoolError):
            await index.finish([file_of(complete("1"))], None, complete("1"))
        with pytest.raises(Rejected):
            await index.finish([file_of(complete("2"))], an_answer(), complete("2"))
        assert [await index.upload(UploadId(f"up-{name}")) for name in "12"] == [complete("1"), complete("2")]
        assert await index.usage("ada") == Usage(1, 300, 2)

    async def test_of_many_that_finish_an_upload_one_does(self, index: Index) -> None:
        await index.add_upload(complete("1"))
        files = [replace(file_of(complete("1")), id=FileId(f"id-{number}")) for number in range(10)]
        finishes = (index.finish([file], None, complete("1")) for file in files)
        outcomes = await asyncio.gather(*finishes, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Superseded) == 9
        assert [file.id for file in await listed(index)] == [(await index.upload(UploadId("up-1"))).file_id]

    async def test_a_finished_upload_outlives_its_file(self, index: Index) -> None:
        await index.add_upload(complete("1"))
        await index.finish([file_of(complete("1"))], None, complete("1"))
        await index.remove(FileId("id-1"))
        assert await index.upload(UploadId("up-1")) == finished(complete("1"))

    async def test_finish_without_an_upload_leaves_all_uploads_alone(self, index: Index) -> None:
        await index.add_upload(complete("1"))
        await index.finish([a_file("2")])
        assert await index.upload(UploadId("up-1")) == complete("1")

    # drop, stale, unfinished

    async def test_drop_returns_what_was_and_is_for_good(self, index: Index) -> None:
        await index.add_upload(an_upload("1", epoch=4))
        await index.add_upload(an_upload("2"))
        assert await index.drop(UploadId("up-1")) == an_upload("1", epoch=4)
        assert await index.upload(UploadId("up-2")) == an_upload("2")
        for verb in (index.drop, index.upload, index.claim):
            with pytest.raises(NotFound):
                await verb(UploadId("up-1"))

    async def test_of_two_that_drop_an_upload_one_gets_it(self, index: Index) -> None:
        await index.add_upload(an_upload("1"))
        outcomes = await asyncio.gather(*(index.drop(UploadId("up-1")) for _ in range(4)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Resumable) == 1

    async def test_stale_gives_the_earliest_first_in_any_state_and_none_too_soon(self, index: Index) -> None:
        uploads = [
            an_upload("later", expires_at=NOON + TICK),
            an_upload("now", expires_at=NOON),
            complete("before", expires_at=NOON - DAY, partial=True),
            complete("first", expires_at=NOON - 2 * DAY),
        ]
        for upload in uploads:
            await index.add_upload(upload)
        await index.finish([file_of(uploads[3])], None, uploads[3])
        expected = [finished(uploads[3]), uploads[2], uploads[1]]
        assert list(await index.stale(NOON, 10)) == expected
        assert list(await index.stale(NOON, 2)) == expected[:2]

    async def test_stale_follows_an_expiry_that_was_put_off(self, index: Index) -> None:
        await index.add_upload(an_upload("1", expires_at=NOON))
        await index.advance(an_upload("1", expires_at=NOON + TICK))
        assert list(await index.stale(NOON, 10)) == []
        assert list(await index.stale(NOON + TICK, 10)) == [an_upload("1", expires_at=NOON + TICK)]

    async def test_unfinished_gives_complete_uploads_that_are_not_partial(self, index: Index) -> None:
        uploads = [
            an_upload("open", offset=100),
            complete("partial", partial=True),
            complete("second", created_at=NOON + TICK),
            complete("first"),
            complete("done"),
        ]
        for upload in uploads:
            await index.add_upload(upload)
        await index.finish([file_of(uploads[4])], None, uploads[4])
        assert list(await index.unfinished(10)) == [uploads[3], uploads[2]]
        assert list(await index.unfinished(1)) == [uploads[3]]

    # referenced, usage, promised

    async def test_referenced_includes_uploads_that_are_not_finished(self, index: Index) -> None:
        uploads = [an_upload("open"), complete("complete"), complete("done"), complete("removed"), an_upload("dropped")]
        for upload in uploads:
            await index.add_upload(upload)
        for upload in uploads[2:4]:
            await index.finish([file_of(upload)], None, upload)
        await index.remove(FileId("id-removed"))
        await index.drop(UploadId("up-dropped"))
        keys = [upload.key for upload in uploads]
        assert await index.referenced([*keys, Key("other")]) == {"key-open", "key-complete", "key-done"}

    async def test_a_key_is_referenced_throughout_finish(self, index: Index) -> None:
        uploads = [complete(f"{number:02}") for number in range(40)]
        keys = {upload.key for upload in uploads}
        for upload in uploads:
            await index.add_upload(upload)
        finishes = [index.finish([file_of(upload)], None, upload) for upload in uploads]
        asked = await asyncio.gather(*finishes, *(index.referenced(keys) for _ in range(60)))
        assert all(found == keys for found in asked[40:])

    async def test_what_is_kept_stays_the_same_throughout_finish(self, index: Index) -> None:
        uploads = [complete(f"{number:02}") for number in range(40)]
        for upload in uploads:
            await index.add_upload(upload)
        finishes = [index.finish([file_of(upload)], None, upload) for upload in uploads]
        asked = await asyncio.gather(*finishes, *(index.usage("ada") for _ in range(60)))
        assert {usage.size for usage in asked[40:]} == {4_000}

    async def test_an_upload_counts_with_its_length_or_else_its_offset(self, index: Index) -> None:
        await index.add_upload(an_upload("1", size=100, offset=30))
        await index.add_upload(an_upload("2", size=None, offset=7))
        await index.add_upload(complete("3", size=50, partial=True))
        await index.add_upload(an_upload("4", size=1_000, owner="bob"))
        assert [await index.usage("ada"), await index.usage("bob")] == [Usage(0, 157, 3), Usage(0, 1_000, 1)]
        assert await index.promised() == 70 + 1_000

    async def test_promised_is_nothing_at_first(self, index: Index) -> None:
        assert await index.promised() == 0

    @properties
    @given(data=st.data())
    async def test_usage_and_promised_are_exact_whatever_happens(self, index: Index, data: st.DataObject) -> None:
        await clear(index)
        model = Model(index, data)
        for _ in range(data.draw(st.integers(0, 25))):
            await data.draw(st.sampled_from(model.steps()))()
            for owner in ("ada", "bob"):
                assert await index.usage(owner) == model.usage(owner)
            assert await index.promised() == model.promised()
