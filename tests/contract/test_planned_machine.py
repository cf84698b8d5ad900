"""Any order of plan, claim, death, finish, cancel and retry keeps the laws of planned tasks, on a real Valkey.

Time passes by writing scores, never by sleeping.
"""

from __future__ import annotations

import json
from collections import Counter

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contract import planned, store, submissions
from contract.assembly import AssembledFile, Assembly
from contract.redis_io import run
from contract.scripting import MAX_ATTEMPTS
from contract.task import Attempt, Job, PartResult, TaskOptions, TaskSpec, TaskStatus, Usage
from contract.units import ClipUnit, PageUnit
from contract.webhooks import TaskWebhook

QUEUE = "ovis2-reader"
RESULT = PartResult(text="x", finish_reason="stop", blob_key="results/x", usage=Usage(images=1, output_tokens=2))
ASSEMBLY = Assembly(files={"json": AssembledFile(key="results/whole", size_bytes=1)})
ERROR = '{"code":"damaged_document","detail":"no page","retryable":false}'
COUNTERS = {"succeeded": "parts_done", "failed": "parts_failed", "canceled": "parts_canceled"}
OUTCOMES = ("succeeded", "succeeded", "succeeded", "failed")
which = st.integers(0, 1000)

WEBHOOK = TaskWebhook(url="https://a.b/c").model_dump_json()


