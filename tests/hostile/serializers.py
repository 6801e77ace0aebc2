"""Teaches schemathesis the media types of resumable uploads, whose bodies are any bytes."""

from __future__ import annotations

import schemathesis


@schemathesis.serializer("application/offset+octet-stream", "application/partial-upload")
def as_bytes(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
