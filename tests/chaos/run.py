"""One chaos run from start to report."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contract import store
from contract.task import TaskStatus
from tests.chaos.audit import Audit, Findings
from tests.chaos.callers import Callers, Receipts, plan_orders
from tests.chaos.fleet import IO_WORKERS, MODEL_WORKERS, ChaosFleet
from tests.chaos.menu import build_menu
from tests.chaos.monkey import RATES, Death, Monkey, plan_faults


@dataclass(frozen=True)
class ChaosConfig:
    """What to run.

    Attributes:
        tasks: how many orders.
        duration_s: time in which orders come and faults hit.
        seed: of orders, faults and victims.
        settle_s: how long the fleet may take to end what is left.
        keep_logs: directory that gets every process's log where the audit isn't clean.
    """

    tasks: int
    duration_s: float
    seed: int
    settle_s: float = 240.0
    keep_logs: Path | None = None


@dataclass(frozen=True)
class Report:
    """What a run did and what its audit found."""

    config: ChaosConfig
    findings: Findings
    receipts: Receipts
    faults: dict[str, int]
    deaths: Sequence[Death]
    settled_s: float

    @property
    def clean(self) -> bool:
        """Whether the audit found nothing and every caller got an answer."""
        return self.findings.clean and not self.receipts.given_up

    def summary(self) -> dict[str, float]:
        """The last line of the output."""
        found, median, worst = self.findings, *self.findings.recovery_s
        return {
            "accepted": len(self.receipts.accepted),
            "ended": sum(count for status, count in found.statuses.items() if TaskStatus(status).ended),
            "lost": len(found.lost),
            "doubled": len(found.doubled),
            "wrong": len(found.wrong),
            "stuck": len(found.stuck),
            "left": len(found.left),
            "outbox_wrong": len(found.outbox),
            "orphans": found.orphans,
            "orphans_after_sweep": len(found.swept_not),
            "worker_kills": self.faults["kill_model"] + self.faults["kill_io"],
            "valkey_kills": self.faults["kill_valkey"],
            "s3_outages": self.faults["take_s3_away"],
            "cancels": len(self.receipts.cancels),
            "recovery_s_p50": median,
            "recovery_s_max": worst,
        }

    def print(self) -> None:
        """One table, what was found, and the summary as one line of JSON."""
        console = Console(width=100)
        table = Table(title=f"{self.config.tasks} tasks, {self.config.duration_s:.0f} s, seed {self.config.seed}")
        table.add_column("what")
        table.add_column("count", justify="right")
        for name, value in self._rows():
            table.add_row(name, str(value))
        console.print(table)
        found = self.findings
        for title in ("lost", "stuck", "doubled", "wrong", "left", "outbox", "swept_not"):
            for line in getattr(found, title):
                console.print(f"{title}: {line}", markup=False)
        for line in self.receipts.given_up:
            console.print(f"given up: {line}", markup=False)
        sys.stdout.write(json.dumps(self.summary()) + "\n")

    def _rows(self) -> list[tuple[str, object]]:
        statuses = sorted(self.findings.statuses.items())
        attempts = sorted(self.findings.attempts.items())
        answers = sorted(self.receipts.answers.items())
        return [
            *self.summary().items(),
            *((f"ended {status}", count) for status, count in statuses),
            *((f"tasks with {number} attempts", count) for number, count in attempts),
            *((f"fault {kind}", count) for kind, count in self.faults.items()),
            *((f"answer {answer}", count) for answer, count in answers),
            ("attempts that died with their worker", len(self.findings.recoveries_s)),
            ("workers killed with work in hand", sum(death.held > 0 for death in self.deaths)),
            ("seconds to settle", round(self.settled_s, 1)),
        ]


def run_chaos(config: ChaosConfig) -> Report:
    """Start the fleet, let callers and faults loose on it, wait, audit, stop."""
    menu = build_menu()
    orders = plan_orders(menu, config.tasks, config.duration_s, config.seed)
    with ChaosFleet() as fleet:
        callers, monkey = Callers(fleet, config.seed), Monkey(fleet, config.seed)
        faults = plan_faults(config.duration_s, config.seed)
        attack = threading.Thread(target=monkey.run, args=(faults,), name="monkey")
        attack.start()
        try:
            callers.run(orders)
        except BaseException:
            monkey.stop()
            raise
        attack.join()
        started = time.monotonic()
        settle(fleet, callers.receipts, config.settle_s)
        settled_s = time.monotonic() - started
        findings = Audit(fleet, callers.receipts, monkey.deaths).run()
        hit = {kind: monkey.done[kind] for kind in RATES}
        report = Report(config, findings, callers.receipts, hit, monkey.deaths, settled_s)
        if config.keep_logs is not None and not report.clean:
            fleet.copy_logs(config.keep_logs)
        return report


def settle(fleet: ChaosFleet, receipts: Receipts, timeout_s: float) -> None:
    """Wait until every role serves and every accepted task has ended, or the time is over."""
    deadline = time.monotonic() + timeout_s
    pending = set(receipts.accepted)
    roles = {"gateway", *MODEL_WORKERS, *IO_WORKERS}
    while (pending or roles) and time.monotonic() < deadline:
        pending = {task for task in pending if not _has_ended(fleet, task)}
        roles = {role for role in roles if not fleet.is_ready(role)}
        time.sleep(0.5)


def _has_ended(fleet: ChaosFleet, task: str) -> bool:
    status = fleet.patiently(lambda: fleet.client.hget(store.task_key(task), "status"))
    return status is not None and TaskStatus(status).ended
