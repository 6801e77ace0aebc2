"""The search in large data finds what `bytes.find` finds."""

from __future__ import annotations

from random import Random

import pytest

from spool.protocol.search import find

NEEDLE = b"\r\n--boundary"
LARGE = 200_000


@pytest.mark.parametrize("size", [0, 100, LARGE])
@pytest.mark.parametrize("start", [0, 1, 99])
def test_what_is_not_there_is_not_found(size: int, start: int) -> None:
    assert find(bytes(size), NEEDLE, start) == -1


@pytest.mark.parametrize("at", [0, 1, 70_000, LARGE - len(NEEDLE)])
@pytest.mark.parametrize("start", [0, 1, 65_000, 140_000])
def test_first_occurrence_from_the_start_on_is_found(at: int, start: int) -> None:
    data = bytearray(LARGE)
    data[at : at + len(NEEDLE)] = NEEDLE
    data[150_000 : 150_000 + len(NEEDLE)] = NEEDLE
    assert find(bytes(data), NEEDLE, start) == data.find(NEEDLE, start)


def test_half_of_it_at_the_end_is_not_found() -> None:
    assert find(bytes(LARGE) + NEEDLE[:-1], NEEDLE, 0) == -1


def test_finds_what_find_finds() -> None:
    random = Random(1)
    for _ in range(50):
        data = bytes(random.choices(b"\r\n-", k=70_000)) + random.randbytes(10)
        wanted = bytes(random.choices(b"\r\n-", k=random.randrange(1, 14)))
        start = random.randrange(len(data))
        assert find(data, wanted, start) == data.find(wanted, start)
