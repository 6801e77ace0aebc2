"""How a value is written in the configuration: sizes, durations, lists, and what may stand in for them as text."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Network = IPv4Network | IPv6Network


class Kind(NamedTuple):
    """How a value is written: what it may look like, how it is read from TOML or text, and how it is shown."""

    description: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], str]


def _parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  # ValueError stands for every value that cannot be read
    return value


def _parse_number(value: object) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)):
        raise ValueError
    return int(str(value))


_SIZES: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_LARGEST: Final = 10**18 - 1
"""What 18 digits can say, so that a size which is shown can be read back."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST: Final = 1000 * 365 * 86400


def _parse_size(value: object) -> int:
    match = re.fullmatch(r"(\d{1,18})\s*([a-z]*)", str(value).strip().lower())
    if isinstance(value, bool) or not match or match[2] not in _SIZES:
        raise ValueError
    size = int(match[1]) * _SIZES[match[2]]
    if size > _LARGEST:
        raise ValueError
    return size


def _show_size(size: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit.lower()] == 0:
            return f"{size // _SIZES[unit.lower()]} {unit}"
    return str(size)


def parse_duration(value: object) -> timedelta:
    """A number of seconds, or one with a unit: "30s", "15m", "12h", "7d"; at most 1000 years. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,12})\s*([smhdw]?)", str(value).strip().lower())
    if isinstance(value, bool) or not match:
        raise ValueError
    seconds = int(match[1]) * _SECONDS[match[2] or "s"]
    if seconds > _LONGEST:
        raise ValueError
    return timedelta(seconds=seconds)


def _parse_positive_duration(value: object) -> timedelta:
    duration = parse_duration(value)
    if not duration:
        raise ValueError
    return duration


def _show_duration(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def _parse_list(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004
    return tuple(_parse_text(item) for item in value)


def _parse_port(value: object) -> int:
    port = _parse_number(value)
    if not 0 <= port <= 65535:  # noqa: PLR2004
        raise ValueError
    return port


def _parse_count(value: object) -> int:
    count = _parse_number(value)
    if count < 1:
        raise ValueError
    return count


def _parse_workers(value: object) -> int:
    count = _parse_count(value)
    if count > 64:  # noqa: PLR2004
        raise ValueError
    return count


def _parse_switch(value: object) -> bool:
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _parse_url(value: object) -> str:
    url = _parse_text(value).rstrip("/")
    if url and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise ValueError
    return url


def choice(*words: str) -> Kind:
    """One of these words, as they stand."""

    def parse(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(f'"{word}"' for word in words), parse, _show_text)


def _show_text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)  # a JSON text is a TOML text


def _show_list(values: tuple[object, ...]) -> str:
    return "[" + ", ".join(_show_text(value) for value in values) + "]"


TEXT: Final = Kind("a text", _parse_text, _show_text)
URL: Final = Kind('an address such as "https://media.example.org"', _parse_url, _show_text)
SWITCH: Final = Kind("true or false", _parse_switch, lambda on: "true" if on else "false")
PORT: Final = Kind("a port from 0 to 65535", _parse_port, str)
COUNT: Final = Kind("a number from 1 up", _parse_count, str)
WORKERS: Final = Kind("a number from 1 to 64", _parse_workers, str)
LIMIT: Final = Kind("a number, or 0 for no limit", _parse_number, str)
SIZE: Final = Kind('a size such as "64 KiB" or "10 GB"', _parse_size, lambda size: _show_text(_show_size(size)))
DURATION: Final = Kind(
    'a duration such as "30s", "15m" or "7d"', _parse_positive_duration, lambda d: _show_text(_show_duration(d))
)
LIFETIME: Final = Kind(
    'a duration such as "7d", or "0" for ever', parse_duration, lambda d: _show_text(_show_duration(d))
)
INTERVAL: Final = Kind(
    'a duration such as "7d", or "0" for never', parse_duration, lambda d: _show_text(_show_duration(d))
)
GRACE: Final = Kind(
    'a duration such as "10m", or "0" for none', parse_duration, lambda d: _show_text(_show_duration(d))
)
PATH: Final = Kind("a path", lambda value: Path(_parse_text(value)), _show_text)
LIST: Final = Kind("a list of texts", _parse_list, _show_list)
NETWORKS: Final = Kind(
    'a list of networks such as ["10.0.0.0/8"]',
    lambda value: tuple(ip_network(item) for item in _parse_list(value)),
    _show_list,
)
