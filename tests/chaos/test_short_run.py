"""A short attack on the whole fleet; `make chaos` is the long one."""

from __future__ import annotations

import pytest

from tests.chaos.run import ChaosConfig, run_chaos


@pytest.mark.timeout(420)
def test_no_task_is_lost_doubled_or_stuck_in_a_short_attack() -> None:
    report = run_chaos(ChaosConfig(tasks=60, duration_s=20, seed=1))
    report.print()
    assert not report.receipts.given_up
    assert report.findings.clean, report.findings
    assert report.summary()["ended"] == len(report.receipts.accepted) == 60
    assert all(report.faults[kind] for kind in ("kill_model", "kill_io", "kill_gateway", "kill_valkey", "take_s3_away"))
