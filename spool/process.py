"""What a process asks of the system for itself."""

from __future__ import annotations

import ctypes
import gc
import resource
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_LARGE: Final = 1024 * 1024
"""Bytes from which on an allocation is given back to the system at once: more than a read from a socket takes."""
_MOST_KEPT: Final = 32 * 1024 * 1024
"""Bytes of freed memory that the process keeps: twice what the batches of all uploads share."""

_ALLOCATIONS: Final = 20_000
"""Objects that may be new when the collector of cycles looks through them; it makes little of what requests leave."""


def raise_descriptor_limit() -> None:
    """As many files may be open as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_freed_memory() -> None:
    """Buffers that sockets are read into are used again: glibc gives them back, and then each page costs a fault."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)


def collect_less_often() -> None:
    """The collector of cycles leaves alone what is there now, modules and routes, and looks for new ones more rarely.

    It took a tenth of a small upload. Requests that succeed leave no cycles, so that their bytes never wait for it.
    """
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
