"""Planned tasks: plan, parts, summary and assembly as scripts, on a real Valkey."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
import redis

from contract import planned, store, submissions
from contract.assembly import AssembledFile, Assembly
from contract.record import RECORD_FIELDS, TaskRecord
from contract.redis_io import run
from contract.scripting import MAX_ATTEMPTS
from contract.task import Attempt, Job, PartResult, TaskOptions, TaskSpec, TaskStatus, Usage, new_task_id
from contract.units import ClipUnit, PageUnit, SummaryUnit, Unit
from contract.webhooks import TaskWebhook

QUEUE = "ovis2-reader"
USAGE = Usage(images=1, tiles=1, visual_tokens=576, output_tokens=24, gpu_seconds=0.25)
RESULT = PartResult(text="hello", finish_reason="stop", blob_key="results/x", usage=USAGE)
ERROR = '{"code":"truncated_image","detail":"the page is damaged","retryable":false}'
ASSEMBLY = Assembly(files={"json": AssembledFile(key="results/whole", size_bytes=9)}, text="hello")


def accept(client: redis.Redis, tenant: str = "acme", *, kind: str = "document", **changes: object) -> str:
    options = TaskOptions(**changes.pop("options", {}))  # type: ignore[arg-type]
    spec = TaskSpec(kind=kind, model=QUEUE, operation="ocr", prompt="Read.", options=options)  # type: ignore[arg-type]
    values = {"cost": 600, "weight": 1.0, "tenant_limit": 1000, "queue_limit": 1000, **changes}
    submission = submissions.Submission(task_id=new_task_id(), tenant=tenant, spec=spec, **values)  # type: ignore[arg-type]
    outcome, task_id = run(client, submissions.submit(submission))
    assert outcome == "created", outcome
    return task_id


def claim_job(client: redis.Redis, token: str = "job") -> Job:
    job = run(client, planned.claim_job(token=token, worker="io-1"))
    assert job is not None
    return job


def pages(count: int) -> list[Unit]:
    return [PageUnit(page=number) for number in range(1, count + 1)]


def plan(client: redis.Redis, units: Sequence[Unit], *, token: str = "job", summary_cost: int | None = None) -> Job:
    job = claim_job(client, token)
    assert job.name == "plan"
    assert run(client, planned.plant(job, units, cost=600, summary_cost=summary_cost)) == "committed"
    return job


def claim(client: redis.Redis, token: str) -> Attempt | None:
    return run(client, store.claim(QUEUE, token=token, worker="w1"))


def claimed(client: redis.Redis, token: str) -> Attempt:
    attempt = claim(client, token)
    assert attempt is not None
    return attempt


def work(client: redis.Redis, *, failing: Sequence[int] = (), run_name: str = "t") -> list[Attempt]:
    """Run every waiting part; reply the attempts in the order of their claims."""
    attempts: list[Attempt] = []
    while (attempt := claim(client, f"{run_name}{len(attempts)}")) is not None:
        attempts.append(attempt)
        bad = attempt.part in failing
        command = (
            store.finish(attempt, "failed", error_json=ERROR)
            if bad
            else store.finish(attempt, "succeeded", result=RESULT)
        )
        assert run(client, command) == "committed"
    return attempts


def assemble(client: redis.Redis, token: str = "whole") -> None:
    job = claim_job(client, token)
    assert job.name == "assemble"
    assert run(client, planned.finish_job(job, "succeeded", assembly=ASSEMBLY)) == "committed"


def record(client: redis.Redis, task_id: str) -> TaskRecord:
    values = client.hmget(store.task_key(task_id), RECORD_FIELDS)
    pairs = zip(RECORD_FIELDS, values, strict=True)
    return TaskRecord.from_hash(task_id, {name: value for name, value in pairs if value is not None})


def leave_nothing(client: redis.Redis) -> None:
    assert client.zcard("ovis:leases") == client.hlen("ovis:attempts") == 0
    for queue in (QUEUE, "io"):
        stats = client.hgetall(store.queue_stats_key(queue))
        assert (stats.get("waiting", "0"), stats.get("running", "0")) == ("0", "0")
        assert not client.exists(f"ovis:q:{queue}:tenants", f"ovis:q:{queue}:t:acme", f"ovis:q:{queue}:delayed")


def lose(client: redis.Redis) -> None:
    run(client, store.expire_leases())
    for token in client.zrange("ovis:leases", 0, -1):
        client.zadd("ovis:leases", {token: 1})
    run(client, store.expire_leases())


def test_a_document_waits_as_a_plan_and_then_as_its_pages_in_order(client: redis.Redis) -> None:
    task_id = accept(client)
    before = record(client, task_id)
    assert (before.status, before.stage, before.parts_total) == (TaskStatus.QUEUED, "planning", 0)
    assert (client.llen("io"), client.llen(QUEUE)) == (1, 0)
    assert claim(client, "too-early") is None
    plan(client, pages(12))
    after = record(client, task_id)
    assert (after.status, after.stage, after.parts_total) == (TaskStatus.RUNNING, "parts", 12)
    assert [attempt.unit for attempt in work(client)] == pages(12)


def test_the_last_page_orders_the_assembly_which_ends_the_task(client: redis.Redis) -> None:
    task_id = accept(client, webhook=TaskWebhook(url="https://example.com/hook").model_dump_json())
    plan(client, pages(3))
    work(client)
    assert record(client, task_id).stage == "assembling"
    assert client.llen("ovis:outbox") == 0
    assemble(client)
    after = record(client, task_id)
    assert (after.status, after.stage, after.assembly, after.attempts) == (TaskStatus.SUCCEEDED, None, ASSEMBLY, 3)
    assert after.usage == Usage(images=3, tiles=3, visual_tokens=1728, output_tokens=72, gpu_seconds=0.75)
    assert client.llen("ovis:outbox") == 1
    leave_nothing(client)


def test_repeated_and_late_commits_of_jobs_change_nothing(client: redis.Redis) -> None:
    task_id = accept(client)
    late = claim_job(client, "late")
    lose(client)
    job = claim_job(client, "second")
    assert job.number == 2
    assert run(client, planned.plant(late, pages(9), cost=1, summary_cost=None)) == "stale"
    for _ in range(2):  # the reply was lost, say
        assert run(client, planned.plant(job, pages(2), cost=1, summary_cost=None)) == "committed"
    assert record(client, task_id).parts_total == 2
    work(client)
    whole = claim_job(client, "whole")
    for _ in range(2):
        assert run(client, planned.finish_job(whole, "succeeded", assembly=ASSEMBLY)) == "committed"
    assert run(client, planned.finish_job(late, "failed", error_json=ERROR)) == "stale"
    assert record(client, task_id).status is TaskStatus.SUCCEEDED


def test_what_a_page_says_does_not_sit_in_the_record(client: redis.Redis) -> None:
    task_id = accept(client)
    plan(client, pages(1))
    work(client)
    part = planned.read_part(0, client.hmget(store.task_key(task_id), planned.part_fields(0)))
    assert part is not None
    assert part.result is not None
    assert (part.state, part.unit, part.result.text) == ("succeeded", PageUnit(page=1), None)
    assert planned.read_part(1, client.hmget(store.task_key(task_id), planned.part_fields(1))) is None


def test_a_plan_that_fails_fails_the_task(client: redis.Redis) -> None:
    task_id = accept(client)
    assert run(client, planned.finish_job(claim_job(client), "failed", error_json=ERROR)) == "committed"
    after = record(client, task_id)
    assert (after.status, after.parts_total) == (TaskStatus.FAILED, 0)
    assert after.error is not None
    assert after.error.code == "truncated_image"
    assert run(client, store.retry(task_id, "acme")) == "queued"
    plan(client, pages(1), token="again")
    leave_nothing_but_one = client.hget(store.queue_stats_key(QUEUE), "waiting")
    assert leave_nothing_but_one == "1"


def test_a_plan_whose_workers_die_is_a_dead_letter_with_its_history(client: redis.Redis) -> None:
    task_id = accept(client)
    for number in range(MAX_ATTEMPTS):
        assert claim_job(client, f"job-{number}").number == number + 1
        lose(client)
    after = record(client, task_id)
    assert after.error is not None
    assert after.error.code == "attempts_exhausted"
    assert client.zrange(store.dead_letters_key("acme"), 0, -1) == [task_id]
    ends = run(client, planned.history(task_id))
    assert [(end.part, end.attempt, end.why) for end in ends] == [("plan", n, "lease expired") for n in (1, 2, 3)]


def test_the_history_names_every_page_that_failed_and_no_other(client: redis.Redis) -> None:
    task_id = accept(client, options={"on_page_failure": "fail"})
    plan(client, pages(4))
    work(client, failing=(1, 3))
    assert record(client, task_id).status is TaskStatus.FAILED
    assert [(end.part, end.why) for end in run(client, planned.history(task_id))] == [(1, "failed"), (3, "failed")]
    assert [end.part for end in run(client, planned.history(task_id, most_parts=1))] == [1]


@pytest.mark.parametrize(
    ("option", "failing", "status"),
    [
        ("succeed", (1,), TaskStatus.SUCCEEDED),
        ("fail", (1,), TaskStatus.FAILED),
        ("succeed", (0, 1, 2), TaskStatus.FAILED),
        ("fail", (), TaskStatus.SUCCEEDED),
    ],
    ids=["one and that is fine", "one and that is not", "all of them", "none"],
)
def test_failed_pages_end_the_document_as_asked(
    client: redis.Redis, option: str, failing: tuple[int, ...], status: TaskStatus
) -> None:
    task_id = accept(client, options={"on_page_failure": option})
    plan(client, pages(3))
    work(client, failing=failing)
    if status is TaskStatus.SUCCEEDED:
        assemble(client)
    after = record(client, task_id)
    assert (after.status, after.parts_failed) == (status, len(failing))
    assert (after.error is not None) == (status is TaskStatus.FAILED)
    leave_nothing(client)


@pytest.mark.parametrize("option", ["succeed", "fail"])
def test_a_retry_runs_the_failed_pages_only_and_assembles_again(client: redis.Redis, option: str) -> None:
    task_id = accept(client, options={"on_page_failure": option})
    plan(client, pages(5))
    work(client, failing=(1, 4))
    if option == "succeed":
        assemble(client)
    assert record(client, task_id).can_be_retried
    assert run(client, store.retry(task_id, "acme")) == "queued"
    again = work(client, run_name="again")
    assert [(attempt.part, attempt.number) for attempt in again] == [(1, 1), (4, 1)]
    assemble(client, "second-whole")
    after = record(client, task_id)
    assert (after.status, after.parts_done, after.parts_failed, after.run) == (TaskStatus.SUCCEEDED, 5, 0, 2)
    assert after.usage is not None
    assert after.usage.images == 5
    assert not after.can_be_retried
    assert run(client, store.retry(task_id, "acme")) == "succeeded"
    leave_nothing(client)


@pytest.mark.parametrize("end", ["canceled", "canceled while assembling", "expired", "failed"])
def test_a_retry_that_ends_without_a_result_leaves_the_former_one(client: redis.Redis, end: str) -> None:
    task_id = accept(client)
    plan(client, pages(3))
    work(client, failing=(1,))
    assemble(client)
    assert run(client, store.retry(task_id, "acme")) == "queued"
    assert not record(client, task_id).is_assembled, "the run that is under way has none yet"
    if end in ("canceled while assembling", "failed"):
        work(client, run_name="again")
    if end == "failed":
        for number in range(MAX_ATTEMPTS):
            claim_job(client, f"again-{number}")
            lose(client)
    elif end == "expired":
        client.zadd("ovis:deadlines", {task_id: 1})
        run(client, store.expire_deadlines())
    else:
        run(client, store.cancel(task_id, "acme"))
    after = record(client, task_id)
    assert (after.status.value, after.is_assembled) == (end.split()[0], True)
    assert after.assembly == ASSEMBLY


def test_an_assembly_that_failed_is_all_that_a_retry_repeats(client: redis.Redis) -> None:
    task_id = accept(client)
    plan(client, pages(2))
    work(client)
    for number in range(MAX_ATTEMPTS):
        claim_job(client, f"whole-{number}")
        lose(client)
    assert record(client, task_id).status is TaskStatus.FAILED
    assert run(client, store.retry(task_id, "acme")) == "queued"
    assert claim(client, "nothing") is None
    assemble(client)
    assert record(client, task_id).status is TaskStatus.SUCCEEDED


def clips(count: int) -> list[Unit]:
    return [ClipUnit(start_s=10.0 * number, end_s=10.0 * (number + 1)) for number in range(count)]


def test_the_last_clip_orders_the_summary_which_orders_the_assembly(client: redis.Redis) -> None:
    task_id = accept(client, kind="video", options={"clip_s": 10.0})
    plan(client, clips(2), summary_cost=300)
    for number in range(2):
        run(client, store.finish(claimed(client, f"clip-{number}"), "succeeded", result=RESULT))
    summary = claimed(client, "summary")
    assert (summary.part, summary.unit) == (2, SummaryUnit())
    assert record(client, task_id).stage == "summary"
    assert run(client, planned.claim_job(token="early", worker="io-1")) is None
    run(client, store.finish(summary, "succeeded", result=RESULT))
    assemble(client)
    after = record(client, task_id)
    assert (after.status, after.parts_total, after.parts_done) == (TaskStatus.SUCCEEDED, 3, 3)


def test_a_retried_clip_is_followed_by_a_new_summary(client: redis.Redis) -> None:
    task_id = accept(client, kind="video", options={"clip_s": 10.0})
    plan(client, clips(3), summary_cost=300)
    assert [attempt.part for attempt in work(client, failing=(1,))] == [0, 1, 2, 3]
    assemble(client)
    assert run(client, store.retry(task_id, "acme")) == "queued"
    again = work(client, run_name="again")
    assert [(attempt.part, attempt.claims) for attempt in again] == [(1, 2), (3, 2)]
    assemble(client, "second-whole")
    after = record(client, task_id)
    assert (after.status, after.parts_total, after.parts_done, after.parts_failed) == (TaskStatus.SUCCEEDED, 4, 4, 0)
    assert after.usage is not None
    assert after.usage.images == 4, "the first summary isn't counted any more"


def test_no_summary_is_written_of_no_captions(client: redis.Redis) -> None:
    task_id = accept(client, kind="video", options={"clip_s": 10.0})
    plan(client, clips(2), summary_cost=300)
    work(client, failing=(0, 1))
    assert record(client, task_id).status is TaskStatus.FAILED
    leave_nothing(client)


def test_cancel_takes_waiting_pages_at_once_and_waits_for_running_ones(client: redis.Redis) -> None:
    task_id = accept(client)
    plan(client, pages(2000))
    running = [claimed(client, f"t{number}") for number in range(3)]
    began = time.monotonic()
    assert run(client, store.cancel(task_id, "acme")) == "canceling"
    assert time.monotonic() - began < 5
    assert claim(client, "nothing") is None
    assert [run(client, store.finish(attempt, "stopped")) for attempt in running] == ["canceled"] * 3
    after = record(client, task_id)
    assert (after.status, after.parts_done) == (TaskStatus.CANCELED, 0)
    leave_nothing(client)


@pytest.mark.parametrize("stage", ["waiting plan", "running plan", "waiting assembly", "running assembly"])
def test_a_job_can_be_canceled_at_any_time(client: redis.Redis, stage: str) -> None:
    task_id, job = accept(client), None
    if "assembly" in stage:
        plan(client, pages(1))
        work(client)
    if "running" in stage:
        job = claim_job(client, "held")
    status = run(client, store.cancel(task_id, "acme"))
    assert status == ("canceling" if job else "canceled")
    if job:
        assert run(client, store.renew("io", "io-1", 4, ["held"])) == {"held": "stop"}
        commit = planned.plant(job, pages(1), cost=1, summary_cost=None)
        late = planned.finish_job(job, "succeeded", assembly=ASSEMBLY)
        assert run(client, commit if job.name == "plan" else late) == "canceled"
    assert record(client, task_id).status is TaskStatus.CANCELED
    leave_nothing(client)


def test_a_late_document_expires_whatever_it_waits_for(client: redis.Redis) -> None:
    for stage in range(3):
        task_id = accept(client)
        client.zadd("ovis:deadlines", {task_id: 1})
        if stage > 0:
            plan(client, pages(2), token=f"plan-{stage}")
        if stage > 1:
            work(client, run_name=f"run-{stage}")
        assert run(client, store.expire_deadlines()) == 1
        assert record(client, task_id).status is TaskStatus.EXPIRED
        leave_nothing(client)


def test_a_file_of_more_pages_than_may_wait_is_planted_whole_and_the_next_plan_rests(client: redis.Redis) -> None:
    accept(client, tenant_limit=100)
    accept(client, tenant_limit=100)
    plan(client, pages(500))
    job = claim_job(client, "second")
    assert run(client, planned.plant(job, pages(2), cost=1, summary_cost=None)) == "tenant_full"
    assert run(client, store.release("second", "tenant_queue_full", counts=False, delay_s=60)) == "queued"
    assert record(client, job.task_id).status is TaskStatus.QUEUED
    others = accept(client, "other", queue_limit=502)
    assert run(client, planned.plant(claim_job(client, "third"), pages(1), cost=1, summary_cost=None)) == "committed"
    assert record(client, others).parts_total == 1


def test_a_tenant_with_as_much_waiting_as_it_may_plans_no_more(client: redis.Redis) -> None:
    accept(client, tenant_limit=1)
    spec = TaskSpec(kind="document", model=QUEUE, operation="ocr", prompt="Read.")
    second = submissions.Submission(new_task_id(), "acme", spec, 600, 1.0, tenant_limit=1, queue_limit=1000)
    assert run(client, submissions.submit(second))[0] == "tenant_full", "plans that wait count too"


def test_a_thousand_pages_of_one_tenant_do_not_delay_anothers_single_page(client: redis.Redis) -> None:
    accept(client)
    plan(client, pages(1000))
    claimed(client, "t0")
    accept(client, "small")
    plan(client, pages(1), token="small-plan")
    assert "small" in {claimed(client, f"t{number}").tenant for number in (1, 2)}


def test_scripts_stay_quick_with_two_thousand_pages(client: redis.Redis) -> None:
    """The figure is generous: what it guards against is work per page in each claim or commit."""
    task_id = accept(client)
    plan(client, pages(2000))
    client.config_resetstat()
    for attempt in [claimed(client, f"t{number}") for number in range(20)]:
        run(client, store.finish(attempt, "succeeded", result=RESULT))
    calls = client.info("commandstats")
    assert sum(stats["calls"] for name, stats in calls.items() if name.startswith("cmdstat_h")) < 40 * 40
    run(client, store.cancel(task_id, "acme"))
    run(client, store.purge(task_id))
    assert not client.exists(store.task_key(task_id))


def test_the_end_of_every_part_is_told(client: redis.Redis) -> None:
    task_id = accept(client)
    plan(client, pages(2))
    work(client, failing=(1,))
    told = [json.loads(fields["event"]) for _, fields in client.xrange(f"ovis:events:{task_id}")]
    assert [(event["part"], event["state"]) for event in told if event["kind"] == "part"] == [
        (0, "succeeded"),
        (1, "failed"),
    ]


def test_units_are_stored_as_json(client: redis.Redis) -> None:
    task_id = accept(client)
    plan(client, pages(1))
    assert json.loads(client.hget(store.task_key(task_id), "p0:unit") or "") == {"kind": "page", "page": 1}
