"""Every route, grouped by who may call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.web import archive, describe, download, files, grants, links, metrics, ops, resumable, undo, upload
from spool.web.auth import needs, needs_read_or_signature, needs_unless_public
from spool.web.body import defer_expectation
from spool.web.guests import guests
from spool.web.pages import assets, details, forms, guest, inviting, linking, listing, sign_in
from spool.web.pages.guest import for_guests
from spool.web.pages.layout import for_people
from spool.web.pages.linking import for_visitors
from spool.web.resumable import drive

if TYPE_CHECKING:
    from aiohttp import web

    from spool.web.auth import Handler

    _Routes = list[tuple[str, str, Handler]]

_ID: Final = "{id}"
_NAME: Final = r"{filename:[^/]*}"

_TUS: Final = drive(resumable.tus, "/tus", resumable.follow)
_RUFH: Final = drive(resumable.rufh, "/uploads", resumable.not_there)
_FORM: Final = drive(resumable.rufh, "/uploads", upload.post_form)
_PUT: Final = drive(resumable.rufh, "/uploads", upload.put_file)
_GUEST: Final = "/g/{secret}"
_GUEST_TUS: Final = drive(resumable.tus, "/tus", resumable.not_there)

PUBLIC: Final[_Routes] = [
    ("GET", "/healthz", ops.healthz),
    ("GET", "/readyz", ops.readyz),
    ("GET", "/problems/{slug}", ops.problem),
    ("GET", "/openapi.json", describe.openapi),
    ("GET", "/docs", describe.docs),
    ("GET", "/login", for_people(sign_in.show)),
    ("POST", "/login", for_people(sign_in.sign_in)),
    ("POST", "/logout", for_people(sign_in.sign_out)),
    ("GET", "/ui/{version}/{name}", assets.asset),
    ("OPTIONS", "/tus", _TUS),
    ("OPTIONS", f"/tus/{_ID}", _TUS),
    ("OPTIONS", "/files", _RUFH),
    ("OPTIONS", f"/uploads/{_ID}", _RUFH),
]
ANYBODY: Final[_Routes] = [
    ("GET", "/", listing.show),
]
"""For every principal, each of whom is shown what it may do."""
UPLOAD: Final[_Routes] = [
    ("POST", "/upload", forms.upload),
    ("POST", f"/view/{_ID}", forms.rename),
    ("POST", "/", _FORM),
    ("POST", "/files", _FORM),
    ("POST", "/files/", _FORM),
    ("PUT", f"/files/{_NAME}", _PUT),
    ("PATCH", f"/files/{_ID}", files.change),
    ("POST", "/tus", _TUS),
    ("POST", "/tus/", _TUS),
    *((method, f"/tus/{_ID}", _TUS) for method in ("GET", "POST", "PATCH", "DELETE")),
    *((method, f"/uploads/{_ID}", _RUFH) for method in ("GET", "PATCH", "DELETE")),
]
READ: Final[_Routes] = [
    ("GET", f"/view/{_ID}", details.show),
    ("POST", f"/view/{_ID}/links", linking.make),
    ("POST", f"/view/{_ID}/links/{{link_id}}/revoke", linking.revoke),
    ("GET", "/files.zip", archive.archive),
    ("POST", "/files.zip", forms.archive),
    ("GET", "/files", files.list_files),
    ("GET", "/files/latest", files.latest),
    ("GET", f"/files/{_ID}", files.show),
    ("GET", f"/files/{_ID}/content", files.content),
    ("GET", f"/files/{_ID}/links", links.list_links),
    ("POST", f"/files/{_ID}/links", links.make),
    ("DELETE", f"/files/{_ID}/links/{{link_id}}", links.revoke),
]
READ_OR_SIGNATURE: Final[_Routes] = [
    ("GET", f"/media/{_ID}/{_NAME}", download.media),
]
DELETE: Final[_Routes] = [
    ("POST", "/delete", forms.delete),
    ("POST", "/undo", forms.undo),
    ("DELETE", f"/files/{_ID}", files.delete),
    ("POST", f"/files/{_ID}/undo", files.undo),
]
_SHARING: Final = ("/guests", f"/guests/{_ID}/revoke", f"/view/{_ID}/links", f"/view/{_ID}/links/{{link_id}}/revoke")
PAGES: Final = frozenset(("/", "/upload", f"/view/{_ID}", "/files.zip", "/delete", "/undo", *_SHARING))
"""Where people are told in a page what is wrong; `POST /` is a program's."""
GRANT: Final[_Routes] = [
    ("GET", "/guests", inviting.show),
    ("POST", "/guests", inviting.create),
    ("POST", f"/guests/{_ID}/revoke", inviting.revoke),
    ("GET", "/grants", grants.list_grants),
    ("POST", "/grants", grants.make),
    ("DELETE", f"/grants/{_ID}", grants.revoke),
]
GUEST: Final[_Routes] = [
    ("GET", _GUEST, for_guests(guests(guest.show))),
    ("POST", f"{_GUEST}/upload", for_guests(guests(guest.upload))),
    ("POST", f"{_GUEST}/delete", for_guests(guests(guest.delete))),
    ("POST", f"{_GUEST}/passphrase", for_guests(guests(guest.enter, proven=False))),
    ("OPTIONS", _GUEST, guests(_RUFH, proven=False)),
    ("POST", _GUEST, guests(_FORM, by_form=True)),
    ("POST", f"{_GUEST}/", guests(_FORM, by_form=True)),
    ("PUT", f"{_GUEST}/{_NAME}", guests(_PUT)),
    ("OPTIONS", f"{_GUEST}/tus", guests(_GUEST_TUS, proven=False)),
    ("POST", f"{_GUEST}/tus", guests(_GUEST_TUS)),
    ("POST", f"{_GUEST}/tus/", guests(_GUEST_TUS)),
    ("OPTIONS", f"{_GUEST}/tus/{_ID}", guests(_GUEST_TUS, proven=False)),
    *((method, f"{_GUEST}/tus/{_ID}", guests(_GUEST_TUS)) for method in ("HEAD", "POST", "PATCH", "DELETE")),
    ("OPTIONS", f"{_GUEST}/uploads/{_ID}", guests(_RUFH, proven=False)),
    *((method, f"{_GUEST}/uploads/{_ID}", guests(_RUFH)) for method in ("GET", "PATCH", "DELETE")),
]
"""By the secret of a grant."""
SECRET: Final[_Routes] = [
    ("GET", "/l/{secret}", for_visitors(links.follow)),
    ("DELETE", f"/d/{_ID}/{{secret}}", undo.delete),
    ("POST", f"/d/{_ID}/{{secret}}", undo.delete),
]
"""By a secret of one file."""

METRICS: Final[_Routes] = [
    ("GET", "/metrics", metrics.scrape),
]


def add_routes(app: web.Application) -> None:
    """Adds all of them. A GET route takes HEAD too."""
    for method, path, handler in (*PUBLIC, *GUEST, *SECRET):
        _add(app, method, path, handler)
    scoped = ((None, ANYBODY), ("upload", UPLOAD), ("read", READ), ("delete", DELETE), ("grant", GRANT))
    for scope, routes in scoped:
        for method, path, handler in routes:
            guarded = needs(scope, handler)
            shown = path in PAGES and handler is not _FORM
            _add(app, method, path, for_people(guarded) if shown else guarded)
    for method, path, handler in READ_OR_SIGNATURE:
        _add(app, method, path, needs_read_or_signature(handler))
    for method, path, handler in METRICS:
        _add(app, method, path, needs_unless_public("metrics", handler))


def _add(app: web.Application, method: str, path: str, handler: Handler) -> None:
    app.router.add_route(method, path, handler, expect_handler=defer_expectation)
    if method == "GET":
        app.router.add_route("HEAD", path, handler, expect_handler=defer_expectation)
