from __future__ import annotations

import asyncio
from dataclasses import fields

import pytest

from spool.errors import (
    BadType,
    CutOff,
    DigestMismatch,
    QuotaExceeded,
    RequestTimeout,
    StorageFull,
    TooLarge,
    Unavailable,
)
from spool.metrics import BOUNDS, METRICS, Histogram, Levels, Metrics, outcome


def test_every_count_and_level_is_told_once() -> None:
    told = [metric.member for metric in METRICS]
    assert sorted(told) == sorted([*vars(Metrics()), *(field.name for field in fields(Levels))])


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in METRICS:
        assert metric.name.startswith("spool_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") or metric.kind != "histogram"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncio.CancelledError(), "cut_off"),
        (CutOff("x"), "cut_off"),
        (RequestTimeout("x"), "cut_off"),
        (ConnectionResetError(), "cut_off"),
        (BadType("x"), "refused"),
        (TooLarge("x"), "refused"),
        (DigestMismatch("x"), "refused"),
        (QuotaExceeded("x"), "refused"),
        (StorageFull("x"), "failed"),
        (Unavailable("x"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_outcome_tells_whose_fault_it_was(error: BaseException, expected: str) -> None:
    assert outcome(error) == expected


def test_histogram_counts_each_duration_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram()
    for seconds in (0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] * 2):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert histogram.sum == pytest.approx(BOUNDS[0] * 2.01 + BOUNDS[-1] * 3)
