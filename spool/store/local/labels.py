"""Labels of local blobs, in their extended attributes `user.spool.<file id>`. Everything here blocks.

They are written just before the blob is linked, and not synced: a file system with a journal keeps them as it keeps the
link. Nothing relies on them but an operator who has lost the index.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from spool.model import FileId, Label

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX: Final = "user.spool."
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE)
_TOO_MANY: Final = (errno.E2BIG, errno.ERANGE)
_MOST_NAMES: Final = 60_000
"""Bytes of the names of all attributes of a file: Linux lists 65,536, and of a file that has more it lists none."""
_NO_LABELS: Final = (errno.ENOTSUP, errno.EPERM, errno.EROFS)
_NOTHING_THERE: Final = (errno.ENODATA, errno.ENOENT)


def set_label(file: int | str, file_id: FileId, text: bytes | None) -> None:
    """The open file, or the one at this path, has the label, or none for this id; see `Labels.label`."""
    if not hasattr(os, "setxattr"):
        return
    try:
        if text is None:
            os.removexattr(file, _PREFIX + file_id, follow_symlinks=_is_open(file))
        else:
            os.setxattr(file, _PREFIX + file_id, text, follow_symlinks=_is_open(file))
    except OSError as error:
        if error.errno not in (*_NO_ROOM, *_NO_LABELS, *_NOTHING_THERE):
            raise


def change_label(path: str, file_id: FileId, text: bytes | None) -> None:
    """As `set_label`, for a blob that may have any number of them: there is room as long as all can be listed."""
    if text is None or _has_room(path, _PREFIX + file_id):
        set_label(path, file_id, text)


def _has_room(path: str, name: str) -> bool:
    if not hasattr(os, "listxattr"):
        return False
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_TOO_MANY, *_NO_LABELS, *_NOTHING_THERE):
            raise
        return False
    return name in names or sum(len(os.fsencode(other)) + 1 for other in (*names, name)) <= _MOST_NAMES


def get_labels(file: int | str) -> Sequence[Label]:
    """Those of the open file, or of the one at this path; none if they are too many to be listed."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = [name for name in os.listxattr(file, follow_symlinks=_is_open(file)) if name.startswith(_PREFIX)]
        texts = [os.getxattr(file, name, follow_symlinks=_is_open(file)) for name in names]
        return [Label(FileId(name.removeprefix(_PREFIX)), text) for name, text in zip(names, texts, strict=True)]
    except OSError as error:
        if error.errno not in (*_TOO_MANY, *_NO_LABELS, *_NOTHING_THERE):
            raise
        return []


def _is_open(file: int | str) -> bool:
    """A path is never followed through a symbolic link; of an open file Python wants to hear that it is."""
    return isinstance(file, int)
