"""Watches what processes hold in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

#: Seconds between looks.
_LOOK_S = 0.2

_MB = 1 << 20


@dataclass(frozen=True)
class Held:
    """The most that a process and its children held, in MB.

    Attributes:
        alone_mb: Resident memory of the process itself, shared libraries included.
        whole_mb: The same, summed over it and its children.
        shared_once_mb: The sum in which what processes share counts once in all (PSS).
    """

    alone_mb: float = 0.0
    whole_mb: float = 0.0
    shared_once_mb: float = 0.0

    def most(self, other: Held) -> Held:
        """The larger of each."""
        return Held(
            max(self.alone_mb, other.alone_mb),
            max(self.whole_mb, other.whole_mb),
            max(self.shared_once_mb, other.shared_once_mb),
        )


def held_now(pid: int) -> Held:
    """What a process and its children hold at this moment."""
    process = psutil.Process(pid)
    alone, whole, shared_once = 0.0, 0.0, 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            info = one.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        alone = info.rss if one.pid == pid else alone
        whole += info.rss
        shared_once += info.pss
    return Held(alone / _MB, whole / _MB, shared_once / _MB)


class MemoryWatch:
    """Looks at processes from a thread; a context manager, after which ``peaks`` stands."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """``pids`` by name."""
        self.peaks = dict.fromkeys(pids, Held())
        self._pids = pids
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look for the last time."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            for name, pid in self._pids.items():
                self.peaks[name] = self.peaks[name].most(held_now(pid))
