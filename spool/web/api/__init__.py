"""What this server takes and answers, as data: `GET /openapi.json` and `GET /docs` are two renderings of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.web.api import draft, files, guests, operations, pages, sharing, tus, uploads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.web.api.terms import Group

GROUPS: Final[Sequence[Group]] = (
    uploads.STORE,
    files.FIND,
    files.ONE,
    sharing.LINKS,
    sharing.GRANTS,
    guests.GUESTS,
    tus.TUS,
    draft.DRAFT,
    pages.PAGES,
    operations.OPERATIONS,
)
"""Every operation; `tests/web/test_api.py` holds them against the routes."""
