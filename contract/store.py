"""Tasks in Redis: the keys, and every change as one script.

A change is described by a ``Command`` (pure data); ``contract.redis_io`` runs it, from sync or async code. All times
are milliseconds by the clock of Redis. Scripts are safe to repeat: a client may retry after a lost reply.

==============================  ======  ===================================================================
key                             type    holds
==============================  ======  ===================================================================
ovis:task:<id>                  hash    the record: tenant, queue, status, created_ms, spec (JSON), weight, band,
                                        retention_s, run, attempts, parts_total/done/failed/canceled, started_ms,
                                        ended_ms, expires_ms, stop ("cancel" | "deadline"), deadline_s, deadline_ms,
                                        retry_key, bytes, error, part_error, webhook (JSON), hooks (events and
                                        deliveries that haven't ended); and per part n: pn:state, pn:attempts,
                                        pn:claims, pn:token, pn:cost, pn:result, pn:error, pn:history (a JSON
                                        line per ended attempt). Of a planned task also: planned, stage ("planning" |
                                        "parts" | "summary" | "assembling"), on_page_failure, tenant_limit,
                                        queue_limit, usage (JSON, the parts' sum), summary_cost, summary_part,
                                        pn:unit (JSON), and the jobs' own fields pplan:... and passemble:...
ovis:index:<tenant>             zset    the tenant's task ids; ids sort by creation
ovis:idem:<tenant>:<key>        string  "<task id> <body hash>"; lives a day
ovis:purged:<id>                string  the tenant of a purged task; lives a week
ovis:q:<queue>:tenants          zset    tenants with waiting parts, by virtual time
ovis:q:<queue>:t:<tenant>       zset    waiting parts "<id>/<part>", by priority band, then age; on the queue io
                                        "<id>/plan" and "<id>/assemble"
ovis:q:<queue>:suspects2        zset    parts "<id>/<part>" that wait for their second attempt, by age
ovis:q:<queue>:suspects3        zset    the same for the third
ovis:q:<queue>:quarantine       string  the worker that sees to suspects; lives as long as a lease
ovis:q:<queue>:delayed          zset    parts that rest before they wait again, by the time at which they do
ovis:q:<queue>:held             hash    "<kind>:<worker>" -> attempts that the worker holds, by kind (1, 2, 3)
ovis:q:<queue>:vt               hash    virtual time of every tenant seen
ovis:q:<queue>:clock            string  virtual time of the last claim
ovis:q:<queue>:stats            hash    waiting, running, delayed, slots, workers
ovis:q:<queue>:workers          zset    workers by last heartbeat
ovis:q:<queue>:pace             hash    sums over lately finished parts: parts, output_tokens, cost, seconds
ovis:estimates                  list    estimates that gateways ask for
ovis:estimate:<id>              list    the answer to one; lives a minute
ovis:estimates:of:<tenant>      zset    the tenant's estimates that wait, by the time at which their askers give up
ovis:q:<queue>:slots            hash    parts that each worker takes at once
ovis:queues                     set     names of queues ever used
ovis:leases                     zset    attempt tokens by expiry
ovis:attempts                   hash    token -> attempt (JSON)
ovis:reaper:last                string  when leases were last looked at
ovis:retention                  zset    ended tasks by the time at which they are purged
ovis:deadlines                  zset    tasks with a deadline by the time of it
ovis:dead:<tenant>              zset    dead letters: tasks whose attempts are exhausted, by the time of their end
ovis:load                       hash    "t:<tenant>" and "q:<queue>" -> bytes of the inputs of un-ended tasks;
                                        "n:<tenant>" -> how many there are; "f:<tenant>" -> bytes of files,
                                        "b:<tenant>" -> batches that haven't ended
ovis:usage:<tenant>:<day>       hash    what was used on a day (days since 1970, UTC): tasks_<status>, tokens, ...
ovis:upload:<tenant>:<id>       string  the media type of an upload that was announced; lives a day
ovis:rate...                    string  requests of a tenant in this second
ovis:rows:<queue>:<host>        string  rows an engine may run there, lowered after it ran out of memory; an hour
ovis:cache:<tenant>:<question>  string  when the answer in S3 was kept; lives as long as the answer may be given
ovis:swept                      string  stands while the last sweep for orphans is recent
ovis:lock:purge                 string  held by the io worker that purges
ovis:outbox                     list    webhook events that are no deliveries yet (JSON)
ovis:delivery:<id>              hash    a webhook delivery: tenant, receiver, endpoint or url, task, type, event (JSON),
                                        status, tries, created_ms, due_ms, ended_ms, give_up_ms, token, body, why, and
                                        log (a JSON line per attempt); three days after its end it goes
ovis:deliveries:<tenant>        zset    the tenant's delivery ids; ids sort by time
ovis:hooks:endpoint:<id>        hash    tenant, url, events (JSON), enabled, description, created_ms, disabled_why, and
                                        secret, old_secret (both encrypted), old_until_ms
ovis:hooks:endpoints:<tenant>   zset    the tenant's endpoint ids; ids sort by creation
ovis:hooks:on:<tenant>:<type>   set     enabled endpoints that want such events
ovis:hooks:secret:<tenant>      hash    the secret for the webhooks that tasks name themselves; fields as an endpoint's
ovis:hooks:receivers            zset    receivers with deliveries to send, by the time at which they may be called
ovis:hooks:due:<receiver>       zset    deliveries that wait for the receiver, by the time they are due
ovis:hooks:health:<receiver>    hash    sending, failures (in a row), open_until_ms (it rests until then)
ovis:hooks:sending              zset    deliveries under way, by the time at which their sender counts as lost
ovis:file:<id>                  hash    a file of a batch: tenant, purpose, filename, blob (its key in S3), bytes,
                                        created_ms, expires_ms, uses (batches that still read it)
ovis:files:<tenant>             zset    the tenant's file ids; ids sort by creation
ovis:file-retention             zset    files by the time at which they are deleted
ovis:batch:<id>                 hash    tenant, status, input_file, input_blob, endpoint, completion_window, metadata
                                        (JSON), terms (JSON, until the end), kept_s, <status>_ms, expires_ms, ended_ms;
                                        in lines: total, fed, completed, failed, late, stopped (asked to end); offset of
                                        the next line in bytes; token and claims of who looks at it, losses (of holders,
                                        one after the other, at one place), ended_by; output_file, error_file, errors
                                        (JSON), usage (JSON)
ovis:batch:<id>:refused         hash    line -> error (JSON) of lines that became no task; until the batch ends
ovis:batches:<tenant>           zset    the tenant's batch ids; ids sort by creation
ovis:batches-due                zset    batches that haven't ended, by when they are looked at next, or their lease ends
ovis:batch-retention            zset    ended batches by the time at which they are forgotten
ovis:batch-claim:<token>        string  the batch that a claim gave; lives as long as a lease
ovis:events:<id>                stream  what happened to a task, for those who follow it
ovis:wakeups                    string  counter behind the wake-ups' tags
<queue>                         list    Celery's wake-ups
channels                                ovis:ended (a task's id), ovis:stop (a task's id), ovis:events:<id> (news in the
                                        stream of that name)
==============================  ======  ===================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from contract.scripting import Command, load_script
from contract.task import Attempt, PartResult, TaskSpec
from contract.units import Unit

#: How long an idempotency key is remembered.
IDEMPOTENCY_S = 86_400
#: How long a purged id answers 410 instead of 404.
PURGED_S = 7 * 86_400

ENDED_CHANNEL = "ovis:ended"
STOP_CHANNEL = "ovis:stop"
QUEUES_KEY = "ovis:queues"
RETENTION_KEY = "ovis:retention"
LOAD_KEY = "ovis:load"
REAPER_KEY = "ovis:reaper:last"

FinishOutcome = Literal["committed", "canceled", "stale"]
ReleaseOutcome = Literal["queued", "canceled", "exhausted", "gone", "stale"]
RenewReply = Literal["ok", "stop", "lost"]

_unit: TypeAdapter[Unit] = TypeAdapter(Unit)


def task_key(task_id: str) -> str:
    """Key of a record."""
    return f"ovis:task:{task_id}"


def purged_key(task_id: str) -> str:
    """Key that says whose a purged id was."""
    return f"ovis:purged:{task_id}"


def idempotency_key(tenant: str, key: str) -> str:
    """Key that says which task an idempotency key stands for."""
    return f"ovis:idem:{tenant}:{key}"


def rows_key(queue: str, host: str) -> str:
    """Key of a host's lowered row limit."""
    return f"ovis:rows:{queue}:{host}"


