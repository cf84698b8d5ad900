"""The attempts that this worker holds: renewed while they are worked on, stopped when they should be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Generic

import redis
from redis.exceptions import RedisError
from typing_extensions import TypeVar

from contract import store
from contract.errors import FleetError, StoreUnavailable
from contract.logs import get_logger
from contract.redis_io import run
from contract.scripting import RENEWAL_S
from contract.task import Attempt, Claim

log = get_logger(__name__)


class StopReason(Enum):
    """Why an attempt should end before its result is there."""

    CANCELED = "canceled"  # the caller asked for it
    LOST = "lost"  # the lease ran out and the part is somebody else's
    DRAINED = "drained"  # this worker is going away


class Stopped(Exception):
    """The lease was stopped; its reason says why."""


#: What is held: a part's attempt, or a job.
C = TypeVar("C", bound=Claim, default=Attempt)


class Lease(Generic[C]):
    """One attempt that this worker holds. Thread-safe."""

    def __init__(self, attempt: C) -> None:
        self.attempt = attempt
        self._lock = threading.Lock()
        self._reason: StopReason | None = None
        self._on_stop: Callable[[], object] | None = None

    @property
    def stop_reason(self) -> StopReason | None:
        """Why to stop, or None while the work should go on."""
        return self._reason

    def check(self) -> None:
        """Raise ``Stopped`` once the lease is stopped."""
        if self._reason:
            raise Stopped

    def stop(self, reason: StopReason) -> None:
        """Ask for the end; the first reason stands."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            on_stop = self._on_stop
        if on_stop:
            on_stop()

    def when_stopped(self, on_stop: Callable[[], object]) -> None:
        """Call ``on_stop`` once the lease is stopped; at once if it already is."""
        with self._lock:
            self._on_stop = on_stop
            stopped = self._reason is not None
        if stopped:
            on_stop()


class LeaseKeeper:
    """Renews every lease from one thread and tells their holders to stop.

    The renewal doubles as the worker's heartbeat. Between renewals the thread listens for cancels, so that a cancel
    is seen at once and at the latest by the next renewal.
    """

    def __init__(self, client: redis.Redis, queue: str, worker: str, slots: int) -> None:
        self._client = client
        self._queue = queue
        self._worker = worker
        self._slots = slots
        self._leases: dict[str, Lease[Any]] = {}
        self._all_stopped: StopReason | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def start(self) -> None:
        """Register the worker, then renew until ``close``.

        Raises:
            StoreUnavailable: Redis is away.
        """
        self._renew()
        self._thread.start()

    def close(self) -> None:
        """Stop renewing and take the worker off the queue's list."""
        self._closing.set()
        self._thread.join()
        try:
            run(self._client, store.leave(self._queue, self._worker))
        except StoreUnavailable:
            log.warning("leave_failed", queue=self._queue)

    @contextmanager
    def hold(self, attempt: C) -> Iterator[Lease[C]]:
        """Keep the attempt's lease renewed inside the block."""
        lease = Lease(attempt)
        with self._lock:
            self._leases[attempt.token] = lease
            all_stopped = self._all_stopped
        if all_stopped:
            lease.stop(all_stopped)
        try:
            yield lease
        finally:
            with self._lock:
                del self._leases[attempt.token]

    def __len__(self) -> int:
        return len(self._leases)

    def stop_all(self, reason: StopReason) -> None:
        """Ask every attempt to stop, also those that were claimed just now and are held in a moment."""
        with self._lock:
            self._all_stopped = reason
            leases = list(self._leases.values())
        for lease in leases:
            lease.stop(reason)

    def _keep(self) -> None:
        while not self._closing.is_set():
            try:
                with redis.client.PubSub(self._client.connection_pool, ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(store.STOP_CHANNEL)
                    while not self._closing.is_set():
                        self._renew()
                        self._listen(pubsub)
            except (RedisError, FleetError, OSError):
                log.warning("renewal_failed", queue=self._queue, held=len(self))
                self._closing.wait(0.5)

    def _listen(self, pubsub: redis.client.PubSub) -> None:
        """Wait for the next renewal, or for a cancel of a task that is held here."""
        ticks = max(1, round(RENEWAL_S / 0.5))
        for _ in range(ticks):
            if self._closing.is_set():
                return
            message = pubsub.get_message(timeout=0.5)
            if message and any(lease.attempt.task_id == message["data"] for lease in self._held()):
                return

    def _held(self) -> list[Lease[Any]]:
        with self._lock:
            return list(self._leases.values())

    def _renew(self) -> None:
        held = {lease.attempt.token: lease for lease in self._held()}
        replies = run(self._client, store.renew(self._queue, self._worker, self._slots, list(held)))
        for token, reply in replies.items():
            if reply == "stop":
                held[token].stop(StopReason.CANCELED)
            elif reply == "lost" and token in self._leases:
                log.warning("lease_lost", **held[token].attempt.log_fields)
                held[token].stop(StopReason.LOST)
