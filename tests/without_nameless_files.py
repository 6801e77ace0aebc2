"""`python without_nameless_files.py COMMAND`: runs it as on a file system that has none: open with O_TMPFILE fails."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from itertools import starmap
from typing import Final

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_OPENAT: Final = {"x86_64": 257, "aarch64": 56}
_NAMELESS: Final = 0o20_000_000
"""O_TMPFILE, but for O_DIRECTORY."""
_LOAD, _IF_EQUAL, _IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_FAIL, _ALLOW = 0x0005_0000, 0x7FFF_0000


def _refuse() -> None:
    """For this process and what it becomes, by a filter of its system calls: seccomp(2)."""
    program = (
        (_LOAD, 0, 0, 0),  # the call's number
        (_IF_EQUAL, 0, 3, _OPENAT[os.uname().machine]),
        (_LOAD, 0, 0, 32),  # the lower half of its third argument, the flags
        (_IF_ANY, 0, 1, _NAMELESS),
        (_RETURN, 0, 0, _FAIL | errno.EOPNOTSUPP),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(starmap(struct.Struct("HBBI").pack, program)))
    described = struct.pack("HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, described, 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    _refuse()
    os.execvp(sys.argv[1], sys.argv[1:])  # what it is for
