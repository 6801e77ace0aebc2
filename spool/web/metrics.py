"""`GET /metrics`: what is counted, and what is looked at, in the text that Prometheus reads."""

from __future__ import annotations

import platform
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from spool import __version__
from spool.errors import SpoolError
from spool.metrics import BOUNDS, METRICS, Histogram, Levels
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spool.metrics import Metric, Metrics, Tally
    from spool.web.site import Site

_LIMITS: Final = (*map(str, BOUNDS), "+Inf")


async def scrape(request: web.Request) -> web.Response:
    """`GET /metrics`, of all processes. What the storage does not tell while it fails is left out."""
    site = request.app[SITE]
    tally = site.tally() if site.gather is None else await site.gather()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(tally.metrics, await _look(site, tally)))
    registry.register(_Processes(tally.pids))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def _look(site: Site, tally: Tally) -> Levels:
    known = tally.active_uploads, {(name,): queued for name, queued in tally.queued.items()}
    try:
        free, totals = await site.blobs.free(), await site.index.totals()
    except SpoolError:
        return Levels(*known, ready=False, free=None)
    return Levels(
        *known,
        ready=await _is_ready(site),
        free=free,
        files=totals.files,
        kept_bytes=totals.size,
        damaged_files=totals.damaged,
        unfinished_uploads=totals.uploads,
        staged_bytes=totals.staged,
    )


async def _is_ready(site: Site) -> bool:
    try:
        await site.readiness.require()
    except SpoolError:
        return False
    return not site.traffic.draining


class _Collector(Collector):
    """Gives one scrape its metrics."""

    def __init__(self, metrics: Metrics, levels: Levels) -> None:
        self._metrics = metrics
        self._levels = levels

    def collect(self) -> Iterator[Family]:
        build = GaugeMetricFamily("spool_build_info", "The program.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        for metric in METRICS:
            value = getattr(self._metrics if hasattr(self._metrics, metric.member) else self._levels, metric.member)
            if value is not None:
                yield _family(metric, value)


class _Processes(Collector):
    """What the system knows of each process. If there are several, their numbers are told apart."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Family]:
        if len(self._pids) == 1:
            yield from ProcessCollector(registry=None).collect()
            return
        families: dict[str, Family] = {}
        for pid in self._pids:
            for of_one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                family = families.setdefault(of_one.name, Family(of_one.name, of_one.documentation, of_one.type))
                for sample in of_one.samples:
                    family.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from families.values()


def _family(metric: Metric, value: float | Histogram | Mapping[tuple[str, ...], int]) -> Family:
    if isinstance(value, Histogram):
        buckets = list(zip(_LIMITS, map(float, accumulate(value.counts)), strict=True))
        return HistogramMetricFamily(metric.name, metric.text, buckets=buckets, sum_value=value.sum)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.text, labels=metric.labels)
    values = {(): value} if isinstance(value, int | float) else value
    for labels, number in values.items():
        family.add_metric(labels, number)
    return family