def cached_key(tenant: str, question: str) -> str:
    """Key that stands while the answer to a question may be given again."""
    return f"ovis:cache:{tenant}:{question}"


def announced_key(tenant: str, upload_id: str) -> str:
    """Key that says that an upload may come."""
    return f"ovis:upload:{tenant}:{upload_id}"


def dead_letters_key(tenant: str) -> str:
    """Key of a tenant's dead letters."""
    return f"ovis:dead:{tenant}"


def index_key(tenant: str) -> str:
    """Key of a tenant's list of tasks."""
    return f"ovis:index:{tenant}"


def usage_key(tenant: str, day: int) -> str:
    """Key of what a tenant used on a day, counted from 1970-01-01 in UTC."""
    return f"ovis:usage:{tenant}:{day}"


def queue_key(queue: str, suffix: str) -> str:
    """Key of a part of a queue; see the table."""
    return f"ovis:q:{queue}:{suffix}"


def queue_stats_key(queue: str) -> str:
    """Key of a queue's counters."""
    return f"ovis:q:{queue}:stats"


def claim(queue: str, *, token: str, worker: str) -> Command[Attempt | None]:
    """Take the next part in fair order under a lease; None where nothing waits."""

    def parse(reply: list[Any] | None) -> Attempt | None:
        if reply is None:
            return None
        task_id, tenant, part, number, claims, queued_ms, spec, unit = reply
        return Attempt(
            token=token,
            task_id=task_id,
            tenant=tenant,
            part=int(part),
            number=int(number),
            claims=int(claims),
            queued_ms=int(queued_ms),
            spec=TaskSpec.model_validate_json(spec),
            unit=_unit.validate_json(unit) if unit else None,
        )

    return Command(load_script("claim"), (queue, token, worker), parse)


