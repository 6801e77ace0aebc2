"""tuspy, sync and async."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.process import lacking

try:
    from tusclient.client import TusClient
    from tusclient.exceptions import TusCommunicationError, TusUploadFailed
except ImportError:
    TusClient = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.conftest import Sample
    from tests.process import Server

CHUNK: Final = 1024 * 1024
"""As much as aiohttp sends from memory without a warning."""


@pytest.fixture
def client(server: Server) -> Any:
    if TusClient is None:
        lacking("tuspy is not installed")
    return TusClient(f"{server.url}/tus")


@pytest.fixture
def settings(sample: Sample) -> Iterator[dict[str, Any]]:
    with sample.path.open("rb") as stream:
        yield {"file_stream": stream, "chunk_size": CHUNK, "metadata": {"filename": sample.path.name}}


@pytest.mark.parametrize("checksum", [False, True])
def test_upload_arrives_whole(
    server: Server, client: Any, settings: dict[str, Any], sample: Sample, *, checksum: bool
) -> None:
    client.uploader(**settings, upload_checksum=checksum).upload()
    (record,) = sample.assert_arrived(server)
    assert record["filename"] == sample.path.name


@pytest.mark.parametrize("checksum", [False, True])
async def test_async_upload_arrives_whole(
    server: Server, client: Any, settings: dict[str, Any], sample: Sample, *, checksum: bool
) -> None:
    await client.async_uploader(**settings, upload_checksum=checksum).upload()
    sample.assert_arrived(server)


def test_upload_without_metadata_in_one_request_arrives_whole(server: Server, client: Any, sample: Sample) -> None:
    with sample.path.open("rb") as stream:
        client.uploader(file_stream=stream).upload()
    sample.assert_arrived(server)


def test_upload_goes_on_at_its_url(server: Server, client: Any, settings: dict[str, Any], sample: Sample) -> None:
    first = client.uploader(**settings)
    first.upload(stop_at=2 * CHUNK)
    second = client.uploader(**settings, url=first.url)
    assert second.offset == 2 * CHUNK
    second.upload()
    sample.assert_arrived(server)


async def test_async_upload_goes_on_at_its_url(
    server: Server, client: Any, settings: dict[str, Any], sample: Sample
) -> None:
    first = client.async_uploader(**settings)
    await first.upload(stop_at=2 * CHUNK)
    second = client.async_uploader(**settings, url=first.url)
    assert second.offset == 2 * CHUNK
    await second.upload()
    sample.assert_arrived(server)


def test_chunk_with_a_wrong_checksum_is_not_kept(
    server: Server, client: Any, settings: dict[str, Any], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploader = client.uploader(**settings, upload_checksum=True)
    uploader.upload(stop_at=CHUNK)
    with monkeypatch.context() as broken:
        algorithm = uploader.checksum_algorithm
        broken.setattr(uploader, "_BaseUploader__checksum_algorithm", lambda chunk: algorithm(chunk[1:]))
        with pytest.raises(TusUploadFailed) as failure:
            uploader.upload()
    assert failure.value.status_code == 460
    assert uploader.get_offset() == CHUNK
    uploader.upload()
    sample.assert_arrived(server)


def test_unknown_upload_is_not_resumed(server: Server, client: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(TusCommunicationError, match="404"):
        client.uploader(**settings, url=f"{server.url}/tus/unknown")
