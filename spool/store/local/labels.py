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


def get_labels(file: int | str) -> Sequence[Label]:
    """Those of the open file, or of the one at this path."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = [name for name in os.listxattr(file, follow_symlinks=_is_open(file)) if name.startswith(_PREFIX)]
        texts = [os.getxattr(file, name, follow_symlinks=_is_open(file)) for name in names]
        return [Label(FileId(name.removeprefix(_PREFIX)), text) for name, text in zip(names, texts, strict=True)]
    except OSError as error:
        if error.errno not in (*_NO_LABELS, *_NOTHING_THERE):
            raise
        return []


def _is_open(file: int | str) -> bool:
    """A path is never followed through a symbolic link; of an open file Python wants to hear that it is."""
    return isinstance(file, int)
