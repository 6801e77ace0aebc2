"""The real server, the real curl: what a person types, and what they get."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.process import Server, curl, slowed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
MIB = 1024 * 1024


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("curl") / "spool") as running:
        yield running


@pytest.fixture
def server(shared: Server) -> Server:
    """It has no files."""
    shared.delete_all()
    return shared


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\xff\xfb\x90\x64" + bytes(range(256)) * 4096)
    return path


def test_form_is_answered_with_the_record(server: Server, song: Path) -> None:
    answer = curl("-F", f"file=@{song}", "-F", "title=Demo", f"{server.url}/files")
    assert answer.status == 201
    (record,) = answer.json["files"]
    assert record["filename"] == "song.mp3"
    assert record["size"] == song.stat().st_size
    assert record["sha256"] == sha256(song.read_bytes())
    assert record["media_type"] == "audio/mpeg"
    assert record["declared_type"] == "application/octet-stream"
    assert record["metadata"] == {"title": "Demo"}
    assert record["owner"] == "local"
    assert answer.headers["location"] == record["url"] == f"{server.url}/files/{record['id']}"
    assert server.files() == [record]


def test_root_takes_forms_too(server: Server, song: Path) -> None:
    assert curl("-F", f"file=@{song}", server.url + "/").status == 201


def test_fields_apply_to_all_files_wherever_they_stand(server: Server, song: Path) -> None:
    answer = curl(
        "-F", "before=1", "-F", f"a=@{song}", "-F", "tag=x", "-F", f"b=@{song};filename=b.mp3", "-F", "tag=y",
        f"{server.url}/files",
    )  # fmt: skip
    records = answer.json["files"]
    assert [record["filename"] for record in records] == ["song.mp3", "b.mp3"]
    assert all(record["metadata"] == {"before": "1", "tag": ["x", "y"]} for record in records)
    assert "location" not in answer.headers


def test_several_files_of_one_field_are_several_files(server: Server, song: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("hello")
    answer = curl("-F", f"file=@{song},{other}", f"{server.url}/files")
    assert [record["filename"] for record in answer.json["files"]] == ["song.mp3", "other.txt"]


def test_put_names_the_file_by_the_address(server: Server, song: Path) -> None:
    answer = curl("-T", str(song), f"{server.url}/files/")
    assert answer.status == 201
    assert answer.json["filename"] == "song.mp3"
    assert answer.json["sha256"] == sha256(song.read_bytes())
    assert answer.headers["location"] == answer.json["url"]


def test_put_of_unknown_length_from_a_pipe(server: Server) -> None:
    data = b"x" * 3 * MIB
    answer = curl("-T", "-", f"{server.url}/files/piped.bin", stdin=data)
    assert answer.status == 201
    assert (answer.json["filename"], answer.json["size"], answer.json["sha256"]) == ("piped.bin", 3 * MIB, sha256(data))


def test_form_part_from_a_pipe_has_no_declared_type(server: Server) -> None:
    answer = curl("-F", "file=@-", f"{server.url}/files", stdin=b"hello")
    (record,) = answer.json["files"]
    assert (record["filename"], record["media_type"], record["declared_type"]) == ("-", "text/plain", None)


def test_query_of_a_put_is_metadata(server: Server, song: Path) -> None:
    answer = curl("-T", str(song), f"{server.url}/files/a.mp3?title=Demo&tag=x&tag=y")
    assert answer.json["metadata"] == {"title": "Demo", "tag": ["x", "y"]}


def test_form_with_nothing_chosen_holds_no_file(server: Server) -> None:
    head = b'Content-Disposition: form-data; name="f"; filename=""\r\nContent-Type: application/octet-stream'
    body = b"--b\r\n" + head + b"\r\n\r\n\r\n--b--\r\n"
    answer = curl(
        "-H", "Content-Type: multipart/form-data; boundary=b", "--data-binary", "@-", f"{server.url}/files", stdin=body
    )
    assert answer.status == 400
    assert answer.json["type"] == "/problems/bad-request"
    assert "no file" in answer.json["detail"]


def test_empty_file_is_a_file(server: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for arguments in (["-F", f"f=@{empty}", f"{server.url}/files"], ["-T", str(empty), f"{server.url}/files/"]):
        answer = curl(*arguments)
        assert answer.status == 201
    assert [file["size"] for file in server.files()] == [0, 0]
    content = curl("-L", server.files()[0]["content_url"])
    assert (content.status, content.body) == (200, b"")


def test_text_answer_is_one_content_url_a_line(server: Server, song: Path) -> None:
    answer = curl("-H", "Accept: text/plain", "-F", f"a=@{song}", "-F", f"b=@{song}", f"{server.url}/files")
    urls = answer.body.decode().splitlines()
    assert len(urls) == 2
    assert answer.headers["content-type"].startswith("text/plain")
    assert all(curl("-L", url).body == song.read_bytes() for url in urls)


def test_content_leads_to_the_same_bytes(server: Server, song: Path) -> None:
    record = curl("-T", str(song), f"{server.url}/files/").json
    redirect = curl(record["content_url"])
    assert redirect.status == 302
    assert redirect.headers["location"] == f"{server.url}/media/{record['id']}/song.mp3"
    media = curl(redirect.headers["location"])
    assert media.body == song.read_bytes()
    assert media.headers["content-type"] == "audio/mpeg"
    assert media.headers["etag"] == f'"{record["sha256"]}"'
    assert media.headers["content-disposition"] == 'inline; filename="song.mp3"'
    assert media.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in media.headers["content-security-policy"]
    forced = curl("-L", record["content_url"] + "?download")
    assert forced.headers["content-disposition"].startswith("attachment")


def test_resumed_download_of_curl_is_whole(server: Server, song: Path, tmp_path: Path) -> None:
    record = curl("-T", str(song), f"{server.url}/files/").json
    part = tmp_path / "part"
    part.write_bytes(song.read_bytes()[:1000])
    answer = curl("-L", "-C", "-", "--no-include", "-o", str(part), record["content_url"])
    assert answer.code == 0
    assert part.read_bytes() == song.read_bytes()


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_digest_is_verified_before_commit(server: Server, song: Path, header: str, algorithm: str) -> None:
    import base64  # noqa: PLC0415

    digest = base64.b64encode(hashlib.new(algorithm.replace("-", ""), song.read_bytes()).digest()).decode()
    good = curl("-H", f"{header}: {algorithm}=:{digest}:", "-T", str(song), f"{server.url}/files/good")
    assert good.status == 201
    song.write_bytes(song.read_bytes() + b"!")
    bad = curl("-H", f"{header}: {algorithm}=:{digest}:", "-T", str(song), f"{server.url}/files/bad")
    assert bad.status == 400
    assert bad.json["type"] == "/problems/digest-mismatch"
    assert [file["filename"] for file in server.files()] == ["good"]
    assert len(server.blobs()) == 1


def test_sha256_fields_are_verified_in_the_order_of_the_files(server: Server, song: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("hello")
    digests = [sha256(song.read_bytes()), sha256(b"hello")]
    files = ["-F", f"a=@{song}", "-F", f"b=@{other}"]

    def send(first: str, second: str) -> int:
        return curl(*files, "-F", f"sha256={first}", "-F", f"sha256={second}", f"{server.url}/files").status

    assert send(*digests) == 201
    assert send(*reversed(digests)) == 400
    assert curl(*files, "-F", f"sha256={digests[0]}", f"{server.url}/files").status == 400
    assert len(server.files()) == 2
    assert server.files()[0]["metadata"] == {}


def test_encoded_body_is_refused(server: Server, song: Path) -> None:
    answer = curl("-H", "Content-Encoding: gzip", "-T", str(song), f"{server.url}/files/")
    assert answer.status == 415
    answer = curl("-F", f"file=@{song};encoder=base64", f"{server.url}/files")
    assert answer.status == 415
    assert server.files() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\Users\\me\\video.mp4", "video.mp4"),
        ("CON", "_CON"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("..", "unnamed"),
        ("żółw 🐢.txt", "żółw 🐢.txt"),
    ],
)
def test_name_ends_as_a_harmless_display_name(server: Server, name: str, expected: str) -> None:
    answer = curl("-F", f'file=@-;filename="{name.replace(chr(92), chr(92) * 2)}"', f"{server.url}/files", stdin=b"x")
    assert answer.json["files"][0]["filename"] == expected
    assert set(server.dir.rglob("*passwd*")) | set(server.dir.rglob("*.exe")) == set()


def test_type_is_refused_after_the_head(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_POLICY_ALLOW_TYPES": "image/*"}) as server:
        big = tmp_path / "big.png"
        with big.open("wb") as file:
            file.write(b"just text, whatever its name says\n" * 1000)
            file.truncate(300 * MIB)
        answer = curl("-F", f"file=@{big};type=image/png", f"{server.url}/files")
        assert answer.status == 415
        assert answer.json["media_type"] == "text/plain"
        refused = server.events("upload.refused")[0]
        assert refused["bytes"] < 8 * MIB
        assert curl("-F", "file=@-;filename=x.png", f"{server.url}/files", stdin=PNG + bytes(5000)).status == 201


def test_expectation_is_refused_before_a_byte_of_body(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_MAX_FILE_SIZE": "1 MiB"}) as server:
        big = tmp_path / "big"
        with big.open("wb") as file:
            file.truncate(8 * MIB)
        for arguments in (["-T", str(big), f"{server.url}/files/"], ["-F", f"f=@{big}", f"{server.url}/files"]):
            answer = curl("-w", "%{stderr}sent %{size_upload}", *arguments)
            assert answer.status == 413
            assert answer.json["limit"] >= MIB
            assert "sent 0" in answer.stderr
            assert answer.headers["connection"] == "close"


def test_chunked_body_is_refused_readably_when_it_grows_too_large(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_MAX_FILE_SIZE": "1 MiB"}) as server:
        answer = curl("-T", "-", f"{server.url}/files/big", stdin=bytes(30 * MIB))
        assert answer.status == 413
        assert answer.json["type"] == "/problems/too-large"
        assert server.blobs() == {}


def test_stalled_upload_is_told_so(tmp_path: Path) -> None:
    env = {"SPOOL_LIMITS_IDLE_TIMEOUT": "1s"}
    with Server(tmp_path / "spool", env=env) as server:
        import socket  # noqa: PLC0415

        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"PUT /files/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            client.settimeout(60)
            answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"/problems/request-timeout" in answer


def test_slow_disk_is_not_taken_for_a_slow_client(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(9 * MIB))
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_IDLE_TIMEOUT": "1s"}) as server:
        with slowed(server, "writev", "delay_exit=150000"):  # of which a batch takes sixteen
            answer = curl("-T", str(large), f"{server.url}/files/")
        assert (answer.status, answer.json.get("size")) == (201, 9 * MIB)


def test_idempotency_key_returns_the_first_answer(server: Server, song: Path) -> None:
    def send(key: str, path: str = "a.mp3") -> tuple[int, dict[str, object]]:
        answer = curl("-H", f"Idempotency-Key: {key}", "-T", str(song), f"{server.url}/files/{path}")
        return answer.status, answer.json

    first = send('"k1"')
    assert first[0] == 201
    assert send('"k1"') == first
    assert send('"k1"', "other.mp3")[0] == 422
    assert send('"k2"')[1]["id"] != first[1]["id"]
    server.restart()
    assert send('"k1"')[1]["id"] == first[1]["id"]
    assert len(server.files()) == 2


def test_listing_pages_filters_and_sorts(server: Server) -> None:
    for name in ("b.txt", "a.txt", "c.log"):
        curl("-T", "-", f"{server.url}/files/{name}", stdin=b"x" * (10 + ord(name[0])))
    newest = [file["filename"] for file in server.get("/files")["files"]]
    assert newest == ["c.log", "a.txt", "b.txt"]
    assert [f["filename"] for f in server.get("/files?sort=filename&order=asc")["files"]] == ["a.txt", "b.txt", "c.log"]
    assert [f["filename"] for f in server.get("/files?filename=*.txt&sort=size")["files"]] == ["b.txt", "a.txt"]
    first = curl(f"{server.url}/files?limit=2")
    assert first.json["next"]
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    assert [f["filename"] for f in curl(link[1:].partition(">")[0]).json["files"]] == ["b.txt"]
    latest = curl(f"{server.url}/files/latest?filename=*.txt")
    assert latest.status == 302
    assert curl(latest.headers["location"]).json["filename"] == "a.txt"
    assert curl(f"{server.url}/files?sorted=size").status == 400


def test_record_is_changed_and_deleted(server: Server, song: Path) -> None:
    record = curl("-T", str(song), f"{server.url}/files/a.mp3?title=Demo&year=1999").json
    patch = '{"filename": "b.mp3", "metadata": {"title": null, "artist": "N"}, "expires_at": "2999-01-01T00:00:00Z"}'
    answer = curl("-X", "PATCH", "-H", "Content-Type: application/merge-patch+json", "-d", patch, record["url"])
    assert answer.status == 200
    assert answer.json["filename"] == "b.mp3"
    assert answer.json["metadata"] == {"year": "1999", "artist": "N"}
    assert answer.json["expires_at"] == "2999-01-01T00:00:00.000000Z"
    assert curl("-X", "DELETE", record["url"]).status == 204
    assert curl(record["url"]).status == 404
    assert curl("-X", "DELETE", record["url"]).status == 404
    assert server.blobs() == {}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["/nowhere"], 404),
        (["-X", "DELETE", "/files"], 405),
        (["/files/0123"], 404),
        (["-d", "x=1", "/files"], 415),
        (["-H", "Content-Type: multipart/form-data", "-d", "x", "/files"], 400),
        (["-H", "Expect: miracles", "-T", "/dev/null", "/files/x"], 417),
        (["-H", "Content-Range: bytes 0-1/2", "-T", "/dev/null", "/files/x"], 400),
        (["-H", f"X-Long: {'x' * 70_000}", "/files"], 400),
        (["-H", "Content-Length: abc", "/files"], 400),
        (["/files?cursor=nonsense"], 400),
        (["/files?limit=0"], 400),
    ],
)
def test_every_error_is_a_problem_document(server: Server, arguments: list[str], status: int) -> None:
    *options, path = arguments
    answer = curl(*options, server.url + path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert server.get(answer.json["type"])["status"] == status
    if status == 405:
        assert answer.headers["allow"] == "GET,HEAD,OPTIONS,POST"
