"""Submissions: tasks about to be accepted, and the one script that accepts them (law 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from contract.redis_io import script_failure
from contract.scripting import Command, load_script
from contract.store import IDEMPOTENCY_S
from contract.task import PRIORITY_BANDS, TaskSpec, dumps

#: Where no limit of bytes is named.
UNLIMITED_BYTES = 1 << 50
#: Where no limit of tasks is named.
UNLIMITED_TASKS = 1 << 50

SubmitOutcome = Literal["created", "exists", "conflict", "tenant_full", "queue_full", "stale"]


@dataclass(frozen=True)
class LinePlace:
    """Which line of a batch a task is, and who holds the batch.

    Attributes:
        number: 0 for the first line.
        next_offset: Byte of the batch's file at which the next line begins.
    """

    batch_id: str
    token: str
    number: int
    next_offset: int


@dataclass(frozen=True)
class Submission:
    """A task about to be accepted.

    Attributes:
        weight: The tenant's share weight, > 0.
        body_hash: What tells two bodies under one idempotency key apart.
        tenant_limit, queue_limit: Most waiting parts of the tenant in the queue, and of the queue.
        size_bytes: Bytes of the inputs that we store.
        tenant_bytes_limit, queue_bytes_limit: Most such bytes of un-ended tasks, per tenant and per queue.
        tenant_tasks_limit: Most un-ended tasks of the tenant.
        line: For a line of a batch: it is "stale" unless the batch is at it and held by this token.
    """

    task_id: str
    tenant: str
    spec: TaskSpec
    cost: int
    weight: float
    tenant_limit: int
    queue_limit: int
    idempotency_key: str = ""
    body_hash: str = "-"
    num_parts: int = 1
    webhook: str = ""
    size_bytes: int = 0
    tenant_bytes_limit: int = UNLIMITED_BYTES
    queue_bytes_limit: int = UNLIMITED_BYTES
    tenant_tasks_limit: int = UNLIMITED_TASKS
    line: LinePlace | None = None


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

    Attributes:
        outcome: "error" where the script itself failed.
        task_id: The task's, or that of the task which the idempotency key stands for; for "error" what went wrong.
        created_ms: Of a new task, by the clock of Redis, so that its record need not be read back.
    """

    outcome: SubmitOutcome | Literal["error"]
    task_id: str
    created_ms: int | None

    def check(self) -> None:
        """Nothing, where the script ran.

        Raises:
            StoreFull: Redis is out of memory; nothing was accepted.
            StoreUnavailable: Redis takes no changes for a while; nothing was accepted.
            InternalError: The script failed.
        """
        if self.outcome == "error":
            raise script_failure("submit", self.task_id)


def submit(submission: Submission) -> Command[tuple[SubmitOutcome, str]]:
    """Write record, idempotency key, index, queue entries and wake-ups; reply outcome and the task's id.

    Where the script fails, reading its reply raises as ``Submitted.check``.
    """

    def parse(reply: list[list[str]]) -> tuple[SubmitOutcome, str]:
        submitted = _submitted(reply[0])
        submitted.check()
        return cast(SubmitOutcome, submitted.outcome), submitted.task_id

    return Command(load_script("submit"), (_submit_args(submission),), parse)


def submit_all(submissions: Sequence[Submission]) -> Command[list[Submitted]]:
    """``submit`` for each of them, whatever becomes of the others; the replies are in their order."""
    args = tuple(map(_submit_args, submissions))
    return Command(load_script("submit"), args, lambda reply: list(map(_submitted, reply)))


def _submitted(reply: Sequence[str]) -> Submitted:
    return Submitted(cast(SubmitOutcome, reply[0]), reply[1], int(reply[2]) if len(reply) > 2 else None)


def _submit_args(submission: Submission) -> str:
    s = submission
    args = (
        s.task_id,
        s.tenant,
        s.spec.model,
        s.cost,
        s.weight,
        PRIORITY_BANDS[s.spec.priority],
        s.spec.retention_s,
        s.spec.model_dump_json(exclude_defaults=True),
        s.idempotency_key,
        s.body_hash,
        IDEMPOTENCY_S,
        s.tenant_limit,
        s.queue_limit,
        s.webhook,
        s.num_parts,
        s.size_bytes,
        s.tenant_bytes_limit,
        s.queue_bytes_limit,
        "" if s.spec.deadline_s is None else s.spec.deadline_s,
        s.spec.options.on_page_failure if s.spec.is_planned else "",
        s.tenant_tasks_limit,
        *((s.line.batch_id, s.line.token, s.line.number, s.line.next_offset) if s.line else ()),
    )
    return dumps([str(arg) for arg in args])
