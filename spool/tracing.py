"""Spans of requests, and of the stages of uploads that the metrics time, sent by OpenTelemetry.

OpenTelemetry is imported when tracing is on, and never else. Its SDK reads its settings from the environment; all that
is decided here is what a span is called and what it holds: nothing that a client keeps secret.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Final

from spool import __version__
from spool.config import ConfigError
from spool.metrics import Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from opentelemetry.sdk.trace import SpanProcessor

    from spool.metrics import Metrics

STAGES: Final = ("first_byte", "stage", "sync", "commit")
"""The metrics whose durations are spans, too."""
_OURS: Final = 500
"""The first status of an error that is not the client's."""
_LAST_WORDS: Final = 5.0
"""Seconds for what is not sent yet when the server stops."""


@asynccontextmanager
async def open_tracing(wanted: bool, clock: Callable[[], int]) -> AsyncIterator[Tracing | None]:  # noqa: FBT001
    """What tells of spans, if that is wanted; at the end, what is left is sent. `clock` gives nanoseconds since 1970.

    Raises ConfigError if OpenTelemetry is not installed, or its settings are wrong.
    """
    if not wanted:
        yield None
        return
    tracing = _open(clock)
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)


def _open(clock: Callable[[], int]) -> Tracing:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"tracing is on, but {error.name} is missing: pip install 'spool[tracing]'") from error
    try:
        return Tracing(BatchSpanProcessor(OTLPSpanExporter()), clock)
    except ValueError as error:
        raise ConfigError(f"tracing is on, but a variable OTEL_... is wrong: {error}") from error


class Tracing:
    """Makes spans, and gives them to a processor."""

    def __init__(self, processor: SpanProcessor, clock: Callable[[], int]) -> None:
        """`clock` gives nanoseconds since 1970."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        ours = Resource({"service.name": "spool", "service.version": __version__})
        resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("spool", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace
        self._clock = clock

    def watch(self, metrics: Metrics) -> None:
        """From now on each duration that is counted for a stage is a span of the request on whose behalf it passed."""
        for name in STAGES:
            setattr(metrics, name, _Stage(partial(self._tell, f"spool.{name}")))

    @contextmanager
    def request(self, name: str, parent: Mapping[str, str]) -> Iterator[dict[str, str | int | None]]:
        """The span of a request, which gets what is put into the mapping until its end.

        `parent` has the headers of W3C Trace Context, as they came.
        """
        told: dict[str, str | int | None] = {}
        with self._tracer.start_as_current_span(
            name,
            self._propagator.extract(parent),
            self._trace.SpanKind.SERVER,
            record_exception=False,  # what an exception says may hold anything
            set_status_on_exception=False,
        ) as span:
            try:
                yield told
            finally:
                span.set_attributes({name: value for name, value in told.items() if value is not None})
                status = told.get("http.response.status_code")
                if told.get("error.type") == "failed" or (isinstance(status, int) and status >= _OURS):
                    span.set_status(self._trace.StatusCode.ERROR)

    def _tell(self, name: str, seconds: float) -> None:
        if self._trace.get_current_span().get_span_context().is_valid:  # else a sweep does it
            end = self._clock()
            self._tracer.start_span(name, start_time=end - int(seconds * 1e9)).end(end)

    def close(self) -> None:
        """Sends what is left, for some seconds at most."""
        closing = Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(_LAST_WORDS)


class _Stage(Histogram):
    """A histogram that tells somebody else of each duration, too."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[float], None]) -> None:
        super().__init__()
        self._tell = tell

    def observe(self, seconds: float) -> None:
        super().observe(seconds)
        self._tell(seconds)
