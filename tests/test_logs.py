from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import unicodedata
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.logs import REQUEST_ID, JsonFormatter, TextFormatter, escape

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TIME = 1_772_366_400.123
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that a terminal or a line-based tool acts on."""


def a_record(name: str, *arguments: object, **changes: object) -> logging.LogRecord:
    record = logging.LogRecord("spool.test", logging.INFO, __file__, 1, name, arguments, None)
    record.created = TIME
    record.__dict__.update(changes)
    return record


def as_text(name: str, *arguments: object, **changes: object) -> str:
    return TextFormatter().format(a_record(name, *arguments, **changes))


def as_json(name: str, *arguments: object, **changes: object) -> dict[str, object]:
    line = JsonFormatter().format(a_record(name, *arguments, **changes))
    assert "\n" not in line
    assert line.isascii()
    return json.loads(line)


def fail(message: str) -> None:
    raise ValueError(message)


def failure(message: str) -> object:
    try:
        fail(message)
    except ValueError:
        return sys.exc_info()


def test_line_is_time_level_event_and_fields() -> None:
    line = as_text("upload.committed", {"id": "ab12", "size": 7, "seconds": 0.12345})
    assert line == "2026-03-01T12:00:00.123Z INFO upload.committed id=ab12 size=7 seconds=0.123"


def test_event_without_fields_is_a_line() -> None:
    assert as_text("server.stopped") == "2026-03-01T12:00:00.123Z INFO server.stopped"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("", '""'),
        ("back\\slash", "back\\\\slash"),
        ("new\nline", r"new\nline"),
        ("\r\n2026-03-01T12:00:00.000Z INFO forged", r'"\r\n2026-03-01T12:00:00.000Z INFO forged"'),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("a\u200bb", r"a\u200bb"),
        ("\x00\x7f\x85", r"\x00\x7f\x85"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff", r"\udcff"),
        ("Grüße", "Grüße"),
        (None, "None"),
    ],
)
def test_value_is_escaped(value: object, shown: str) -> None:
    assert as_text("event", {"k": value}).removeprefix("2026-03-01T12:00:00.123Z INFO event ") == f"k={shown}"


@given(st.text(st.characters()))
def test_no_value_acts_on_a_terminal_or_starts_a_line(value: str) -> None:
    line = as_text("event", {"k": value, "last": 1})
    assert {unicodedata.category(c) for c in line} & ACTING == set()
    assert len(line.splitlines()) == 1
    assert line.endswith(" last=1")


@given(st.text(st.characters()))
def test_quoted_value_ends_where_it_ends(value: str) -> None:
    line = as_text("event", {"k": value, "last": 1})
    assert re.fullmatch(r'\S+ INFO event k=(?:[^"=\\ ]|\\.)+ last=1|\S+ INFO event k="(?:[^"\\]|\\.)*" last=1', line)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_escaped_text_can_be_read_back(text: str) -> None:
    assert re.sub(r"\\(?:\\|[tnr]|x..|u....|U.{8})", _unescaped, escape(text)) == text


def _unescaped(match: re.Match[str]) -> str:
    return match[0].encode("ascii").decode("unicode_escape")


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_json_line_holds_the_value_as_it_is(value: str) -> None:
    event = as_json("upload.committed", {"filename": value})
    assert event == {
        "time": "2026-03-01T12:00:00.123Z",
        "level": "info",
        "event": "upload.committed",
        "filename": value,
    }


@given(st.text(st.characters()))
def test_json_line_can_be_parsed_whatever_it_holds(value: str) -> None:
    as_json("event", {"k": value, "path": object()})


def in_request(name: str, work: Callable[[], T]) -> T:
    """What `work` returns on behalf of a request."""

    def run() -> T:
        REQUEST_ID.set(name)
        return work()

    return copy_context().run(run)


def test_line_of_a_request_has_its_id() -> None:
    assert in_request("ab12", lambda: as_text("blob.left", {"reason": "x"})).endswith(" reason=x request_id=ab12")
    assert in_request("ab12", lambda: as_json("blob.left", {"reason": "x"}))["request_id"] == "ab12"


def test_line_of_a_request_has_one_id() -> None:
    assert in_request("ab12", lambda: as_text("event", {"request_id": "cd34"})).count("request_id") == 1


def test_line_of_a_library_has_the_id_of_the_request_too() -> None:
    assert in_request("ab12", lambda: as_text("bad %s", "luck")).endswith("bad luck request_id=ab12")


def test_line_of_no_request_has_no_id() -> None:
    in_request("ab12", lambda: as_text("event"))
    assert "request_id" not in as_text("event")


def test_message_of_a_library_is_escaped() -> None:
    assert as_text("bad %s", "a\nb").endswith(r"INFO bad a\nb")
    assert as_json("bad %s", "a\x1bb")["event"] == r"bad a\x1bb"


def test_traceback_follows_the_line() -> None:
    lines = as_text("request.failed", {"path": "/"}, exc_info=failure("broken")).splitlines()
    assert lines[0].endswith("request.failed path=/")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: broken"


def test_traceback_is_a_member_in_json() -> None:
    event = as_json("request.failed", {"path": "/"}, exc_info=failure("broken"))
    assert str(event["traceback"]).strip().startswith("Traceback")
    assert str(event["traceback"]).endswith("ValueError: broken")


def test_traceback_starts_no_forged_line() -> None:
    forged = "2026-03-01T12:00:00.123Z INFO upload.committed id=forged"
    lines = as_text("request.failed", {"path": "/"}, exc_info=failure(f"\x1b[31m\n{forged}")).splitlines()
    assert forged not in lines
    assert not any("\x1b" in line for line in lines)


def logged(form: str, level: str) -> list[str]:
    """What a program that logs at every level writes to standard error."""
    program = f"""
import logging
from spool import logs
logs.configure({form!r}, {level!r})
for name in ("spool.ingest", "aiohttp"):
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger(name), level)(level, {{"of": name}})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_level_is_the_least_that_is_logged() -> None:
    assert [line.split()[2] for line in logged("text", "warning") if "spool" in line] == ["warning", "error"]


def test_libraries_are_heard_from_warnings_on() -> None:
    assert [line.split()[2] for line in logged("text", "debug") if "aiohttp" in line] == ["warning", "error"]


def test_json_is_one_object_a_line() -> None:
    events = [json.loads(line) for line in logged("json", "info")]
    assert [event["event"] for event in events if event["of"] == "spool.ingest"] == ["info", "warning", "error"]
