from __future__ import annotations

import asyncio
import json
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


def counted(number: int) -> Metrics:
    """Everything was counted so often."""
    metrics = Metrics()
    for name, value in vars(metrics).items():
        match value:
            case Histogram():
                for _ in range(number):
                    value.observe(0.5)
            case dict():
                value["a", "b"] += number
            case _:
                setattr(metrics, name, number)
    return metrics


def test_counts_of_two_processes_add_up() -> None:
    total = counted(2)
    total.add(json.loads(json.dumps(counted(3).told())))
    assert total.told() == counted(5).told()
    assert total.requests["a", "b"] == total.committed_files == sum(total.sync.counts) == 5