class PlannedMachine(RuleBasedStateMachine):
    """Documents and videos by clips of one tenant, one worker of each role, and trouble."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.client = client
        self.tasks: dict[str, bool] = {}
        self.held: list[Attempt | Job] = []

    @initialize()
    def start(self) -> None:
        self.client.flushall()
        run(self.client, store.expire_leases())

    @rule(clips=st.booleans(), on_page_failure=st.sampled_from(("succeed", "fail")))
    def submit(self, clips, on_page_failure) -> None:
        task = f"task_{len(self.tasks):04d}"
        options = TaskOptions(on_page_failure=on_page_failure, clip_s=10.0 if clips else None)
        kind = "video" if clips else "document"
        spec = TaskSpec(kind=kind, model=QUEUE, operation="ocr", prompt="x", options=options, deadline_s=60)
        submission = submissions.Submission(task, "acme", spec, 5, 1.0, 1000, 1000, webhook=WEBHOOK)
        assert run(self.client, submissions.submit(submission)) == ("created", task)
        self.tasks[task] = clips

    @rule(job=st.booleans())
    def claim(self, job) -> None:
        token = f"token-{len(self.held)}"
        command = planned.claim_job(token=token, worker="io") if job else store.claim(QUEUE, token=token, worker="w")
        claim: Attempt | Job | None = run(self.client, command)  # type: ignore[arg-type]
        if claim is not None:
            self.held.append(claim)

    @precondition(lambda self: self.tasks)
    @rule(steps=st.integers(1, 8), bad=st.integers(0, 3))
    def work_goes_on(self, steps, bad) -> None:
        """Claims that are finished at once; every fourth part fails, or none."""
        for step in range(steps):
            for job in (True, False):
                count = len(self.held)
                self.claim(job)
                if len(self.held) > count:
                    failing = not job and bad and (step + bad) % 4 == 0
                    self.finish(0, "failed" if failing else "succeeded", 2)

    @precondition(lambda self: self.held)
    @rule(index=which, outcome=st.sampled_from(OUTCOMES), parts=st.integers(1, 3))
    def finish(self, index, outcome, parts) -> None:
        """By any claim that ever was: in time, late, or again."""
        claim = self.held[-1 - index % len(self.held)]
        before, live = self._record(claim.task_id), claim.token in self._live()
        error = ERROR if outcome == "failed" else ""
        if isinstance(claim, Attempt):
            result = RESULT if outcome == "succeeded" else None
            reply = run(self.client, store.finish(claim, outcome, result=result, error_json=error))
        elif claim.name == "plan" and outcome == "succeeded":
            summary_cost = 7 if self.tasks[claim.task_id] else None
            reply = run(self.client, planned.plant(claim, self._units(claim, parts), cost=5, summary_cost=summary_cost))
        else:
            assembly = ASSEMBLY if outcome == "succeeded" else None
            reply = run(self.client, planned.finish_job(claim, outcome, assembly=assembly, error_json=error))
        if not live:
            assert self._record(claim.task_id) == before, "a late commit changes nothing"
        else:
            assert reply == ("canceled" if before.get("stop") else "committed")

    def _units(self, claim: Job, parts: int):
        if self.tasks[claim.task_id]:
            return [ClipUnit(start_s=n, end_s=n + 1) for n in range(parts)]
        return [PageUnit(page=n + 1) for n in range(parts)]

    @rule()
    def every_worker_dies(self) -> None:
        if live := list(self._live()):
            self.client.zadd("ovis:leases", dict.fromkeys(live, 1))
        run(self.client, store.expire_leases())

    @precondition(lambda self: self.held)
    @rule(index=which, delay_s=st.sampled_from((0.0, 60.0)))
    def release(self, index, delay_s) -> None:
        run(
            self.client, store.release(self.held[-1 - index % len(self.held)].token, "x", counts=False, delay_s=delay_s)
        )

    @rule()
    def resting_parts_have_rested(self) -> None:
        for queue in (QUEUE, "io"):
            if resting := self.client.zrange(f"ovis:q:{queue}:delayed", 0, -1):
                self.client.zadd(f"ovis:q:{queue}:delayed", dict.fromkeys(resting, 1))
            run(self.client, store.top_up(queue))

    @precondition(lambda self: self.tasks)
    @rule(index=which, late=st.booleans())
    def stop(self, index, late) -> None:
        task = list(self.tasks)[index % len(self.tasks)]
        if late and self.client.zscore("ovis:deadlines", task):
            self.client.zadd("ovis:deadlines", {task: 1})
            run(self.client, store.expire_deadlines())
        elif index % 3 == 0:
            run(self.client, store.cancel(task, "acme"))

    @precondition(lambda self: self.tasks)
    @rule(index=which)
    def retry(self, index) -> None:
        lacking = [task for task in self.tasks if int(self._record(task)["parts_failed"])]
        open_to_retry = [task for task in lacking if self._record(task)["status"] in ("succeeded", "failed")]
        candidates = open_to_retry or list(self.tasks)
        task = candidates[index % len(candidates)]
        before = self._record(task)
        failed = before["status"] == "failed"
        incomplete = before["status"] == "succeeded" and int(before["parts_failed"]) > 0
        reply = run(self.client, store.retry(task, "acme"))
        assert reply == ("queued" if failed or incomplete else before["status"])
        if failed or incomplete:
            after = self._record(task)
            summary = before.get("summary_part")
            for name, value in before.items():
                if name.endswith(":result") and name.removesuffix(":result") not in (f"p{summary}", "passemble"):
                    assert after.get(name) == value, "what was done stays done"

    # What must hold after each -----------------------------------------------------------------------------------

    @invariant()
    def the_laws_hold(self) -> None:
        waiting: Counter[str] = Counter()
        running = set()
        for task in self.tasks:
            record = self._record(task)
            states = self._check_record(task, record)
            for part, state in states.items():
                place = self._place(task, part)
                assert (state == "waiting") == (place != ""), (task, part, state, place)
                waiting[place] += place in ("io", QUEUE)
                if state == "running":
                    running.add(record[f"p{part}:token"])
        assert running == self._live() == set(self.client.zrange("ovis:leases", 0, -1))
        for queue in (QUEUE, "io"):
            assert int(self.client.hget(store.queue_stats_key(queue), "waiting") or 0) == waiting[queue]

    def _check_record(self, task: str, record: dict[str, str]) -> dict[str, str]:
        status, total = TaskStatus(record["status"]), int(record["parts_total"])
        numbered = {str(part): record[f"p{part}:state"] for part in range(total)}
        jobs = {name: record[f"p{name}:state"] for name in ("plan", "assemble") if f"p{name}:state" in record}
        counts = Counter(numbered.values())
        assert {state: int(record[name]) for state, name in COUNTERS.items()} == {s: counts[s] for s in COUNTERS}
        open_parts = [state for state in (*numbered.values(), *jobs.values()) if state in ("waiting", "running")]
        assert status.ended == (not open_parts), (task, status, numbered, jobs)
        assert status.ended == ("stage" not in record)
        assert jobs["plan"] == "succeeded" or total == 0, "parts are there once the plan is"
        if jobs.get("assemble") in ("waiting", "running"):
            assert not counts["waiting"] + counts["running"], "the assembly is the last"
        if status is TaskStatus.SUCCEEDED:
            assert jobs["assemble"] == "succeeded"
            assert counts["succeeded"] > 0
            assert not counts["failed"] or record["on_page_failure"] == "succeed"
        if status is TaskStatus.FAILED:
            assert "error" in record
        for part in (*numbered, *jobs):
            assert 0 <= int(record[f"p{part}:attempts"]) <= MAX_ATTEMPTS
        used = json.loads(record.get("usage", "{}"))
        assert used.get("images", 0) == counts["succeeded"], "usage is the sum of the parts"
        ends = [entry for entry in map(json.loads, self.client.lrange("ovis:outbox", 0, -1)) if entry["task"] == task]
        assert [entry["run"] for entry in ends] == list(range(1, int(record["run"]) + status.ended))
        return {**numbered, **jobs}

    def _place(self, task: str, part: str) -> str:
        """The queue that a part waits in, or "resting"; "" where it waits nowhere."""
        member, queue = f"{task}/{part}", QUEUE if part.isdigit() else "io"
        places = [f"ovis:q:{queue}:{name}" for name in ("t:acme", "suspects2", "suspects3", "delayed")]
        found = [key for key in places if self.client.zscore(key, member) is not None]
        assert len(found) <= 1, found
        return "" if not found else "resting" if found[0].endswith("delayed") else queue

    def _record(self, task: str) -> dict[str, str]:
        return self.client.hgetall(store.task_key(task))

    def _live(self) -> set[str]:
        return set(self.client.hkeys("ovis:attempts"))


def test_any_order_of_changes_keeps_the_laws_of_planned_tasks(client: redis.Redis) -> None:
    run_state_machine_as_test(
        lambda: PlannedMachine(client),
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
