"""The worker's side of its media processes: hand out jobs, kill what overruns, replace what died."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from typing import Any

from contract.errors import FleetError, InternalError, LimitExceeded, MediaProcessDied, all_errors
from contract.logs import get_logger
from ovis_engine.errors import InvalidTilesError
from ovis_engine.tiling import TiledImage
from workers.media import protocol
from workers.media.answers import DocumentProbe, VideoProbe
from workers.media.protocol import MediaJob
from workers.settings import WorkerSettings

log = get_logger(__name__)

#: Seconds beyond the job's own limit before its process is killed: the limit's error should come from inside.
_MARGIN_S = 5.0

#: All that a media process gets of our environment. No credentials, no addresses.
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _Child:
    def __init__(self, memory_bytes: int) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            argv = [sys.executable, "-I", "-m", "workers.media.child", str(fd), str(memory_bytes)]
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                argv, env=_ENVIRONMENT, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.jobs = 0

    def kill(self) -> int:
        """End it at once; reply its exit code, negative for a signal."""
        self.connection.close()
        self.process.kill()
        return self.process.wait()


class MediaPool:
    """A fixed number of media processes.

    ``prepare`` may be called from any thread; it waits for a free process. Start the pool before the engine loads, so
    that no child is forked from a process that holds a model.
    """

    def __init__(self, settings: WorkerSettings, *, on_death: Callable[[str], None]) -> None:
        """``on_death`` is called with why a process was lost: "timeout", "cpu", "crash" or "idle"."""
        self._settings = settings
        self._on_death = on_death
        self._idle: queue.Queue[_Child] = queue.Queue()
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(settings.media_processes):
            self._idle.put(self._spawn())

    def prepare(self, url: str, *, trusted: bool, side: int, max_partition: int, page: int | None = None) -> TiledImage:
        """Fetch, decode and tile one picture, or one page of a document, from 1.

        Raises:
            FleetError: What was wrong; ``MediaProcessDied`` where the process ended without saying.
        """
        answer = self._perform(self._job(url, trusted=trusted, side=side, max_partition=max_partition, page=page))
        assert isinstance(answer, TiledImage)
        return answer

    def probe(self, url: str, *, trusted: bool) -> DocumentProbe | VideoProbe:
        """Look what a file is and how many pages it has.

        Raises:
            FleetError: What was wrong; ``MediaProcessDied`` where the process ended without saying.
        """
        answer = self._perform(replace(self._job(url, trusted=trusted, side=1, max_partition=1), what="probe"))
        assert isinstance(answer, DocumentProbe)
        return answer

    def _job(self, url: str, *, trusted: bool, side: int, max_partition: int, page: int | None = None) -> MediaJob:
        settings = self._settings
        return MediaJob(
            url=url,
            trusted=trusted,
            allow_http=settings.egress_allow_http,
            allow_networks=tuple(map(str, settings.egress_allow_cidrs)),
            side=side,
            max_partition=max_partition,
            limits=protocol.MediaLimits(
                max_input_bytes=settings.media_max_input_bytes,
                max_pixels=settings.media_max_pixels,
                timeout_s=settings.media_timeout_s,
                cpu_s=settings.media_cpu_s,
            ),
            page=page,
        )

    def _perform(self, job: MediaJob) -> TiledImage | DocumentProbe:
        child = self._living(self._idle.get())
        healthy, answer = False, None
        try:
            header = self._ask(child, job)
            if header["ok"]:
                probing = job.what == "probe"
                answer = protocol.read_probe(header) if probing else protocol.receive_tiles(child.connection, header)
            healthy = True
        except (EOFError, OSError, ValueError, InvalidTilesError) as exc:
            raise self._lost(child) from exc
        finally:
            self._give_back(child, healthy=healthy)
        if answer is None:
            raise _error(header["code"], header["detail"])
        return answer

    def pids(self) -> list[int]:
        """Process ids of the media processes."""
        with self._lock:
            return [child.process.pid for child in self._children]

    def close(self) -> None:
        """Kill every process; running jobs end with ``MediaProcessDied``."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.process.kill()
                child.process.wait()
            self._children.clear()

    def _spawn(self) -> _Child:
        child = _Child(self._settings.media_memory_bytes)
        with self._lock:
            self._children.add(child)
        return child

    def _living(self, child: _Child) -> _Child:
        """The process, or a new one where it died while it had nothing to do: no part is to blame for that."""
        if child.process.poll() is None or self._closed:
            return child
        self._on_death("idle")
        return self._replace(child)

    def _replace(self, child: _Child) -> _Child:
        child.kill()
        with self._lock:
            self._children.discard(child)
            # After the close the dead one goes round, so that whoever waits for a process is told.
            if self._closed:
                return child
        return self._spawn()

    def _ask(self, child: _Child, job: MediaJob) -> dict[str, Any]:
        protocol.send_job(child.connection, job)
        if not child.connection.poll(job.limits.timeout_s + _MARGIN_S):
            self._on_death("timeout")
            raise LimitExceeded(f"preparing the input took more than {job.limits.timeout_s:g} seconds")
        return protocol.receive_header(child.connection)

    def _lost(self, child: _Child) -> FleetError:
        code = child.kill()
        if code == -signal.SIGXCPU:
            self._on_death("cpu")
            return LimitExceeded(f"preparing the input took more than {self._settings.media_cpu_s} CPU seconds")
        self._on_death("crash")
        log.warning("media_process_died", exit_code=code)
        return MediaProcessDied("the process that decodes the input ended without an answer")

    def _give_back(self, child: _Child, *, healthy: bool) -> None:
        child.jobs += 1
        if not healthy or child.jobs >= self._settings.media_jobs_per_process:
            child = self._replace(child)
        self._idle.put(child)


def _error(code: str, detail: str) -> FleetError:
    return all_errors().get(code, InternalError)(detail)
