"""Content-Disposition as it arrives (RFC 6266, RFC 7578 §4.2, RFC 8187), and names made harmless.

Strategy: quoted strings are scanned, never split on `;`, because file names contain it. Clients disagree on escaping:
browsers, curl and requests send `%22 %0D %0A` and nothing else; Go, httpx and `curl --form-escape` send backslashes;
old browsers send whole Windows paths, in which a backslash escapes nothing. The rule here reads all of them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from spool.errors import BadRequest

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_KIND: Final = re.compile(rf"\s*({_WORD})\s*")
_PARAMETER: Final = re.compile(
    rf""";\s*({_WORD})\s*=\s*(?:
    "((?:[^"\\]|\\.)*)"(?=\s*(?:;|$))  # a quoted string as RFC 9110 has it
    | "([^"]*)"(?=\s*(?:;|$))          # one whose last character is a backslash that escapes nothing
    | ([^\s;"]+)                       # a token, or what careless senders take for one
    )\s*""",
    re.VERBOSE,
)
_EMPTY_PARAMETER: Final = re.compile(r";\s*(?=;|$)")
_PATH: Final = re.compile(r"[A-Za-z]:\\|\\\\")
_ESCAPED: Final = {"%22": '"', "%0d": "\r", "%0a": "\n"}
_EXTENDED: Final = re.compile(
    r"(utf-8|iso-8859-1)'[^']*'((?:[A-Za-z0-9!#$&+\-.^_`|~]|%[0-9A-Fa-f]{2})*)", re.IGNORECASE
)

_UNSAFE_CATEGORIES: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\s*\..*)?", re.IGNORECASE
)
_MAX_NAME: Final = 255
_MAX_EXTENSION: Final = 16


class Disposition(NamedTuple):
    """A Content-Disposition: its kind in lower case, and the two parameters that mean anything here."""

    kind: str
    name: str | None
    filename: str | None


def parse_disposition(value: str) -> Disposition:
    """Reads a Content-Disposition value. Names are decoded but not yet safe: see `clean_filename`.

    Raises BadRequest if the value cannot be read, or gives a parameter twice.
    """
    kind = _KIND.match(value)
    if not kind:
        raise BadRequest("a part has no Content-Disposition")
    parameters = _parse_parameters(value, kind.end())
    filename = parameters.get("filename")
    extended = parameters.get("filename*")
    if extended is not None:
        filename = _decode_extended(extended) or (extended if filename is None else filename)
    return Disposition(kind[1].lower(), parameters.get("name"), filename)


def _parse_parameters(value: str, at: int) -> dict[str, str]:
    parameters: dict[str, str] = {}
    while at < len(value):
        if empty := _EMPTY_PARAMETER.match(value, at):
            at = empty.end()
            continue
        parameter = _PARAMETER.match(value, at)
        if not parameter:
            raise BadRequest("a part's Content-Disposition is malformed")
        key = parameter[1].lower()
        if key in parameters:
            raise BadRequest(f"a part's Content-Disposition gives {key} twice")
        text = next(text for text in parameter.groups()[1:] if text is not None)
        parameters[key] = text if key.endswith("*") else _decode_value(text)
        at = parameter.end()
    return parameters


def _decode_value(text: str) -> str:
    if not _PATH.match(text):
        text = re.sub(r'\\(["\\])', r"\1", text)
    return re.sub(r"%22|%0[dDaA]", lambda escaped: _ESCAPED[escaped[0].lower()], text)


def _decode_extended(text: str) -> str | None:
    """The value of `filename*` (RFC 8187 §3.2), or None if it is not one."""
    extended = _EXTENDED.fullmatch(text)
    if not extended:
        return None
    try:
        return unquote_to_bytes(extended[2]).decode(extended[1])
    except UnicodeDecodeError:
        return None


def clean_filename(name: str) -> str:
    """A display name from anything a client may send: one path segment, printable, 1 to 255 bytes of UTF-8.

    Idempotent. Control, format (bidi, zero-width) and surrogate characters, path separators and the `:` of Windows
    paths do not survive, nor do names that Windows gives to devices. The result is for people and for
    Content-Disposition; it is never a path on this machine.
    """
    name = re.split(r"[/\\]", name)[-1]
    if not (name.isascii() and name.isprintable()):  # most are, and then neither does anything
        name = "".join(c for c in name if unicodedata.category(c) not in _UNSAFE_CATEGORIES)
        name = unicodedata.normalize("NFC", name)
    name = name.replace(":", "_").strip()
    name = _fit(name)
    return (_fit("_" + name) if _RESERVED.fullmatch(name) else name) or "unnamed"


def _fit(name: str) -> str:
    """At most 255 bytes, without dots and blanks at the end; a short extension survives, and no character is cut."""
    if len(name.encode()) > _MAX_NAME:
        stem, dot, extension = name.rpartition(".")
        suffix = (dot + extension).encode() if stem and len(extension.encode()) <= _MAX_EXTENSION else b""
        head = (stem if suffix else name).encode()[: _MAX_NAME - len(suffix)]
        name = head.decode("utf-8", "ignore") + suffix.decode()
    return re.sub(r"[\s.]+$", "", name)
