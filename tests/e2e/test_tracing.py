"""Tracing: what a real server sends to an OTLP receiver, and what it costs it when nobody wants to know."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.process import Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = {"spool.first_byte", "spool.stage", "spool.sync", "spool.commit"}


@dataclass(frozen=True)
class Told:
    """A span, as it was received."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    kind: int
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Receiver:
    """A collector that keeps what it is sent."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def spans(self) -> list[Told]:
        return [told(span) for resource in self.resources() for scope in resource.scope_spans for span in scope.spans]

    def resources(self) -> list[Any]:
        return [r for data in list(self.raw) for r in ExportTraceServiceRequest.FromString(data).resource_spans]

    def of(self, request_id: str) -> tuple[Told, dict[str, Told]]:
        """The span of a request, once it is there, and those below it by name."""

        def look() -> Told | None:
            return next((s for s in self.spans() if s.attributes.get("spool.request_id") == request_id), None)

        request = eventually(look)
        assert request
        return request, {span.name: span for span in self.spans() if span.parent == request.id}


def told(span: Any) -> Told:
    attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    failed = span.status.code == span.status.STATUS_CODE_ERROR
    times = span.start_time_unix_nano, span.end_time_unix_nano
    return Told(span.name, *ids, *times, kind=span.kind, failed=failed, attributes=attributes)


@contextmanager
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.paths.add(self.path)
            kept.raw.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join(60)


def environment(url: str, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture(scope="module")
def server(collector: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = environment(collector.url, OTEL_SERVICE_NAME="here", OTEL_RESOURCE_ATTRIBUTES="a=b")
    with Server(tmp_path_factory.mktemp("tracing") / "spool", env=env) as running:
        yield running


def test_upload_is_a_trace_with_its_stages(server: Server, collector: Receiver) -> None:
    parent = f"traceparent: 00-{TRACE}-{PARENT}-01"
    answer = curl("-H", parent, "-H", "X-Request-ID: my-upload", "-T-", f"{server.url}/files/a.bin", stdin=bytes(MIB))
    assert answer.status == 201
    request, below = collector.of("my-upload")
    assert (request.name, request.trace, request.parent) == ("PUT /files/{filename}", TRACE, PARENT)
    assert request.kind == 2  # a server's
    assert request.attributes == {
        "http.request.method": "PUT",
        "http.route": "/files/{filename}",
        "http.response.status_code": 201,
        "url.path": "/files/a.bin",
        "url.scheme": "http",
        "spool.request_id": "my-upload",
    }
    assert below.keys() == STAGES
    assert {span.trace for span in below.values()} == {TRACE}
    order = [below[f"spool.{name}"] for name in ("first_byte", "sync", "stage", "commit")]
    assert [span.end for span in order] == sorted(span.end for span in order)
    for span in order:
        assert request.start <= span.start <= span.end <= request.end
    assert not request.failed


def test_resumable_upload_has_stages_too(server: Server, collector: Receiver) -> None:
    tus = ["-H", "Tus-Resumable: 1.0.0"]
    created = curl("-X", "POST", *tus, "-H", "Upload-Length: 5", f"{server.url}/tus")
    append = ["-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream", "--data-binary", "hello"]
    answer = curl("-X", "PATCH", *tus, *append, created.headers["location"])
    assert answer.status == 204
    request, below = collector.of(answer.headers["x-request-id"])
    assert request.name == "PATCH /tus/{id}"
    assert below.keys() >= {"spool.first_byte", "spool.sync", "spool.commit"}


def test_request_without_a_trace_begins_one(server: Server, collector: Receiver) -> None:
    answers = [curl(f"{server.url}/files") for _ in range(2)]
    spans = [collector.of(answer.headers["x-request-id"])[0] for answer in answers]
    assert [span.parent for span in spans] == ["", ""]
    assert len({span.trace for span in spans}) == 2


@pytest.mark.parametrize(
    "headers",
    [
        ["traceparent: nonsense"],
        [f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{TRACE}-{PARENT}-01"],
        ["traceparent: 00-00000000000000000000000000000000-0000000000000000-01"],
    ],
)
def test_trace_that_is_none_is_not_taken_for_one(server: Server, collector: Receiver, headers: list[str]) -> None:
    answer = curl(*(part for header in headers for part in ("-H", header)), f"{server.url}/files")
    span, _ = collector.of(answer.headers["x-request-id"])
    assert (answer.status, span.parent) == (200, "")
    assert span.trace != TRACE


def test_trace_that_is_not_sampled_is_not_told(server: Server, collector: Receiver) -> None:
    for flag, name in (("00", "unsampled"), ("01", "sampled")):
        curl("-H", f"traceparent: 00-{TRACE}-{PARENT}-{flag}", "-H", f"X-Request-ID: {name}", f"{server.url}/files")
    collector.of("sampled")
    assert "unsampled" not in {span.attributes.get("spool.request_id") for span in collector.spans()}


def test_what_machines_ask_all_the_time_is_not_told(server: Server, collector: Receiver) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        curl(server.url + path)
    last = curl(f"{server.url}/files")
    collector.of(last.headers["x-request-id"])
    assert {span.attributes.get("url.path") for span in collector.spans()} & {
        "/healthz",
        "/readyz",
        "/metrics",
    } == set()


def test_refusal_is_told_by_its_problem(server: Server, collector: Receiver) -> None:
    answer = curl(f"{server.url}/files/nosuch")
    span, _ = collector.of(answer.headers["x-request-id"])
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (404, "not-found")
    assert not span.failed
    nowhere = curl("-X", "PROPFIND", f"{server.url}/no/such/place")
    span, _ = collector.of(nowhere.headers["x-request-id"])
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert "http.route" not in span.attributes


def test_upload_that_its_client_cuts_off_is_told(server: Server, collector: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        fields = "Host: localhost\r\nX-Request-ID: cut\r\nContent-Length: 1000000\r\n"
        client.sendall(f"PUT /files/b.bin HTTP/1.1\r\n{fields}\r\n".encode() + bytes(1000))
        eventually(lambda: server.has_read(client))
    span, below = collector.of("cut")
    assert span.attributes["error.type"] == "cut_off"
    assert "http.response.status_code" not in span.attributes
    assert "spool.commit" not in below


def test_resource_says_which_program_it_is_and_what_the_operator_says(server: Server, collector: Receiver) -> None:
    curl(f"{server.url}/files")
    [first, *_] = eventually(collector.resources)
    attributes = {a.key: a.value.string_value for a in first.resource.attributes}
    assert (attributes["service.name"], attributes["a"]) == ("here", "b")
    assert re.match(r"\d+\.\d+", attributes["service.version"])
    assert collector.paths == {"/v1/traces"}


def test_no_secret_is_in_a_span(tmp_path: Path) -> None:
    with receiver() as collector, Server(tmp_path / "spool", env=environment(collector.url)) as server:
        file = server.put("a.txt", b"la la la")
        link = curl("--json", "{}", f"{server.url}/files/{file['id']}/links").json["url"]
        grant = curl("--json", "{}", f"{server.url}/grants").json["url"]
        receipt = curl("-F", "file=@-;filename=b.txt", grant, stdin=b"guest").json["files"][0]
        paths = ["/files?q=hidden-query&token=spool_hidden", f"/media/{file['id']}/a.txt?signature=hidden-signature"]
        answers = [curl("-H", "Authorization: Bearer spool_hidden", server.url + path) for path in paths]
        answers += [curl(link), curl(f"{link}/more"), curl("-X", "DELETE", receipt["delete_url"])]
        answers += [curl("-H", "tracestate: a=hidden-state", "-H", "Cookie: session=hidden-cookie", f"{server.url}/")]
        for answer in answers:
            collector.of(answer.headers["x-request-id"])
        server.stop()
    data = b"".join(collector.raw)
    secrets = [address.rpartition("/")[2].encode() for address in (link, grant, receipt["delete_url"])]
    assert all(len(secret) > 30 for secret in secrets)
    assert [secret for secret in (*secrets, b"hidden") if secret in data] == []
    assert b"/l/..." in data


def test_spans_that_are_not_sent_yet_are_sent_at_the_end(tmp_path: Path) -> None:
    with receiver() as collector:
        env = environment(collector.url, OTEL_BSP_SCHEDULE_DELAY="3600000")
        with Server(tmp_path / "spool", env=env) as server:
            curl("-H", "X-Request-ID: last", f"{server.url}/files")
            assert collector.raw == []
            assert server.stop() == 0
        collector.of("last")
        [resource] = collector.resources()
        assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "spool"


def test_collector_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env=environment("http://127.0.0.1:1")) as server:
        server.put("a.txt", b"la la la")
        assert server.stop() == 0


def test_collector_that_does_not_answer_keeps_no_server_from_stopping(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = environment(f"http://127.0.0.1:{silent.getsockname()[1]}", OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        with Server(tmp_path / "spool", env=env) as server:
            server.put("a.txt", b"la la la")
            server.terminate()
            assert server.wait(20) == 0  # the SDK itself would wait for half a minute


def test_sampler_of_the_environment_is_asked(tmp_path: Path) -> None:
    with receiver() as collector:
        env = environment(collector.url, OTEL_TRACES_SAMPLER="always_off")
        with Server(tmp_path / "spool", env=env) as server:
            server.put("a.txt", b"la la la")
            server.stop()
        assert collector.raw == []


# when it is off


OFF = [
    {},
    {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    {"OTEL_SERVICE_NAME": "spool"},
]


@pytest.mark.parametrize("variables", OFF, ids=lambda variables: "-".join(variables) or "nothing")
def test_nothing_is_imported_when_it_is_off(tmp_path: Path, variables: dict[str, str]) -> None:
    with Server(tmp_path / "spool", env={**variables, "PYTHONPROFILEIMPORTTIME": "1"}) as server:
        server.put("a.txt", b"la la la")
        server.stop()
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", server.log(), re.MULTILINE))
    assert {"spool.tracing", "aiohttp.web"} <= imported
    assert {name for name in imported if name.startswith(("opentelemetry", "requests", "google"))} == set()


def refused(directory: Path, **variables: str) -> str:
    """The line by which a server ends that is not to start."""
    command = [sys.executable, "-m", "spool", "serve", "--port", "0", "--dir", str(directory / "spool")]
    env = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin', but must be otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "only http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "_TRACES_PROTOCOL is 'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-7"}, "OTEL_"),
    ],
)
def test_settings_that_are_wrong_are_told(tmp_path: Path, variables: dict[str, str], what: str) -> None:
    assert what in refused(tmp_path, **variables)


def test_packages_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert "pip install 'spool[tracing]'" in refused(tmp_path, OTEL_TRACES_EXPORTER="otlp", PYTHONPATH=path)
