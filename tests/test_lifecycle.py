"""What may become of a resumable upload."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spool import lifecycle
from spool.errors import Gone, InconsistentLength, NotFound, OffsetMismatch, TooLarge
from spool.model import Intent, Key, Principal, Resumable, Staged, UploadId

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ADA = Principal("ada", frozenset({"upload"}))


def upload(length: int | None = None, offset: int = 0, **changes: Any) -> Resumable:
    made = Resumable(
        id=UploadId("u"),
        key=Key("00"),
        owner="ada",
        dialect="tus",
        intent=Intent("a", size=length),
        notes={},
        partial=False,
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        staged=Staged(offset),
        state="open",
        epoch=1,
        media_type=None,
        file_id=None,
    )
    return replace(made, **changes)


def test_upload_is_seen_by_its_owner_in_its_dialect_until_it_expires() -> None:
    made = upload()
    assert lifecycle.visible(made, ADA, "tus", NOW) is made
    with pytest.raises(NotFound):
        lifecycle.visible(made, replace(ADA, name="bob"), "tus", NOW)
    with pytest.raises(NotFound):
        lifecycle.visible(made, ADA, "rufh", NOW)
    with pytest.raises(Gone):
        lifecycle.visible(made, ADA, "tus", made.expires_at)
    with pytest.raises(NotFound):  # others do not even hear that it has expired
        lifecycle.visible(made, replace(ADA, name="bob"), "tus", made.expires_at)


def test_length_is_told_once() -> None:
    made = upload(None, 5)
    assert lifecycle.with_length(made, None, 10) is made
    assert lifecycle.with_length(made, 5, 10).intent.size == 5
    assert lifecycle.with_length(made, 10, 10).intent.size == 10
    known = upload(7, 5)
    assert lifecycle.with_length(known, 7, 10) is known
    for given, length in ((known, 8), (known, 6), (made, 4)):
        with pytest.raises(InconsistentLength):
            lifecycle.with_length(given, length, 10)
    with pytest.raises(TooLarge):
        lifecycle.with_length(made, 11, 10)


def test_length_of_zero_is_a_length() -> None:
    assert lifecycle.with_length(upload(), 0, 10).intent.size == 0
    with pytest.raises(InconsistentLength):
        lifecycle.with_length(upload(0), 1, 10)


@pytest.mark.parametrize("offset", [4, 6])
def test_offset_must_be_where_the_upload_stands(offset: int) -> None:
    lifecycle.require_offset(upload(10, 5), 5)
    with pytest.raises(OffsetMismatch) as refusal:
        lifecycle.require_offset(upload(10, 5), offset)
    assert refusal.value.members == {"expected-offset": 5, "provided-offset": offset}


@pytest.mark.parametrize(
    ("length", "offset", "completes", "whole", "state"),
    [
        (10, 10, None, True, "complete"),
        (10, 10, None, False, "complete"),  # every byte is here, however the request ended
        (10, 9, None, True, "open"),
        (None, 9, None, True, "open"),
        (0, 0, None, True, "complete"),
        (10, 10, True, True, "complete"),
        (None, 9, True, True, "complete"),
        (None, 9, True, False, "open"),
        (10, 9, True, False, "open"),
        (10, 10, False, True, "open"),
        (None, 9, False, True, "open"),
    ],
)
def test_state_after_bytes(*, length: int | None, offset: int, completes: bool | None, whole: bool, state: str) -> None:
    after = lifecycle.advanced(upload(length), Staged(offset), completes, whole=whole)
    assert (after.staged.offset, after.state) == (offset, state)
    assert after.intent.size == (offset if completes and whole else length)


def test_completion_short_of_the_length_is_refused() -> None:
    with pytest.raises(InconsistentLength):
        lifecycle.advanced(upload(10), Staged(9), completes=True, whole=True)
