"""Watches what processes hold in memory. Reads Linux's ``/proc/*/smaps``."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Seconds between looks: reading the mappings of a process with torch takes a tenth of one.
_LOOK_S = 2.0

_MB = 10**6


@dataclass(frozen=True)
class Held:
    """The most that a process and its children held, in MB (10^6 bytes).

    Attributes:
        alone_mb: Resident memory of the process itself, shared libraries included.
        whole_mb: The same, summed over it and its children.
        shared_once_mb: The sum in which pages of files that several of them map count once. Who else maps these files
            doesn't matter.
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


@dataclass(frozen=True)
class Resident:
    """Resident memory of one process, in bytes: its own pages, and those of files by device and inode."""

    own: int
    files: Counter[str]

    @classmethod
    def of(cls, lines: Iterable[str]) -> Self:
        """Reads the lines of ``smaps``."""
        own, files, file, resident = 0, Counter[str](), "", 0
        for line in lines:
            name, *values = line.split()
            if not name.endswith(":"):
                file = f"{values[2]} {values[3]}"
            elif name == "Rss:":
                resident = int(values[0])
            elif name == "Anonymous:":
                own += int(values[0]) * 1024
                files[file] += (resident - int(values[0])) * 1024
        return cls(own, files)

    @property
    def total(self) -> int:
        """All of it."""
        return self.own + self.files.total()


def held_now(pid: int) -> Held:
    """What a process and its children hold at this moment."""
    process = psutil.Process(pid)
    found = {}
    for one in (process, *process.children(recursive=True)):
        try:
            with Path(f"/proc/{one.pid}/smaps").open(encoding="utf-8") as lines:
                found[one.pid] = Resident.of(lines)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return held_by(found, pid)


def held_by(residents: Mapping[int, Resident], pid: int) -> Held:
    """What the processes hold, ``pid`` being the first of them."""
    shared = Counter[str]()
    for resident in residents.values():
        shared |= resident.files  # the most that one of them has of each file
    return Held(
        alone_mb=residents[pid].total / _MB if pid in residents else 0.0,
        whole_mb=sum(resident.total for resident in residents.values()) / _MB,
        shared_once_mb=(sum(resident.own for resident in residents.values()) + shared.total()) / _MB,
    )


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
        self._look()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        for name, pid in self._pids.items():
            self.peaks[name] = self.peaks[name].most(held_now(pid))
