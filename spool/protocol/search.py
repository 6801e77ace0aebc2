"""Finds bytes in large data.

Strategy: the C library's memmem takes half as long as `bytes.find`, and other threads run meanwhile. For what is small,
or where there is no memmem, `bytes.find` does.
"""

from __future__ import annotations

import ctypes
from typing import Final

_LARGE: Final = 64 * 1024
_memmem = getattr(ctypes.CDLL(None), "memmem", None)
if _memmem is not None:
    _memmem.restype = ctypes.c_void_p
    _memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def find(data: bytes, wanted: bytes, start: int) -> int:
    """As `data.find(wanted, start)` does, for a `start` that is not negative."""
    if _memmem is None or len(data) - start < _LARGE:
        return data.find(wanted, start)
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    found: int | None = _memmem(address + start, len(data) - start, wanted, len(wanted))
    return -1 if found is None else found - address
