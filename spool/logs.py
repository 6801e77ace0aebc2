"""One event a line: a stable lower-case name, then key=value, or a JSON object.

Call as `log.info("upload.committed", {"id": id, "size": size})`. Whatever a client sent is escaped, so that no value
can start a line, change a colour or reverse the text of a terminal.
"""

from __future__ import annotations

import codecs
import json
import logging
import sys
import unicodedata
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Of the request on whose behalf the program runs here; each line that is logged meanwhile carries it."""

_ENCODE: Final = json.JSONEncoder(default=str).encode
_UNSAFE: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class TextFormatter(logging.Formatter):
    """`2026-11-25T10:00:00.123Z INFO upload.committed id=... size=...`; values of more than a word are quoted."""

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        pairs = show_pairs(_fields(record))
        return f"{_time(record)} {record.levelname} {_name(record)}{pairs}{_traceback(self, record)}"


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        event = {"time": _time(record), "level": record.levelname.lower(), "event": _name(record), **_fields(record)}
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return _ENCODE(event)


def configure(form: str, level: str, *, pid: bool = False) -> None:
    """Logs of Spool and of its libraries go to standard error. `form` is "text" or "json".

    With `pid` each line says which process it is of.
    """
    codecs.lookup("unicode_escape")  # Python loads it at its first use, and then there may be no descriptor left
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    if pid:
        handler.addFilter(_add_pid)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("spool").setLevel(level.upper())


def _add_pid(record: logging.LogRecord) -> bool:
    if isinstance(record.args, dict):
        record.args = {**record.args, "pid": record.process}
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = dict(record.args) if isinstance(record.args, dict) else {}
    if (name := REQUEST_ID.get()) is not None:
        fields.setdefault("request_id", name)
    return fields


def _name(record: logging.LogRecord) -> str:
    return str(record.msg) if isinstance(record.args, dict) else escape(record.getMessage())


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Indented and escaped: an exception may quote what a client sent."""
    lines = formatter.formatException(record.exc_info).splitlines() if record.exc_info else []
    return "".join(f"\n    {escape(line)}" for line in lines)


def show_pairs(fields: Mapping[str, object]) -> str:
    """` key=value` for each; no value can pass for another one, start a line or act on a terminal."""
    return "".join(f" {key}={_quote(value)}" for key, value in fields.items())


def _quote(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else escape(str(value))
    if text and " " not in text and "=" not in text and '"' not in text:
        return text
    return '"' + text.replace('"', '\\"') + '"'


def escape(text: str) -> str:
    """`text` without characters that a terminal or a line-based tool would act on."""
    if text.isascii() and text.isprintable():
        return text.replace("\\", "\\\\")
    return "".join(
        c if unicodedata.category(c) not in _UNSAFE else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text.replace("\\", "\\\\")
    )
