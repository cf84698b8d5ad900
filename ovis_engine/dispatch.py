"""Moves jobs from submission through the vision front and the decode loop to their end.

Three kinds of thread meet here: callers submit and cancel; the vision thread pins and encodes tiles, a micro-batch of
jobs at a time; the decode loop's thread reports ended rows. One lock guards the jobs; futures are resolved outside it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ovis_engine.batching import DecodeLoop
from ovis_engine.errors import DuplicateRequestError, EngineClosedError, EngineDeadError, EngineError
from ovis_engine.front import VisionFront
from ovis_engine.job import Job
from ovis_engine.row import FinishReason
from ovis_engine.text import Detokenizer
from ovis_engine.usage import RowEnd

#: A moment that no clock reaches.
NEVER = float("inf")


class Dispatcher:
    """Holds every job from submission to its end. Public methods may be called from any thread."""

    def __init__(
        self,
        front: VisionFront,
        loop: DecodeLoop,
        *,
        detokenizer: Detokenizer,
        eos_token_ids: tuple[int, ...],
        max_running: int,
        batch_tiles: int,
        on_death: Callable[[BaseException], None] | None,
    ) -> None:
        """Wires front and loop together; nothing moves before `start`.

        Args:
            front: Encodes tiles, on this object's vision thread only.
            loop: Runs rows; its callbacks must be `row_ended`, `loop_exited` and `expire`.
            detokenizer: Token ids to text.
            eos_token_ids: Ids that end a row.
            max_running: Most rows in the loop at once.
            batch_tiles: Tiles after which a micro-batch takes no further job.
            on_death: Told once if a thread of the engine dies.
        """
        self._front, self._loop, self._detokenizer = front, loop, detokenizer
        self._eos_token_ids, self._max_running, self._batch_tiles = eos_token_ids, max_running, batch_tiles
        self._on_death = on_death
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()  # pictures not yet encoded
        self._ready: deque[Job] = deque()  # encoded, no row yet
        self._running: dict[str, Job] = {}
        self._next_deadline = NEVER  # the earliest of all jobs, or earlier
        self._releases = 0  # counts ended jobs, so that a wait for pool room misses none
        self._end: EngineError | None = None
        self._thread = threading.Thread(target=self._run_vision, name="ovis-vision", daemon=True)

    def start(self) -> None:
        """Starts the loop and the vision thread. Call once."""
        self._loop.start()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Takes in a job that was checked to fit.

        Raises:
            DuplicateRequestError: If a job with its id is still here.
            EngineError: If the engine has ended.
        """
        request_id = job.request.request_id
        with self._changed:
            if self._end is not None:
                raise type(self._end)(self._end.message) from self._end.__cause__
            if request_id in self._jobs:
                raise DuplicateRequestError(f"request {request_id} is already in the engine")
            if not job.layout.images:
                self._make_ready(job)  # before its id is taken: a job that can't be made must not hold it for ever
            self._jobs[request_id] = job
            self._next_deadline = min(self._next_deadline, job.ends_at)
            if job.layout.images:
                self._waiting.append(job)
            self._admit()

    def cancel(self, request_id: str) -> bool:
        """Stops a job; False if it is not here. It resolves once nothing holds its resources."""
        with self._changed:
            job = self._jobs.get(request_id)
            if job is None:
                return False
            if request_id in self._running:
                self._loop.cancel(request_id)
                return True
            removed = self._remove(job, "canceled")
        if removed:
            job.resolve("canceled")
        return True

    def expire(self) -> None:
        """Ends jobs whose deadline has passed. Loop thread, before each step."""
        now = time.monotonic()
        with self._changed:
            if now < self._next_deadline:
                return
            overdue = [job for job in self._jobs.values() if job.ends_at <= now]
            self._next_deadline = min((job.ends_at for job in self._jobs.values() if job.ends_at > now), default=NEVER)
            removed = [job for job in overdue if self._expire_one(job)]
        for job in removed:
            job.resolve("deadline")

    def counts(self) -> tuple[int, int]:
        """Numbers of jobs without and with a row."""
        with self._changed:
            return len(self._jobs) - len(self._running), len(self._running)

    def close(self) -> None:
        """Fails what is left and waits for the threads."""
        self._end_with(EngineClosedError("the engine was closed"))
        self._loop.stop()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def row_ended(self, end: RowEnd) -> None:
        """A row left the decode loop. Loop thread."""
        with self._changed:
            job = self._running.get(end.row.request_id)
            if job is None:
                return  # it failed when the engine ended
            self._forget(job)
        if end.error is not None:
            job.fail(EngineDeadError(f"the decode loop failed: {end.error}"))
        elif end.row.fault is not None:
            job.fail(end.row.fault)
        else:
            job.resolve(end.reason)

    def loop_exited(self, fault: BaseException | None) -> None:
        """The decode loop's thread is ending. Loop thread."""
        self._die(fault or RuntimeError("the decode loop stopped by itself"))

    def _admit(self) -> None:
        """Gives rows to ready jobs while there are some. Lock held."""
        while self._ready and len(self._running) < self._max_running and self._end is None:
            job = self._ready.popleft()
            self._running[job.request.request_id] = job
            assert job.row is not None
            self._loop.add(job.row)
        self._changed.notify_all()

    def _make_ready(self, job: Job) -> None:
        """Lines up a job whose tiles are encoded. Lock held."""
        job.make_row(self._front.expand(job.layout, job.pinned), self._eos_token_ids, self._detokenizer)
        self._ready.append(job)

    def _expire_one(self, job: Job) -> bool:
        """Ends an overdue job or has its row leave; True if the job must be resolved. Lock held."""
        if job.row is not None and job.request.request_id in self._running:
            job.row.end_with("deadline")
            return False
        return self._remove(job, "deadline")

    def _remove(self, job: Job, reason: FinishReason) -> bool:
        """Takes out a job that has no row in the loop; False if the vision thread must drop it. Lock held."""
        job.end = job.end or reason
        self._changed.notify_all()
        for line in (self._ready, self._waiting):
            if job in line:
                line.remove(job)
                self._forget(job)
                return True
        return False

    def _forget(self, job: Job) -> None:
        """Drops a job and its pins, which may give another one a row. Lock held; resolve it afterwards."""
        del self._jobs[job.request.request_id]
        self._running.pop(job.request.request_id, None)
        self._front.release(job.pinned)
        job.pinned = []
        self._releases += 1
        self._admit()

    def _die(self, fault: BaseException) -> None:
        """Ends the engine because of a fault; only the first end counts. Any engine thread."""
        error = EngineDeadError(f"an engine thread died ({type(fault).__name__})")
        error.__cause__ = fault
        if self._end_with(error) and self._on_death is not None:
            self._on_death(fault)

    def _end_with(self, error: EngineError) -> bool:
        """Fails all jobs and refuses new ones; False if the engine had ended before."""
        with self._changed:
            if self._end is not None:
                return False
            self._end = error
            jobs = list(self._jobs.values())
            for held in (self._jobs, self._waiting, self._ready, self._running):
                held.clear()
            self._changed.notify_all()
        for job in jobs:
            failure = type(error)(error.message)
            failure.__cause__ = error.__cause__
            job.fail(failure)
        return True

    def _run_vision(self) -> None:
        """Encodes waiting jobs until the engine ends. Vision thread, as all below."""
        try:
            while self._wait_for_work():
                batch = self._take_batch()
                self._front.fill([job.layout for job in batch], [job.pinned for job in batch])
                self._hand_over(batch)
        except BaseException as exc:  # noqa: BLE001 - whatever kills this thread kills the engine
            self._die(exc)

    def _wait_for_work(self) -> bool:
        """Waits for a job that will soon find a row; False once the engine ends."""

        def may_go() -> bool:
            encoded_ahead = sum(bool(job.pinned) for job in self._ready)
            return self._end is not None or (bool(self._waiting) and encoded_ahead < self._max_running)

        with self._changed:
            self._changed.wait_for(may_go)
            return self._end is None

    def _take_batch(self) -> list[Job]:
        """Takes waiting jobs in order while tower batch and pool have room; waits for pool room for the first."""
        batch: list[Job] = []
        num_tiles = 0
        while num_tiles < self._batch_tiles:
            with self._changed:
                if not self._waiting:
                    break
                job = self._waiting.popleft()
            if not self._pin(job, wait=not batch):
                break
            batch.append(job)
            num_tiles += job.layout.num_tiles
        return batch

    def _pin(self, job: Job, *, wait: bool) -> bool:
        """Pins a job's tiles; if that fails it is back in the queue, or dropped if it was to end."""
        while True:
            with self._changed:
                seen = self._releases
            # Without the lock: this may pause the decode loop, whose callbacks take it.
            pinned = self._front.pin(job.layout)
            with self._changed:
                if pinned is not None:
                    job.pinned = pinned
                    return True
                if wait and self._wait_for_room(job, seen):
                    continue
                if self._end is None and job.end is None:
                    self._waiting.appendleft(job)
                    return False
            self._hand_over([job])
            return False

    def _wait_for_room(self, job: Job, seen: int) -> bool:
        """Waits until some job has ended since `seen`; False if the job or the engine ended instead. Lock held."""
        self._changed.wait_for(lambda: self._releases != seen or job.end or self._end is not None)
        return self._end is None and job.end is None

    def _hand_over(self, batch: Sequence[Job]) -> None:
        """Makes encoded jobs ready; drops those that were to end meanwhile."""
        dropped = []
        with self._changed:
            for job in batch:
                if job.request.request_id not in self._jobs:
                    continue  # it failed when the engine ended
                if job.end is not None:
                    self._forget(job)
                    dropped.append((job, job.end))
                else:
                    self._make_ready(job)
            self._admit()
        for job, reason in dropped:
            job.resolve(reason)
