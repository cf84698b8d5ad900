"""What is left when the dust has settled: every accepted task ended once and right, and nothing else remains."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from contract import store
from contract.blobs import result_key
from contract.errors import FleetError
from contract.task import TaskStatus
from tests.chaos.callers import Order, Receipts
from tests.chaos.fleet import ChaosFleet
from tests.chaos.menu import MODEL
from tests.chaos.monkey import Death
from workers.sweep import sweep_orphans

#: The tenant of the local stack.
_TENANT = "default"

#: What must be gone when nothing runs: keys of the queue that hold parts, attempts or leases.
_EMPTY_KEYS = (
    *("ovis:leases", "ovis:attempts", "ovis:deadlines"),
    *(f"ovis:q:{MODEL}:{name}" for name in ("tenants", f"t:{_TENANT}", "suspects2", "suspects3", "delayed", "held")),
)


@dataclass
class Findings:
    """What the audit found; every list holds one line per case.

    Attributes:
        statuses: how the accepted tasks ended.
        lost: accepted, and no record is there.
        stuck: accepted, and not ended when the waiting was over.
        doubled: two results of one part, two tasks of one order, or results that don't match their count.
        wrong: another text, another error, or an end that nobody asked for.
        left: leases, attempts, rows, counters or processes that outlived the work.
        outbox: ends without their event, or events without their end.
        orphans: tasks of which objects were stored and no record was written.
        swept_not: what one sweep left of them.
        recoveries_s: for each attempt that died with its worker, the time from that death to the part's next attempt.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    outbox: list[str] = field(default_factory=list)
    orphans: int = 0
    swept_not: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether no law was broken."""
        return not (self.lost or self.stuck or self.doubled or self.wrong or self.left or self.outbox or self.swept_not)

    @property
    def recovery_s(self) -> tuple[float, float]:
        """Median and worst; zeros where no attempt died."""
        found = self.recoveries_s
        return (round(statistics.median(found), 2), round(max(found), 2)) if found else (0.0, 0.0)


class Audit:
    """Compares what the callers saw with what the stores hold. Everything must run but nothing must be under way."""

    def __init__(self, fleet: ChaosFleet, receipts: Receipts, deaths: Sequence[Death]) -> None:
        self._fleet = fleet
        self._receipts = receipts
        self._deaths = {death.worker: death.at_ms for death in deaths}
        self.findings = Findings()

    def run(self) -> Findings:
        """Look at everything once."""
        records = {task: self._read(task) for task in self._receipts.accepted}
        for task, order in self._receipts.accepted.items():
            record = records[task]
            if not record:
                self.findings.lost.append(task)
                continue
            self.findings.statuses[record["status"]] += 1
            self.findings.attempts[int(record["attempts"])] += 1
            if not TaskStatus(record["status"]).ended:
                self.findings.stuck.append(f"{task} {record['status']}: {_parts(record)}")
                continue
            self._check_result(task, order, record)
            self._measure_recovery(record)
        self._check_index(records)
        self._check_leftovers()
        self._check_outbox(records)
        self._check_objects()
        return self.findings

    def _read(self, task: str) -> dict[str, str]:
        return self._fleet.patiently(lambda: self._fleet.client.hgetall(store.task_key(task)))

    def _check_result(self, task: str, order: Order, record: Mapping[str, str]) -> None:
        status, name = record["status"], f"{task} ({order.dish.name})"
        history = _history(record)
        committed = sum(line["why"] == "succeeded" for line in history)
        if committed > 1 or int(record["parts_done"]) != (status == "succeeded"):
            self.findings.doubled.append(f"{name} {status}: {_parts(record)}")
        if status == "canceled":
            if order.cancel_after_s is None:
                self.findings.wrong.append(f"{name}: canceled, and nobody asked for it")
        elif status == "succeeded" and order.dish.text is not None:
            self._check_text(name, task, order.dish.text, record)
        elif status == "failed" and order.dish.code is not None:
            code = json.loads(record["error"])["code"]
            if code != order.dish.code:
                self.findings.wrong.append(f"{name}: {code} instead of {order.dish.code}: {_parts(record)}")
        else:
            self.findings.wrong.append(f"{name}: {status} {record.get('error', '')}: {_parts(record)}")

    def _check_text(self, name: str, task: str, text: str, record: Mapping[str, str]) -> None:
        result = json.loads(record["p0:result"])
        try:
            stored = json.loads(self._fleet.blobs.get(result["blob_key"]))["text"]
        except FleetError as exc:
            self.findings.wrong.append(f"{name}: {result['blob_key']}: {exc}")
            return
        if result["text"] != text or stored != text:
            self.findings.wrong.append(f"{name}: read {result['text']!r}, stored {stored!r}, right is {text!r}")
        if not result["blob_key"].startswith(result_key(_TENANT, task, 0, 0).rsplit("/attempt-", 1)[0]):
            self.findings.wrong.append(f"{name}: its result lies at {result['blob_key']}")

    def _measure_recovery(self, record: Mapping[str, str]) -> None:
        for line, after in pairwise(_history(record)):
            death_ms = self._deaths.get(str(line["worker"]).split("@")[0])
            if line["why"] == "lease expired" and death_ms is not None:
                self.findings.recoveries_s.append((int(after["started_ms"]) - death_ms) / 1000)

    def _check_index(self, records: Mapping[str, Mapping[str, str]]) -> None:
        """An order whose 202 was never seen may have made a task; then it is the only one of its order."""
        listed = self._fleet.patiently(lambda: self._fleet.client.zrange(store.index_key(_TENANT), 0, -1))
        orders: Counter[str] = Counter()
        for task in map(str, listed):
            record = records.get(task) or self._read(task)
            orders[json.loads(record["spec"])["metadata"]["order"]] += 1
        self.findings.doubled += [f"order {order} made {count} tasks" for order, count in orders.items() if count > 1]
        self.findings.lost += [f"{task} is not in the index" for task in set(records) - set(listed)]

    def _check_leftovers(self) -> None:
        client, left = self._fleet.client, self.findings.left
        left += [
            f"{key} is not empty" for key in _EMPTY_KEYS if self._fleet.patiently(lambda key=key: client.exists(key))
        ]
        stats = self._fleet.patiently(lambda: client.hgetall(store.queue_stats_key(MODEL)))
        left += [
            f"stats: {name} {stats[name]}" for name in ("waiting", "running", "delayed") if int(stats.get(name, 0))
        ]
        load = self._fleet.patiently(lambda: client.hgetall("ovis:load"))
        left += [f"load: {name} {count}" for name, count in load.items() if int(count)]
        left += [f"media process {pid} outlived its worker" for pid in self._fleet.orphaned_media()]

    def _check_outbox(self, records: Mapping[str, Mapping[str, str]]) -> None:
        events = Counter(self._events())
        ended = {task for task, record in records.items() if record and TaskStatus(record["status"]).ended}
        owed = {(task, int(records[task]["run"])) for task in self._receipts.webhooks & ended}
        self.findings.outbox += [f"{task} run {run}: no event" for task, run in owed - set(events)]
        self.findings.outbox += [f"{task} run {run}: an event too many" for task, run in set(events) - owed]
        self.findings.outbox += [f"{event}: {count} events" for event, count in events.items() if count > 1]

    def _events(self) -> list[tuple[str, int]]:
        """Task and run of every event: in the outbox still, or a delivery already."""
        client = self._fleet.client
        texts = self._fleet.patiently(lambda: client.lrange("ovis:outbox", 0, -1))
        for key in self._fleet.patiently(lambda: list(client.scan_iter("ovis:delivery:*"))):
            texts.append(self._fleet.patiently(lambda key=key: client.hget(key, "event")))
        return [(event["task"], int(event["run"])) for event in map(json.loads, texts)]

    def _check_objects(self) -> None:
        self.findings.orphans = len(self._orphans())
        if self.findings.orphans:
            self._fleet.patiently(lambda: sweep_orphans(self._fleet.client, self._fleet.blobs, min_age_s=0))
            self.findings.swept_not = [f"{task} has objects and no record" for task in self._orphans()]

    def _orphans(self) -> set[str]:
        stored = {task.task_id for room in ("inputs", "results") for task in self._fleet.blobs.list_tasks(room)}
        return {task for task in stored if not self._read(task)}


def _history(record: Mapping[str, str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in record.get("p0:history", "").splitlines()]


def _parts(record: Mapping[str, str]) -> str:
    ends = " | ".join(f"{line['attempt']} {line['worker']} {line['why']}" for line in _history(record))
    return f"p0 {record['p0:state']}, stop {record.get('stop', '-')}, attempts: {ends or 'none'}"
