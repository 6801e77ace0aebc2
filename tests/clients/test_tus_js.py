"""tus-js-client, in its tus mode and in that of the IETF's draft."""

from __future__ import annotations

import urllib.error
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Node, Sample
    from tests.process import Server

MIB: Final = 1024 * 1024
HEADS: Final = 8192
"""More than the heads of a resumption take."""
STREAM: Final = {"from": "stream"}
MEMORY: Final = {"from": "memory"}
"""What the draft needs for more than one append: from a file, 4.3.1 never says that one is the last."""
DRAFT: Final = {"protocol": "ietf-draft-05"}


def patches(report: Any) -> list[tuple[int, int]]:
    """From where to where each append brought its upload."""
    exchanges = [exchange for exchange in report["exchanges"] if exchange["method"] == "PATCH"]
    return [(int(exchange["from"]), int(exchange["offset"])) for exchange in exchanges]


def assert_only_the_rest_was_sent(report: Any, size: int) -> None:
    head, *_ = report["exchanges"]
    offset = int(head["offset"])
    assert (report["state"], head["method"]) == ("done", "HEAD")
    assert 0 < offset < size
    assert patches(report)[0][0] == offset
    assert size - offset <= report["sent"] <= size - offset + HEADS


@pytest.mark.parametrize(
    "options",
    [{}, {"uploadDataDuringCreation": True}, {"chunkSize": 5 * MIB}, {"overridePatchMethod": True}],
    ids=lambda options: ",".join(options) or "plain",
)
def test_upload_arrives_whole(server: Server, node: Node, sample: Sample, options: dict[str, Any]) -> None:
    options = {"metadata": {"filename": sample.path.name, "filetype": "video/mp4"}} | options
    report = node.run("tus.mjs", file=sample.path, endpoint=f"{server.url}/tus", options=options)
    (record,) = sample.assert_arrived(server)
    assert record["filename"] == sample.path.name
    assert report["exchanges"][-1]["file"] == record["url"]


def test_empty_file_is_a_file(server: Server, node: Node, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    node.run("tus.mjs", file=empty, endpoint=f"{server.url}/tus")
    assert [record["size"] for record in server.files()] == [0]


def test_upload_goes_on_at_its_url(server: Server, node: Node, sample: Sample) -> None:
    order = {"file": sample.path, "endpoint": f"{server.url}/tus"}
    first = node.run("tus.mjs", **order, abortAt=0.5)
    assert first["state"] == "aborted"
    report = node.run("tus.mjs", **order, options={"uploadUrl": first["url"]})
    assert_only_the_rest_was_sent(report, sample.size)
    sample.assert_arrived(server)


def test_upload_goes_on_where_the_client_finds_it(server: Server, node: Node, sample: Sample, tmp_path: Path) -> None:
    order = {"file": sample.path, "endpoint": f"{server.url}/tus", "previous": tmp_path / "previous.json"}
    first = node.run("tus.mjs", **order, abortAt=0.5)
    report = node.run("tus.mjs", **order)
    assert report["url"] == first["url"]
    assert_only_the_rest_was_sent(report, sample.size)
    sample.assert_arrived(server)


def test_upload_goes_on_after_a_crash_of_the_server(server: Server, node: Node, sample: Sample) -> None:
    order = {"file": sample.path, "endpoint": f"{server.url}/tus"}
    first = node.run("tus.mjs", **order, abortAt=0.5, options={"chunkSize": 4 * MIB})
    server.kill()
    server.start()
    report = node.run("tus.mjs", **order, options={"uploadUrl": first["url"]})
    assert_only_the_rest_was_sent(report, sample.size)
    sample.assert_arrived(server)


def test_abandoned_upload_is_gone(server: Server, node: Node, sample: Sample) -> None:
    order = {"file": sample.path, "endpoint": f"{server.url}/tus"}
    report = node.run("tus.mjs", **order, abortAt=0.5, terminate=True)
    (delete,) = [exchange for exchange in report["exchanges"] if exchange["method"] == "DELETE"]
    assert (delete["url"], delete["status"]) == (report["url"], 204)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get(report["url"].removeprefix(server.url))
    assert (server.files(), server.blobs()) == ([], {})


@pytest.mark.parametrize("parts", [2, 3])
def test_parallel_parts_are_one_file(server: Server, node: Node, sample: Sample, parts: int) -> None:
    options = {"parallelUploads": parts, "metadata": {"filename": sample.path.name}}
    report = node.run("tus.mjs", file=sample.path, endpoint=f"{server.url}/tus", options=options)
    (record,) = sample.assert_arrived(server)
    assert record["filename"] == sample.path.name
    assert [exchange["method"] for exchange in report["exchanges"]].count("POST") == parts + 1


def test_length_comes_with_the_end_of_a_stream(server: Server, node: Node, sample: Sample) -> None:
    options = {"uploadLengthDeferred": True, "chunkSize": 4 * MIB}
    report = node.run("tus.mjs", file=sample.path, endpoint=f"{server.url}/tus", **STREAM, options=options)
    assert len(patches(report)) == 7
    sample.assert_arrived(server)


# the draft


@pytest.mark.parametrize(
    "options",
    [{}, {"uploadDataDuringCreation": True}, {"chunkSize": 5 * MIB}],
    ids=lambda options: ",".join(options) or "plain",
)
def test_draft_upload_arrives_whole(server: Server, node: Node, sample: Sample, options: dict[str, Any]) -> None:
    node.run("tus.mjs", file=sample.path, endpoint=f"{server.url}/files", **MEMORY, options=DRAFT | options)
    sample.assert_arrived(server)


def test_draft_upload_goes_on_at_its_url(server: Server, node: Node, sample: Sample) -> None:
    order = {"file": sample.path, "endpoint": f"{server.url}/files"}
    first = node.run("tus.mjs", **order, abortAt=0.5, options=DRAFT)
    assert first["url"].startswith(f"{server.url}/uploads/")
    report = node.run("tus.mjs", **order, **MEMORY, options=DRAFT | {"uploadUrl": first["url"]})
    assert_only_the_rest_was_sent(report, sample.size)
    sample.assert_arrived(server)


def test_draft_length_comes_with_the_end_of_a_stream(server: Server, node: Node, sample: Sample) -> None:
    options = DRAFT | {"uploadLengthDeferred": True, "chunkSize": 4 * MIB}
    node.run("tus.mjs", file=sample.path, endpoint=f"{server.url}/files", **STREAM, options=options)
    sample.assert_arrived(server)
