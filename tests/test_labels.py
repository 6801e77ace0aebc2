from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.labels import parse_label, to_label
from spool.model import FileId, Key, Label
from tests.store.index_suite import NOON, a_file

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts, texts, st.none() | texts, st.dictionaries(texts, texts | st.lists(texts, max_size=3), max_size=4))
def test_label_tells_all_of_the_record(
    owner: str, name: str, declared: str | None, metadata: dict[str, object]
) -> None:
    file = a_file("1", owner=owner, filename=name, declared_type=declared, metadata=metadata, expires_at=NOON)
    assert parse_label(to_label(file), file.key) == file


def test_label_of_many_metadata_is_without_them() -> None:
    file = a_file("1", metadata={str(n): "x" * 100 for n in range(100)}, created_at=NOON + timedelta(microseconds=1))
    label = to_label(file)
    assert len(label.text) < 1000
    assert parse_label(label, file.key) == replace(file, metadata={})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        to_label(a_file("1")).text.replace(b"100", b'"100"'),
        to_label(a_file("1")).text.replace(b"+00:00", b""),
        to_label(a_file("1")).text.replace(b"null", b"1"),
        to_label(a_file("1")).text[:-1],
    ],
)
def test_text_of_another_shape_is_no_label(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
        parse_label(Label(FileId("1"), text), Key("key"))
