"""Uppy's core and its tus plugin, without a browser."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Node, Sample
    from tests.process import Server


def test_several_files_arrive_whole(server: Server, node: Node, tmp_path: Path) -> None:
    contents = {f"{number}.bin": bytes([number]) * (number * 300_000 + 1) for number in range(5)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in contents]
    report = node.run("uppy.mjs", files=paths, endpoint=f"{server.url}/tus")
    assert (report["failed"], len(set(report["urls"]))) == ([], len(contents))
    stored = {record["filename"]: record["sha256"] for record in server.files()}
    assert stored == {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def test_paused_upload_goes_on(server: Server, node: Node, sample: Sample) -> None:
    order = {"files": [sample.path], "endpoint": f"{server.url}/tus"}
    report = node.run("uppy.mjs", **order, pauseAt=0.5, options={"chunkSize": 5_000_000})
    assert len(report["urls"]) == 1
    head = next(exchange for exchange in report["exchanges"] if exchange["method"] == "HEAD")
    assert 0 < int(head["offset"]) < sample.size
    sample.assert_arrived(server)


def test_chunks_arrive_whole(server: Server, node: Node, sample: Sample) -> None:
    report = node.run("uppy.mjs", files=[sample.path], endpoint=f"{server.url}/tus", options={"chunkSize": 5_000_000})
    assert [exchange["method"] for exchange in report["exchanges"]].count("PATCH") == 6
    sample.assert_arrived(server)
