"""Where files are dropped, chosen or pasted: a plain form, of which scripts make more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from spool.web.pages import words
from spool.web.pages.html import tag
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from spool.policy import Policy
    from spool.web.pages.html import Html


_KNOWN: Final = re.compile(r"(audio|image|video)/\*|application/pdf")
"""What a browser and we call alike. Of others a picker could hide files whose bytes would pass."""


class Ways(NamedTuple):
    """Where what is dropped goes."""

    form: str
    """The form's action, for browsers without JavaScript."""
    tus: str
    """Where uploads by tus are created."""


def _accepted(allowed: Sequence[str]) -> str | None:
    """What a browser's picker shows; None for all."""
    return ",".join(allowed) or None if all(map(_KNOWN.fullmatch, allowed)) else None


def drop_zone(request: web.Request, ways: Ways, policy: Policy, *, told: bool = True) -> Html:
    """The form, which is told what the policy takes; so are people, if `told`."""
    allowed = policy.grant_types or policy.allow_types
    picker = tag(
        "input", type="file", name="file", id="picker", multiple=True, required=True, accept=_accepted(allowed)
    )  # fmt: skip
    label = tag("label", tag("strong", "Choose files"), tag("span", " to upload", class_="plain"), for_="picker")
    form = tag(
        "form",
        tag("div", label, picker, tag("div", id="ways"), class_="zone", id="zone"),
        tag("button", "Upload", class_="primary", id="send"),
        id="upload",
        method="post",
        enctype="multipart/form-data",
        action=ways.form,
        data_tus=ways.tus,
        data_max_size=policy.max_file_size,
        data_max_files=request.app[SITE].limits.max_files,
        data_allow=" ".join(allowed) or None,
        data_deny=" ".join(policy.deny_types) or None,
    )
    most = f"Up to {words.size(policy.max_file_size)} each."
    kinds = f" Accepted: {', '.join(allowed)}." if allowed else ""
    return tag(
        "section",
        tag("h2", "Upload", class_="hidden"),
        form,
        tag("p", most + kinds, class_="dim limits") if told else None,
        tag("ul", id="queue", aria_label="Uploads"),
        class_="upload",
    )