def renew(queue: str, worker: str, slots: int, tokens: Sequence[str]) -> Command[dict[str, RenewReply]]:
    """Heartbeat of a worker with the attempts it holds; reply what to do with each."""
    return Command(
        load_script("renew"),
        (queue, worker, slots, *tokens),
        lambda reply: dict(zip(tokens, reply, strict=True)),
    )


def finish(
    attempt: Attempt,
    outcome: Literal["succeeded", "failed", "stopped"],
    *,
    result: PartResult | None = None,
    error_json: str = "",
) -> Command[FinishOutcome]:
    """Commit an attempt by compare-and-set on its token.

    What a part of a planned task says is kept in the blob store alone: a record may have thousands of parts.

    The tenant is charged for the tokens, or for the time that the part held its slot outside the engine where that
    comes to more; never more than the claim charged for the time, and nothing where the task was canceled.
    """
    if result is not None and attempt.unit is not None:
        result = result.model_copy(update={"text": None, "data": None})
    args = (
        attempt.token,
        attempt.task_id,
        attempt.part,
        outcome,
        result.model_dump_json() if result else "",
        error_json,
        result.usage.cost if result else 0,
    )
    return Command(load_script("finish"), args, lambda reply: reply)


def release(token: str, why: str, *, counts: bool, delay_s: float = 0.0) -> Command[ReleaseOutcome]:
    """Hand an attempt back.

    Args:
        token: The attempt's.
        why: For the part's history.
        counts: Whether the try is used up: it may be the part's fault, so the tenant is charged for the time. What
            doesn't count, a drain or an outage, costs nothing.
        delay_s: How long the part rests before it may be claimed.
    """
    args = (token, why, int(counts), round(delay_s * 1000))
    return Command(load_script("release"), args, lambda reply: reply)


@dataclass(frozen=True)
class Expired:
    """What one look at the leases did."""

    extended: int
    requeued: int
    exhausted: int


def expire_leases(limit: int = 1000) -> Command[Expired]:
    """Take back attempts whose lease ran out."""
    return Command(load_script("expire"), (limit,), lambda reply: Expired(*map(int, reply)))


def cancel(task_id: str, tenant: str) -> Command[str]:
    """Ask for a task's end; reply its status, or "missing"."""
    return Command(load_script("cancel"), (task_id, tenant), str)


def expire_deadlines(limit: int = 100) -> Command[int]:
    """Stop tasks whose deadline has passed; reply how many."""
    return Command(load_script("expire_deadlines"), (limit,), int)


def retry(task_id: str, tenant: str, idempotency_key: str = "") -> Command[str]:
    """Run the failed parts of a task again.

    The reply is "queued", "retried" (by this key), "missing", "gone", a status, or "batch <status>" while it ends.
    """
    return Command(load_script("retry"), (task_id, tenant, idempotency_key), str)


def end_retention(task_id: str, tenant: str) -> Command[str]:
    """Let an ended task be purged at once; reply "due", "missing", or the status of a task that hasn't ended."""
    return Command(load_script("end_retention"), (task_id, tenant), str)


def discard(task_id: str, tenant: str) -> Command[bool]:
    """Take a task off the dead letters; reply whether it was there."""
    return Command(load_script("discard"), (task_id, tenant), bool)


def top_up(queue: str) -> Command[tuple[int, int]]:
    """Forget silent workers, push missing wake-ups; reply (pushed, forgotten)."""
    return Command(load_script("top_up"), (queue,), lambda reply: (int(reply[0]), int(reply[1])))


def leave(queue: str, worker: str) -> Command[None]:
    """A worker's good-bye."""
    return Command(load_script("leave"), (queue, worker), lambda _: None)


def purge(task_id: str) -> Command[bool]:
    """Forget an ended task; reply whether it was one."""
    return Command(load_script("purge"), (task_id, PURGED_S), bool)
