"""Looks at batches that are due, a step at a time, until it is told to end.

Any number of io workers do so side by side. A step is bounded and may be cut anywhere: what it has reached stands in
the batch's record, and whoever looks next goes on from there.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import redis
from pydantic import ValidationError
from redis.exceptions import RedisError

from contract.batch_changes import (
    HeldBatch,
    StepEnd,
    begin_batch,
    claim_batch,
    end_batch,
    finalize_batch,
    purge_batch,
    rest_batch,
)
from contract.batches import BATCH_RETENTION_KEY, BATCHES_DUE_KEY, BatchError, BatchStatus
from contract.blobs import BlobStore
from contract.errors import FleetError, InputUnavailable
from contract.files import FILE_RETENTION_KEY, file_key, file_prefix, remove_file
from contract.logs import get_logger
from contract.metrics import BatchMetrics
from contract.redis_io import run, server_ms
from contract.scripting import Command
from workers.batches.checking import FileChecker
from workers.batches.feeding import Feeder
from workers.batches.lease import BatchLease, StepEnded
from workers.batches.stopping import Stopper
from workers.batches.writing import OutputWriter

log = get_logger(__name__)

#: Seconds between looks while nothing is due.
_LOOK_S = 0.25

#: Seconds between looks while Redis is away.
_AWAY_S = 2.0

#: Milliseconds until a batch is looked at again whose lines are under way; the end of one brings it forward.
_UNDER_WAY_MS = 5_000

#: The same where lines find no room, where more can be done at once, and after an outage or in another version's form.
_NO_ROOM_MS, _AT_ONCE_MS, _OUTAGE_MS = 2_000, 0, 5_000

#: Holders lost one after the other, after which a batch that isn't feeding lines is given up.
_MAX_LOSSES = 8

#: Looks between two at what has had its time, and what is deleted at one.
_LOOKS_PER_PURGE, _PURGE_BATCH = 20, 100


@dataclass
class BatchKeeper:
    """Brings batches forward. ``keep`` runs in a thread of its own, steps in as many as may be ``concurrent``."""

    client: redis.Redis
    blobs: BlobStore
    checker: FileChecker
    feeder: Feeder
    writer: OutputWriter
    metrics: BatchMetrics
    concurrency: int = 2
    _closing: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        """Look and step until ``close``; steps under way are cut short then."""
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="batches") as threads:
            loops = [threads.submit(self._loop, purges=index == 0) for index in range(self.concurrency)]
            for loop in loops:
                loop.result()

    def close(self) -> None:
        """End ``keep`` soon."""
        self._closing.set()

    def _loop(self, *, purges: bool) -> None:
        wait_s, looks = 0.0, 0
        while not self._closing.wait(wait_s):
            looks += 1
            try:
                wait_s = 0.0 if self.look() else _LOOK_S
                if purges and looks % _LOOKS_PER_PURGE == 0:
                    self.purge()
                    self.metrics.unended.set(self.client.zcard(BATCHES_DUE_KEY))
            except (FleetError, RedisError):
                log.warning("batches_wait", exc_info=True)
                wait_s = _AWAY_S
            except Exception:
                log.exception("batches_broke")
                wait_s = _AWAY_S

    def look(self) -> bool:
        """Take one step of the batch that is most due; reply whether there was one.

        Raises:
            StoreUnavailable: Redis is away; the lease of what was held runs out.
        """
        claimed = run(self.client, claim_batch(uuid4().hex))
        if claimed is None:
            return False
        try:
            held = claimed.read()
        except ValidationError as exc:  # a worker of the version that wrote it will read it
            wrong = [".".join(map(str, error["loc"])) for error in exc.errors(include_input=False, include_url=False)]
            log.warning("batch_unreadable", batch_id=claimed.id, record=exc.title, fields=wrong)
            run(self.client, rest_batch(claimed.id, claimed.token, _OUTAGE_MS, "cut"))
            return True
        with BatchLease(self.client, held, self._closing.is_set) as lease:
            rest_ms, outcome = self._step(lease)
        self.metrics.steps.labels(held.record.status, outcome).inc()
        run(self.client, rest_batch(held.record.id, held.token, rest_ms, outcome))
        return True

    def _step(self, lease: BatchLease) -> tuple[int, StepEnd]:
        """Do what the batch needs now; reply when it is looked at again, and how the step ended."""
        held = lease.held
        try:
            if held.record.losses >= _MAX_LOSSES and held.record.status != "in_progress":
                return self._fail(held, "attempts_exhausted", "every worker that looked at it was lost"), "whole"
            try:
                return self._move(lease), "whole"
            except InputUnavailable as exc:
                return self._lose(lease, exc.code), "whole"
        except StepEnded:
            return _AT_ONCE_MS, "cut"
        except FleetError as exc:
            log.warning("batch_step_failed", batch_id=held.record.id, code=exc.code)
            return _OUTAGE_MS, "cut"
        except Exception:
            log.exception("batch_step_broke", batch_id=held.record.id)
            return _OUTAGE_MS, "broken"

    def _move(self, lease: BatchLease) -> int:
        match lease.held.record.status:
            case "validating":
                return self._check(lease)
            case "in_progress":
                return self._feed(lease)
            case "cancelling":
                return self._stop(lease)
            case "finalizing":
                return self._write(lease)
            case ended:
                raise AssertionError(f"a batch that is {ended} isn't looked at")

    def _check(self, lease: BatchLease) -> int:
        held = lease.held
        checked = self.checker.check(held.record.input_blob, lease.check)
        if checked.errors:
            return self._end(held, end_batch(held.record.id, held.token, errors=checked.errors))
        status = run(self.client, begin_batch(held.record.id, held.token, checked.num_lines))
        log.info("batch_checked", batch_id=held.record.id, status=status, lines=checked.num_lines)
        return _AT_ONCE_MS

    def _feed(self, lease: BatchLease) -> int:
        held = lease.held
        if held.now_ms < held.record.expires_ms:
            why, counts = self.feeder.feed(lease)
            for outcome, count in counts.items():
                self.metrics.lines.labels(outcome).inc(count)
            if why in ("out_of_time", "stopped"):
                return _AT_ONCE_MS
            if why == "no_room":
                return _NO_ROOM_MS
            if why == "window_full":
                return _UNDER_WAY_MS
        status = run(self.client, finalize_batch(held.record.id, held.token))
        return _UNDER_WAY_MS if status == "waiting" else _AT_ONCE_MS

    def _stop(self, lease: BatchLease) -> int:
        held = lease.held
        Stopper(self.client).stop(lease)
        if run(self.client, finalize_batch(held.record.id, held.token)) == "waiting":
            return _UNDER_WAY_MS
        return self._write(lease)

    def _write(self, lease: BatchLease) -> int:
        held = lease.held
        if not held.record.total:  # canceled before its file was checked
            return self._end(held, end_batch(held.record.id, held.token))
        written = self.writer.write(lease)
        command = end_batch(
            held.record.id,
            held.token,
            num_completed=written.num_completed,
            num_failed=written.num_failed,
            usage=written.usage,
            files=written.files,
        )
        return self._end(held, command)

    def _lose(self, lease: BatchLease, code: str) -> int:
        """End a batch whose file is gone, and with it the lines' ids: no line runs for an answer without a place."""
        Stopper(self.client).stop(lease)
        message = "the batch's input file isn't there any more; what was answered stands in the lines' tasks"
        return self._fail(lease.held, code, message)

    def _fail(self, held: HeldBatch, code: str, message: str) -> int:
        return self._end(held, end_batch(held.record.id, held.token, errors=[BatchError(code=code, message=message)]))

    def _end(self, held: HeldBatch, command: Command[BatchStatus | Literal["lost"]]) -> int:
        status = run(self.client, command)
        if status != "lost":
            self.metrics.ended.labels(status).inc()
        log.info("batch_ended", batch_id=held.record.id, status=status)
        return _AT_ONCE_MS

    def purge(self) -> None:
        """Forget batches and delete files whose time is over; bytes that stay behind are swept.

        Raises:
            FleetError, RedisError: What of ours is away.
        """
        for file_id in self._late(FILE_RETENTION_KEY):
            tenant = str(self.client.hget(file_key(file_id), "tenant"))
            if run(self.client, remove_file(file_id, tenant, only_late=True)) == "removed":
                self.blobs.delete_prefix(file_prefix(tenant, file_id))
                log.info("file_deleted", file_id=file_id)
        for batch_id in self._late(BATCH_RETENTION_KEY):
            run(self.client, purge_batch(batch_id))

    def _late(self, key: str) -> list[str]:
        now_ms = server_ms(self.client)
        return list(map(str, self.client.zrangebyscore(key, "-inf", now_ms, start=0, num=_PURGE_BATCH)))
