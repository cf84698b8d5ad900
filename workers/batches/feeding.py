"""Feeds a batch's lines to the queue: each becomes a task by the checks and the script of a chat completion."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import redis

from contract import submissions
from contract.batch_changes import refuse_line
from contract.batches import LineError, line_task_id
from contract.blobs import BlobStore, input_key
from contract.errors import TooLarge
from contract.openai_wire.batch_lines import read_chat
from contract.openai_wire.translation import translate
from contract.planning import PlannedTask, Planner
from contract.redis_io import run
from contract.refusals import Refused
from contract.requests import MAX_DEADLINE_S
from contract.task import ObjectInput, TaskSpec, UrlInput
from contract.task_bodies import InlineFile
from workers.batches.lease import BatchLease, StepEnded
from workers.batches.lines import Line, read_lines

#: Longest step, in seconds: other batches wait for their turn.
_STEP_S = 5.0

#: For how long a line's task is kept after its batch could have ended, in seconds: until the outputs are written.
_KEPT_AFTER_S = 3600

#: Holders lost at one line, one after the other, after which the line is taken for what ended them.
_MAX_LOSSES = 5

#: What a batch may take of each limit: the rest is for the tenant's single tasks.
_SHARE = 2

Fed = Literal["fed", "window_full", "no_room", "out_of_time", "stopped"]


@dataclass(frozen=True)
class Feeder:
    """Feeds lines. Thread-safe.

    Attributes:
        window: Most lines of one batch that haven't ended.
    """

    client: redis.Redis
    blobs: BlobStore
    planner: Planner
    window: int
    max_line_bytes: int

    def feed(self, lease: BatchLease) -> tuple[Fed, dict[str, int]]:
        """Feed lines until the window is full, there is no more room or time, or no line is left.

        Returns:
            Why it ended, and how many lines were "submitted" and "refused".

        Raises:
            StepEnded: The lease is lost, or the worker is going away.
            InputUnavailable: The file isn't there any more.
            StoreUnavailable, BlobsUnavailable: What of ours is away.
        """
        record, counts = lease.held.record, {"submitted": 0, "refused": 0}
        room = min(self.window - record.under_way, record.total - record.fed)
        if room <= 0:
            return ("window_full" if record.fed < record.total else "fed"), counts
        ends = time.monotonic() + _STEP_S
        with closing(self.blobs.chunks(record.input_blob, start=record.offset)) as chunks:
            for number, line in enumerate(
                read_lines(chunks, self.max_line_bytes, offset=record.offset), start=record.fed
            ):
                if number == record.total:
                    return "fed", counts
                if room == counts["submitted"]:
                    return "window_full", counts
                if time.monotonic() > ends:
                    return "out_of_time", counts
                if lease.check() != "in_progress":
                    return "stopped", counts
                outcome = self._line(lease, number, line)
                if outcome == "no_room":
                    return "no_room", counts
                counts[outcome] += 1
        return "fed", counts

    def _line(self, lease: BatchLease, number: int, line: Line) -> Literal["submitted", "refused", "no_room"]:
        held = lease.held
        try:
            if held.record.losses >= _MAX_LOSSES and number == held.record.fed:
                why = LineError(code="attempts_exhausted", detail="every worker that read this line was lost")
                return self._refuse(lease, number, line, why)
            plan = self._plan(lease, line)
            return self._submit(lease, number, line, plan)
        except Refused as exc:
            pointer = exc.errors[0].pointer if exc.errors else None
            why = LineError(code=exc.error.code, detail=str(exc.error), pointer=pointer)
            return self._refuse(lease, number, line, why)

    def _plan(self, lease: BatchLease, line: Line) -> PlannedTask:
        """The task that answers a line.

        Raises:
            Refused: There can't be one.
        """
        terms, record = lease.held.terms, lease.held.record
        left_s = math.ceil((record.expires_ms - lease.held.now_ms) / 1000)
        translated = translate(
            read_chat(line.text),
            deadline_s=min(max(1, left_s), MAX_DEADLINE_S),
            retention_s=max(1, left_s) + _KEPT_AFTER_S,
            priority="low",
        )
        with translated.pointing_back():
            plan = self.planner.plan_now(translated.body, terms.tenant)
        trace = {"traceparent": terms.traceparent, "tracestate": terms.tracestate}
        return replace(plan, spec=plan.spec.model_copy(update=trace))

    def _submit(self, lease: BatchLease, number: int, line: Line, plan: PlannedTask) -> Literal["submitted", "no_room"]:
        held, tenant = lease.held, lease.held.terms.tenant
        task_id = line_task_id(held.record.id, number)
        size_bytes = sum(item.size_bytes for item in plan.inputs if isinstance(item, InlineFile))
        most_bytes = min(tenant.max_waiting_bytes, held.terms.queue_max_bytes) // _SHARE
        if size_bytes > most_bytes:
            raise Refused.at("/messages", TooLarge(f"the pictures have {size_bytes} bytes; {most_bytes} may wait"))
        spec = self._stored(plan, tenant.id, task_id)
        submission = submissions.Submission(
            task_id=task_id,
            tenant=tenant.id,
            spec=spec,
            cost=spec.estimated_cost(plan.card),
            weight=tenant.weight,
            tenant_limit=max(1, tenant.max_waiting_parts // _SHARE),
            queue_limit=max(1, held.terms.queue_max_waiting_parts // _SHARE),
            size_bytes=size_bytes,
            tenant_bytes_limit=tenant.max_waiting_bytes // _SHARE,
            queue_bytes_limit=held.terms.queue_max_bytes // _SHARE,
            tenant_tasks_limit=max(1, tenant.max_unended_tasks // _SHARE),
            line=submissions.LinePlace(held.record.id, held.token, number, line.end),
        )
        outcome, _ = run(self.client, submissions.submit(submission))
        if outcome == "stale":
            raise StepEnded
        return "submitted" if outcome == "created" else "no_room"

    def _stored(self, plan: PlannedTask, tenant: str, task_id: str) -> TaskSpec:
        """The spec with every input's address, the line's own pictures being in the blob store."""
        inputs: list[UrlInput | ObjectInput] = []
        for index, item in enumerate(plan.inputs):
            if isinstance(item, UrlInput | ObjectInput):
                inputs.append(item)
                continue
            assert isinstance(item, InlineFile)  # a chat completion names no uploads and comes with no files
            key = input_key(tenant, task_id, index)
            self.blobs.put(key, item.data, item.media_type)
            inputs.append(ObjectInput(bucket=self.blobs.bucket, key=key))
        return plan.spec.model_copy(update={"inputs": tuple(inputs)})

    def _refuse(self, lease: BatchLease, number: int, line: Line, why: LineError) -> Literal["refused"]:
        held = lease.held
        command = refuse_line(held.record.id, held.token, number, line.end, why)
        if run(self.client, command) == "stale":
            raise StepEnded
        return "refused"
