"""The alert rules of doc/monitoring/ by Prometheus itself: each fires for what it is for, and for nothing less."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.process import lacking
from tests.test_docs import fences
from tests.test_monitoring import ALERTS, ASKED, MONITORING, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RULES = MONITORING / "alerts.yaml"
HERE = {"instance": "a", "job": "spool"}


class Case(NamedTuple):
    """What is scraped each minute, in the notation of promtool, and whether an alert stands at a time."""

    alert: str
    scraped: Mapping[str, str]
    at: str
    labels: Mapping[str, str] | None = None
    """Of the alert that stands then, beside its severity; None if none does."""
    value: str = ""


def started(*moments: str) -> dict[str, str]:
    """When each process of a server started."""
    return {f'process_start_time_seconds{{pid="{number}"}}': moment for number, moment in enumerate(moments)}


SYNC = "spool_sync_seconds_bucket"
SLOW = {f'{SYNC}{{le="2.5"}}': "0x60", f'{SYNC}{{le="5"}}': "0+10x60", f'{SYNC}{{le="+Inf"}}': "0+10x60"}
FAILED = 'spool_uploads_total{protocol="tus",outcome="failed"}'
PROBLEMS = "spool_problems_total"
CASES = [
    Case("SpoolDown", {"up": "1 0x5"}, "4m", HERE),
    Case("SpoolDown", {"up": "1 0x5"}, "2m"),
    Case("SpoolNotReady", {"spool_ready": "1 0x5"}, "4m", HERE),
    Case("SpoolNotReady", {"spool_ready": "1 0 1 0 1"}, "3m"),
    Case("SpoolDamagedFiles", {"spool_damaged_files": "0 2"}, "1m", HERE, "2"),
    Case("SpoolDamagedFiles", {"spool_damaged_files": "0 0"}, "1m"),
    Case("SpoolUploadsFail", {FAILED: "0+1x20"}, "12m", {"instance": "a"}),
    Case("SpoolUploadsFail", {FAILED: "0x5 1x20"}, "10m"),
    Case("SpoolUploadsFail", {FAILED.replace("failed", "refused"): "0+1x20"}, "12m"),
    Case("SpoolDiskFillsUp", {"spool_disk_free_bytes": "100e9-100e6x480"}, "8h", HERE),
    Case("SpoolDiskFillsUp", {"spool_disk_free_bytes": "100e9-100e6x480"}, "45m"),
    Case("SpoolDiskFillsUp", {"spool_disk_free_bytes": "100e9-10e6x480"}, "8h"),
    Case("SpoolSweepsFail", {"spool_last_sweep_timestamp_seconds": "0x300", **started("0x300")}, "4h", HERE),
    Case("SpoolSweepsFail", {"spool_last_sweep_timestamp_seconds": "0x300", **started("0x300", "9e3x300")}, "4h", HERE),
    Case("SpoolSweepsFail", {"spool_last_sweep_timestamp_seconds": "0+60x300", **started("0x300")}, "4h"),
    Case("SpoolSweepsFail", {"spool_last_sweep_timestamp_seconds": "0x300", **started("9e3x300", "9e3x300")}, "4h"),
    Case("SpoolScrubFails", {"spool_scrub_failures_total": "0+1x60"}, "1h", HERE),
    Case("SpoolScrubFails", {"spool_scrub_failures_total": "0x70 3x60"}, "2h"),
    Case("SpoolScrubFindsDamage", {"spool_scrub_damaged_total": "0x10 2x10"}, "15m", HERE, "2"),
    Case("SpoolScrubFindsDamage", {"spool_scrub_damaged_total": "2x10"}, "10m"),
    Case("SpoolSyncsAreSlow", SLOW, "30m", {"instance": "a"}, "4.975"),
    Case("SpoolSyncsAreSlow", SLOW, "10m"),
    Case("SpoolSyncsAreSlow", {f'{SYNC}{{le="2.5"}}': "0+10x60", f'{SYNC}{{le="+Inf"}}': "0+10x60"}, "30m"),
    Case("SpoolCommitsWait", {'spool_queue_length{queue="index"}': "0 600x9"}, "7m", {**HERE, "queue": "index"}, "600"),
    Case("SpoolCommitsWait", {'spool_queue_length{queue="index"}': "0 600x9"}, "4m"),
    Case("SpoolCommitsWait", {'spool_queue_length{queue="index"}': "400x9"}, "7m"),
    Case("SpoolRefusesConnections", {"spool_connections_refused_total": "0x5 1x5"}, "8m", HERE),
    Case("SpoolRefusesConnections", {"spool_connections_refused_total": "5x10"}, "8m"),
    Case(
        "SpoolLimitsRefuse", {f'{PROBLEMS}{{problem="storage-full"}}': "0+30x40"}, "35m",
        {"instance": "a", "problem": "storage-full"},
    ),
    Case("SpoolLimitsRefuse", {f'{PROBLEMS}{{problem="storage-full"}}': "0+30x40"}, "12m"),
    Case("SpoolLimitsRefuse", {f'{PROBLEMS}{{problem="storage-full"}}': "0+3x40"}, "35m"),
    Case("SpoolLimitsRefuse", {f'{PROBLEMS}{{problem="not-found"}}': "0+300x40"}, "35m"),
]  # fmt: skip


def promtool(*arguments: str | Path) -> str:
    """What it says is wrong; nothing if all is well."""
    if shutil.which("promtool") is None:
        lacking("promtool is not installed: it comes with the package prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def labelled(series: str) -> str:
    """The series as it is of one server."""
    name, _, labels = series.rstrip("}").partition("{")
    known = [labels] if labels else []
    of_server = [f'{label}="{value}"' for label, value in HERE.items()]
    return name + "{" + ",".join([*known, *of_server]) + "}"


def expected(case: Case) -> list[object]:
    """The alerts that are to stand, with all that they say."""
    if case.labels is None:
        return []
    [rule] = (rule for rule in ALERTS if rule["alert"] == case.alert)
    known = {f"$labels.{name}": value for name, value in case.labels.items()} | {"$value": case.value}
    summary = re.sub(r"\{\{ (\S+) \}\}", lambda match: known[match[1]], rule["annotations"]["summary"])
    annotations = {**rule["annotations"], "summary": summary}
    return [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}]


def test_prometheus_reads_the_rules_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    assert promtool("check", "rules", RULES) == ""
    rules = [{"record": f"r{n}", "expr": re.sub(r"\$__\w+", "5m", text)} for n, text in enumerate(ASKED)]
    (tmp_path / "asked.yaml").write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    assert promtool("check", "rules", tmp_path / "asked.yaml") == ""


def test_prometheus_reads_the_configuration_that_the_document_shows(tmp_path: Path) -> None:
    [shown] = (block for block in fences((ROOT / "doc/operate.md").read_text(), "yaml") if "rule_files" in block)
    (tmp_path / "spool.token").write_text("spool_x")
    shutil.copy(RULES, tmp_path / "spool.yaml")
    (tmp_path / "prometheus.yaml").write_text(shown.replace("/etc/prometheus", str(tmp_path)))
    assert promtool("check", "config", tmp_path / "prometheus.yaml") == ""


def test_every_alert_has_a_case_for_and_one_against_it() -> None:
    fired, quiet = ({case.alert for case in CASES if (case.labels is None) == calm} for calm in (False, True))
    assert fired == quiet == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("alert", sorted({case.alert for case in CASES}))
def test_alert_fires_for_what_it_is_for_and_nothing_less(alert: str, tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": labelled(s), "values": values} for s, values in case.scraped.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": alert, "exp_alerts": expected(case)}],
        }
        for case in CASES
        if case.alert == alert
    ]
    (tmp_path / "tests.yaml").write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    assert promtool("test", "rules", tmp_path / "tests.yaml") == ""
