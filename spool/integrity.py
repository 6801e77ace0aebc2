"""The commands that look after a spool as a whole; `cli` has their flags, `doc/operate.md` what they print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from spool import serve
from spool.logs import escape
from spool.work.fsck import Fsck

if TYPE_CHECKING:
    from spool.model import Finding
    from spool.store import LocalStore, SqliteIndex


async def fsck(blobs: LocalStore, index: SqliteIndex, *, deep: bool, repair: bool, as_json: bool) -> bool:
    """Checks the spool, beside a server or not, and prints what is wrong; whether nothing is, or is any more."""
    since = None if blobs.lock() else serve.now() - serve.FOREIGN_GRACE
    check = Fsck(blobs, index, deep=deep, repair=repair, since=since)
    findings = repaired = 0
    async for finding in check.run():
        findings += 1
        repaired += finding.repaired
        print(json.dumps(asdict(finding)) if as_json else _show_finding(finding), flush=True)
    summary = {**asdict(check.tally), "findings": findings, "repaired": repaired}
    print(json.dumps({"kind": "summary", **summary}) if as_json else _show_summary(summary))
    return findings == repaired


def _show_finding(finding: Finding) -> str:
    names = [escape(text) for text in (finding.key, finding.id, finding.filename) if text is not None]
    detail = escape(finding.detail) + ("; repaired" if finding.repaired else "")
    return "  ".join([f"{finding.kind:<7}", *names, detail])


def _show_summary(summary: dict[str, int]) -> str:
    return (
        "{files} files, {blobs} blobs and {uploads} resumable uploads checked, {read} bytes read: "
        "{findings} findings, {repaired} of them repaired"
    ).format_map(summary)
