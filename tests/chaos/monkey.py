"""The faults: what happens when, and to whom. The same seed makes the same plan."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from contract.scripting import LEASE_MS
from tests.chaos.fleet import IO_WORKERS, MODEL_WORKERS, ChaosFleet
from tests.chaos.menu import MODEL

#: Faults per minute. In ten minutes: 38 workers, 7 Valkeys and 4 S3 servers die.
RATES = {
    "kill_model": 2.7,
    "kill_io": 1.1,
    "kill_gateway": 0.7,
    "kill_media": 1.5,
    "pause_for_seconds": 1.0,
    "pause_beyond_lease": 0.3,
    "kill_valkey": 0.7,
    "take_s3_away": 0.4,
    "cut_connections": 1.0,
    "lose_wakeups": 2.0,
    "double_wakeups": 2.0,
}

#: Faults that even the shortest run has once.
_ALWAYS = set(RATES) - {"pause_beyond_lease"}

#: Seconds for which a fault waits for somebody whom it may hit.
_PATIENCE_S = 20.0

#: Tries of a part that the harness may take, so that the last is left: three deaths are a poison's sign.
_LAST_ATTEMPT = 3


@dataclass(frozen=True)
class Fault:
    """One fault of the plan."""

    at_s: float
    kind: str


@dataclass(frozen=True)
class Death:
    """A model worker that was killed.

    Attributes:
        at_ms: when, by the clock that Valkey's TIME shows on this machine.
        held: how many attempts it held.
    """

    worker: str
    at_ms: int
    held: int


def plan_faults(duration_s: float, seed: int) -> list[Fault]:
    """Faults at random times, none in the last part of the run."""
    chance = random.Random(f"faults-{seed}")
    faults = []
    for kind, rate in RATES.items():
        count = max(int(kind in _ALWAYS), round(rate * duration_s / 60))
        faults += [Fault(chance.uniform(0.03, 0.92) * duration_s, kind) for _ in range(count)]
    return sorted(faults, key=lambda fault: fault.at_s)


class Monkey:
    """Carries out a plan.

    Attributes:
        done: faults that hit, by kind.
        deaths: model workers that were killed.
    """

    def __init__(self, fleet: ChaosFleet, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.deaths: list[Death] = []
        self._fleet = fleet
        self._chance = random.Random(f"victims-{seed}")
        self._stop = threading.Event()

    def run(self, faults: Sequence[Fault]) -> None:
        """One fault after the other, each at its time or as soon as it can hit."""
        start = time.monotonic()
        for fault in faults:
            if self._stop.wait(max(0.0, start + fault.at_s - time.monotonic())):
                return
            if getattr(self, f"_{fault.kind}")():
                self.done[fault.kind] += 1

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stop.set()

    def _kill_model(self) -> bool:
        part = self._model_victim()
        if part is None:
            return False
        worker = self._fleet.worker_name(part)
        self._fleet.kill(part)
        at_ms = time.time_ns() // 1_000_000
        if worker is not None:
            self.deaths.append(Death(worker, at_ms, len(self._fleet.attempts_of(worker))))
        return True

    def _kill_io(self) -> bool:
        return self._kill_one(IO_WORKERS)

    def _kill_gateway(self) -> bool:
        return self._kill_one(("gateway",))

    def _kill_valkey(self) -> bool:
        return self._kill_one(("valkey",), down_s=self._chance.uniform(0.2, 3))

    def _take_s3_away(self) -> bool:
        return self._kill_one(("s3",), down_s=self._chance.uniform(2, 8))

    def _kill_one(self, parts: Sequence[str], down_s: float = 0.5) -> bool:
        part = self._await_victim(parts)
        if part is None:
            return False
        self._fleet.kill(part, down_s)
        return True

    def _kill_media(self) -> bool:
        """A media process that dies at work costs its part an attempt: no part's last one, by our hand."""
        last = f"ovis:q:{MODEL}:suspects{_LAST_ATTEMPT}"
        part = self._model_victim()
        if part is None or self._fleet.patiently(lambda: self._fleet.client.exists(last)):
            return False
        children = self._fleet.media_children(part)
        if not children:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._chance.choice(children), signal.SIGKILL)
        return True

    def _pause_for_seconds(self) -> bool:
        part = self._await_victim((*MODEL_WORKERS, *IO_WORKERS, "gateway"))
        if part is None:
            return False
        self._fleet.pause(part, self._chance.uniform(1, 5))
        return True

    def _pause_beyond_lease(self) -> bool:
        part = self._model_victim()
        if part is None:
            return False
        self._fleet.pause(part, LEASE_MS / 1000 + self._chance.uniform(2, 6))
        return True

    def _cut_connections(self) -> bool:
        def cut() -> None:
            for kind in ("normal", "pubsub"):
                self._fleet.client.client_kill_filter(_type=kind, skipme=True)

        return self._tell_valkey(cut)

    def _lose_wakeups(self) -> bool:
        return self._tell_valkey(lambda: self._fleet.client.delete(MODEL))

    def _double_wakeups(self) -> bool:
        def double() -> None:
            if messages := self._fleet.client.lrange(MODEL, 0, -1):
                self._fleet.client.lpush(MODEL, *messages)

        return self._tell_valkey(double)

    def _tell_valkey(self, call: object) -> bool:
        try:
            self._fleet.patiently(call)  # type: ignore[arg-type]
        except RedisError:
            return False
        return True

    def _model_victim(self) -> str | None:
        """The busiest model worker that holds no part's last attempt: three losses by our hand prove nothing."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and not self._stop.is_set():
            loads = []
            for part in MODEL_WORKERS:
                worker = self._fleet.worker_name(part) if self._fleet.is_running(part) else None
                if worker is None:
                    continue
                attempts = self._fleet.attempts_of(worker)
                if all(int(str(attempt["number"])) < _LAST_ATTEMPT for attempt in attempts):
                    loads.append((len(attempts), self._chance.random(), part))
            if loads:
                return max(loads)[2]
            time.sleep(0.2)
        return None

    def _await_victim(self, parts: Sequence[str]) -> str | None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and not self._stop.is_set():
            if running := [part for part in parts if self._fleet.is_running(part)]:
                return self._chance.choice(running)
            time.sleep(0.1)
        return None
