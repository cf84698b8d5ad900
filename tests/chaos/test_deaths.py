"""Deaths that are aimed: at the worker that holds one task, at the only worker there is, and a pause like one."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from contract import store
from contract.record import TaskRecord
from contract.task import TaskStatus
from ovis_fleet import Client
from tests.chaos.fleet import MODEL_WORKERS, ChaosFleet
from tests.chaos.menu import MODEL, PICTURES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[ChaosFleet]:
    with ChaosFleet() as fleet:
        yield fleet


@pytest.fixture
def api(fleet: ChaosFleet) -> Iterator[Client]:
    until(lambda: all(fleet.is_ready(part) for part in MODEL_WORKERS), 60)
    with Client(fleet.stack.url, fleet.stack.api_key) as client:
        yield client


def until(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.005)


def submit(api: Client, pictures: list[Path]) -> str:
    return api.submit(pictures, model=MODEL, operation="ocr").id


def record(fleet: ChaosFleet, task: str) -> TaskRecord:
    return TaskRecord.from_hash(task, fleet.client.hgetall(store.task_key(task)))


def holder(fleet: ChaosFleet, task: str) -> str | None:
    """The worker that holds the task now; it may be dead already."""
    found = map(json.loads, fleet.client.hvals("ovis:attempts"))
    return next((str(attempt["worker"]) for attempt in found if attempt["task"] == task), None)


def part_of(fleet: ChaosFleet, worker: str) -> str:
    part = fleet.part_of(worker)
    assert part is not None
    return part


def test_a_poison_input_is_dead_lettered_after_three_deaths_and_no_neighbour_with_it(
    fleet: ChaosFleet, api: Client
) -> None:
    before = [submit(api, [PICTURES[number % len(PICTURES)]]) for number in range(6)]
    poison = submit(api, [*PICTURES[:3]])
    after = [submit(api, [PICTURES[number % len(PICTURES)]]) for number in range(6)]
    ended = threading.Event()
    deaths: list[str] = []

    def die_of_it() -> None:
        while not ended.wait(0.005):
            worker = holder(fleet, poison)
            if worker is not None and worker not in deaths:
                deaths.append(worker)
                fleet.kill(part_of(fleet, worker))

    killer = threading.Thread(target=die_of_it)
    killer.start()
    try:
        task = api.wait(poison, 180)
    finally:
        ended.set()
        killer.join()
    assert task.status == "failed"
    assert task.error is not None
    assert (task.error.code, len(deaths)) == ("attempts_exhausted", 3)
    assert [end.why for end in record(fleet, poison).history] == ["lease expired"] * 3
    assert {api.wait(neighbour, 120).status for neighbour in before + after} == {"succeeded"}
    assert fleet.client.zrange(store.dead_letters_key("default"), 0, -1) == [poison]


def test_a_worker_that_was_stopped_for_longer_than_its_lease_is_refused_its_late_result(
    fleet: ChaosFleet, api: Client
) -> None:
    task = submit(api, list(PICTURES[:5]))
    until(lambda: holder(fleet, task), 30)
    process = fleet.stack.parts[part_of(fleet, holder(fleet, task) or "")]
    process.send_signal(signal.SIGSTOP)
    try:
        ended = api.wait(task, 90)
        result = record(fleet, task).result
    finally:
        process.send_signal(signal.SIGCONT)
    assert ended.status == "succeeded"
    slow, fast = record(fleet, task).history
    assert (slow.why, fast.why) == ("lease expired", "succeeded")
    assert slow.worker != fast.worker

    def late_end() -> list[str]:
        lines = process.log_path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if task in line and "attempt_ended" in line]

    until(late_end, 60)
    assert json.loads(late_end()[0])["outcome"] in ("lost", "stale")
    after = record(fleet, task)
    assert (after.status, after.result, after.parts_done) == (TaskStatus.SUCCEEDED, result, 1)
    assert len(after.history) == 2
    os.kill(process.pid or 0, 0)


def test_the_work_of_the_only_worker_runs_again_within_thirty_seconds_of_its_death(
    fleet: ChaosFleet, api: Client
) -> None:
    fleet.kill("model-2", down_s=3600)
    waits = []
    try:
        for _ in range(3):
            tasks = [submit(api, list(PICTURES[:3])) for _ in range(4)]
            until(lambda: fleet.client.hlen("ovis:attempts") >= 4, 60)
            fleet.kill("model")
            died_ms = time.time_ns() // 1_000_000
            assert {api.wait(task, 120).status for task in tasks} == {"succeeded"}
            for before, after in (pair for task in tasks for pair in pairwise(record(fleet, task).history)):
                assert before.why == "lease expired"
                waits.append((after.started_ms - died_ms) / 1000)
    finally:
        fleet.revive("model-2")
    print(f"recovery_s_p50={statistics.median(waits):.1f} recovery_s_max={max(waits):.1f} of {len(waits)}")
    assert len(waits) >= 3
    assert max(waits) < 30
