"""A group of processes that is started in waves, watched, and stopped in reverse."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ovis_fleet.process import ManagedProcess
from ovis_fleet.readiness import Probe, Start

#: How often the watcher looks at the parts.
_WATCH_INTERVAL_S = 0.2

#: The first pause before a dead part is started again; doubled for each further death.
_FIRST_BACKOFF_S = 0.5

_LONGEST_BACKOFF_S = 30.0

#: A part that was ready for this long has recovered: its next death counts as the first.
_RECOVERED_AFTER_S = 60.0


class PartState(StrEnum):
    """Where a part is on its way."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DIED = "died"
    STOPPING = "stopping"
    STOPPED = "stopped"


StateListener = Callable[[str, PartState], None]


@dataclass(frozen=True)
class Part:
    """One process of the stack and how to tell that it works.

    Attributes:
        process: what runs.
        probe: holds when it is ready.
        start_timeout_s: how long the start may take.
        leftovers: files outside the stack's directory that stay behind when the process is killed.
    """

    process: ManagedProcess
    probe: Probe
    start_timeout_s: float
    leftovers: tuple[Path, ...] = ()


class PartGroup:
    """Parts by name, in the order of their start.

    A part is wanted from its start to its stop: the watcher starts a wanted part again when it has died, and
    kills one that isn't ready in time after such a start. Any thread may call any method.

    Attributes:
        parts: the parts by name; change it through ``add`` only.
    """

    def __init__(self, on_state: StateListener) -> None:
        """Makes an empty group.

        Args:
            on_state: told of each change; called from any thread, must not block.
        """
        self.parts: dict[str, Part] = {}
        self._on_state = on_state
        self._states: dict[str, PartState] = {}
        self._since: dict[str, float] = {}
        self._waves: list[list[str]] = []
        self._wanted: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def add(self, wave: Sequence[Part]) -> None:
        """Adds parts that may start together, after all that were added before."""
        self._waves.append([part.process.name for part in wave])
        for part in wave:
            self.parts[part.process.name] = part
            self._change(part.process.name, PartState.WAITING)

    def start_all(self) -> None:
        """Starts wave by wave and waits until each is ready.

        Raises:
            PartError: for the first part that ends or isn't ready in time. The others keep running.
        """
        for wave in self._waves:
            self.start(*wave)

    def start(self, *names: str) -> None:
        """Starts parts and waits until all are ready; those that run are only waited for.

        Raises:
            PartError: for the first that ends or isn't ready in time.
        """
        starts: dict[str, Start] = {}
        for name in names:
            part = self.parts[name]
            self._change(name, PartState.STARTING)
            part.process.start()
            starts[name] = Start(part.process, part.probe, part.start_timeout_s)
        while starts:
            for name, start in list(starts.items()):
                # All are looked at in turn: one that dies isn't found out only when a slower one is ready.
                if not start.is_ready():
                    start.pause()
                    continue
                del starts[name]
                with self._lock:
                    self._wanted.add(name)
                self._change(name, PartState.READY)

    def stop(self, *names: str) -> None:
        """Stops parts together; returns when all are gone."""
        if not names:
            return
        with self._lock:
            self._wanted.difference_update(names)
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            list(pool.map(self._stop_one, names))

    def _stop_one(self, name: str) -> None:
        part = self.parts[name]
        if part.process.is_running:
            self._change(name, PartState.STOPPING)
        part.process.stop()
        self._change(name, PartState.STOPPED)

    def stop_all(self) -> None:
        """Ends the watching and stops all parts, the last wave first."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
        for wave in reversed(self._waves):
            self.stop(*reversed(wave))

    def kill_all(self) -> None:
        """Sends SIGKILL to all parts and doesn't wait; a ``stop_all`` under way then has no grace to wait for."""
        for part in self.parts.values():
            part.process.send_signal(signal.SIGKILL)

    def watch(self) -> None:
        """Starts the thread that restarts dead parts, until ``stop_all``."""
        self._watcher = threading.Thread(target=self._watch, name="part-watcher", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        restarts: dict[str, _Restarts] = {}
        while not self._closing.wait(_WATCH_INTERVAL_S):
            for name, part in list(self.parts.items()):
                if not part.process.is_running:
                    self._revive(name, restarts.setdefault(name, _Restarts()))
                elif self._states[name] is PartState.STARTING and name in self._wanted:
                    self._see_to_start(name, part)

    def _see_to_start(self, name: str, part: Part) -> None:
        """Takes note that a restarted part is ready; kills it when it should have been for long."""
        if part.probe():
            self._change(name, PartState.READY)
        elif self._age_s(name) > part.start_timeout_s:
            part.process.kill()

    def _revive(self, name: str, restarts: "_Restarts") -> None:
        """Starts a dead part again if it is wanted and its pause is over."""
        with self._lock:
            if name not in self._wanted:
                return
            if self._states[name] is not PartState.DIED:
                is_recovered = self._states[name] is PartState.READY and self._age_s(name) > _RECOVERED_AFTER_S
                self._change(name, PartState.DIED)
                restarts.record_death(is_first=is_recovered)
            if not restarts.is_due():
                return
            try:
                self.parts[name].process.start()
            except OSError:
                # The machine is out of processes or memory for the moment: a further death.
                restarts.record_death()
            else:
                self._change(name, PartState.STARTING)

    def _age_s(self, name: str) -> float:
        """Returns how long a part has been in its state."""
        return time.monotonic() - self._since[name]

    def _change(self, name: str, state: PartState) -> None:
        self._since[name] = time.monotonic()
        self._states[name] = state
        self._on_state(name, state)


class _Restarts:
    """When a part that keeps dying may be started again."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_BACKOFF_S
        self._due = 0.0

    def record_death(self, *, is_first: bool = False) -> None:
        if is_first:
            self._pause_s = _FIRST_BACKOFF_S
        self._due = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_BACKOFF_S)

    def is_due(self) -> bool:
        return time.monotonic() >= self._due
