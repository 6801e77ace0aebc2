from __future__ import annotations

import tomllib
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.units import (
    COUNT,
    DURATION,
    LIFETIME,
    LIST,
    NETWORKS,
    PATH,
    PORT,
    SIZE,
    TEXT,
    URL,
    choice,
    parse_duration,
)

if TYPE_CHECKING:
    from spool.units import Kind

WORD = choice("", "text", "json")

# What a TOML string may hold without an escape other than for the quote and the backslash.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")))


def from_toml(value: str) -> Any:  # whatever TOML holds
    return tomllib.loads(f"value = {value}")["value"]


def reread(kind: Kind, value: object) -> object:
    """The value, shown, read as TOML and parsed again."""
    return kind.parse(from_toml(kind.show(value)))


@given(st.integers(0, 10**17))
def test_size_is_read_as_it_is_shown(size: int) -> None:
    assert reread(SIZE, size) == size


@given(st.integers(1, 999_999_999))
def test_duration_is_read_as_it_is_shown(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert reread(DURATION, duration) == reread(LIFETIME, duration) == duration


@given(st.integers(0, 65535))
def test_port_is_read_as_it_is_shown(port: int) -> None:
    assert reread(PORT, port) == PORT.parse(str(port)) == port


@given(texts)
def test_text_is_read_as_it_is_shown(text: str) -> None:
    assert reread(TEXT, text) == text


@given(texts)
def test_path_is_read_as_it_is_shown(text: str) -> None:
    assert reread(PATH, Path(text)) == Path(text)


@given(st.lists(texts.filter(bool)))
def test_list_is_read_as_it_is_shown(items: list[str]) -> None:
    assert reread(LIST, tuple(items)) == tuple(items)


@given(
    st.lists(
        st.builds(lambda n, p: IPv4Network((n, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32))
        | st.builds(lambda n, p: IPv6Network((n, p), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128))
    )
)
def test_networks_are_read_as_they_are_shown(networks: list[IPv4Network | IPv6Network]) -> None:
    assert reread(NETWORKS, tuple(networks)) == tuple(networks)


@pytest.mark.parametrize("word", ["", "text", "json"])
def test_choice_is_read_as_it_is_shown(word: str) -> None:
    assert reread(WORD, word) == word


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        (4096, 4096),
        ("64 KiB", 65536),
        ("64kib", 65536),
        (" 1 MiB ", 2**20),
        ("10 GB", 10**10),
        ("2TB", 2 * 10**12),
        ("3 TiB", 3 * 2**40),
        ("7 B", 7),
    ],
)
def test_size_is_read_as_people_write_it(written: object, size: int) -> None:
    assert SIZE.parse(written) == size


@pytest.mark.parametrize("written", ["1000000000000000000", "1000000 TB", "999999999999999999 TiB"])
def test_size_that_cannot_be_shown_is_refused(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        SIZE.parse(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        (30, 30),
        ("30", 30),
        ("365000d", 31_536_000_000),
        ("15m", 900),
        ("12 h", 43200),
        ("7d", 604800),
        ("2W", 1209600),
    ],
)
def test_duration_is_read_as_people_write_it(written: object, seconds: int) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, '"0"'), (1, '"1"'), (1024, '"1 KiB"'), (1536, '"1536"'), (2**40, '"1 TiB"')]
)
def test_size_is_shown_in_its_largest_whole_unit(size: int, shown: str) -> None:
    assert SIZE.show(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, '"0s"'), (1, '"1s"'), (60, '"1m"'), (90, '"90s"'), (86400, '"1d"'), (604800, '"7d"')]
)
def test_duration_is_shown_in_its_largest_whole_unit(seconds: int, shown: str) -> None:
    assert LIFETIME.show(timedelta(seconds=seconds)) == shown


def test_list_of_a_variable_is_separated_by_commas() -> None:
    assert LIST.parse(" audio/*, video/* ,,") == ("audio/*", "video/*")


def test_address_loses_its_last_slash() -> None:
    assert URL.parse("https://media.example.org/spool/") == "https://media.example.org/spool"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((SIZE, bad) for bad in ("", "-1", "1.5 GiB", "1 PiB", "GiB", "1 Gi B", True, -1, 1.5, [], "9" * 19)),
        *((DURATION, bad) for bad in ("", "0", 0, "-1s", "1.5h", "1y", "1h30m", True, [], "365001d", "9" * 13)),
        *((LIFETIME, bad) for bad in ("", "for ever", "-1", False, "999999999w")),
        *((PORT, bad) for bad in (-1, 65536, "", "http", "80.0", 80.0, True, None)),
        *((COUNT, bad) for bad in (0, "0", -1, "many", 1.0, True)),
        *((TEXT, bad) for bad in (1, True, [], None)),
        *((PATH, bad) for bad in (1, [])),
        *((LIST, bad) for bad in (1, ["a", 1], {"a": 1}, None)),
        *((NETWORKS, bad) for bad in ("10.0.0.1/8", "10.0.0.0/33", "everywhere", ["::1/0"], [1], 7)),
        *(
            (URL, bad)
            for bad in ("media.example.org", "ftp://x", "https://", "https://x/?q", "https://x#y", "https://a b")
        ),
        *((WORD, bad) for bad in ("TEXT", "xml", 1, None, ["text"])),
    ],
)
def test_value_that_is_not_of_its_kind_is_refused(kind: Kind, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the message is config's to write
        kind.parse(value)
