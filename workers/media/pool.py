"""The worker's side of its media processes: hand out jobs, kill what overruns, replace what died."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from typing import Any

from contract.errors import FleetError, InternalError, LimitExceeded, MediaProcessDied, all_errors
from contract.logs import get_logger
from ovis_engine.errors import InvalidTilesError
from ovis_engine.video import Sampling
from workers.media import protocol
from workers.media.answers import DocumentProbe, Frames, Prepared, VideoProbe
from workers.media.office import MAX_FILE_BYTES, remove_leftovers
from workers.media.protocol import Answer, MediaJob, MediaLimits, Origin, Prepare, Probe, Sample, Work
from workers.settings import WorkerSettings

log = get_logger(__name__)

#: Seconds beyond the job's own limit before its process is killed: the limit's error should come from inside.
_MARGIN_S = 5.0

#: Seconds for which a caller waits, for a free process or for its answer, before it asks whether to go on.
_ASK_S = 1.0

#: All that a media process gets of our environment. No credentials, no addresses.
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: The one variable that is passed on: where conversions lie, which the worker removes when it kills their process.
_PLACE = "TMPDIR"


class _Child:
    def __init__(self, memory_bytes: int, file_bytes: int) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            argv = [sys.executable, "-I", "-m", "workers.media.child", *map(str, (fd, memory_bytes, file_bytes))]
            environment = {**_ENVIRONMENT, _PLACE: tempfile.gettempdir()}
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                argv, env=environment, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.jobs = 0

    def kill(self) -> int:
        """End it and what it started at once; reply its exit code, negative for a signal."""
        self.connection.close()
        return self.end()

    def end(self) -> int:
        """Kill its process group, which is its own, and remove its files; reply its exit code.

        The id of a process that was waited for may be another's by now.
        """
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        remove_leftovers(self.process.pid)
        return code


class MediaPool:
    """A fixed number of media processes.

    ``probe``, ``prepare`` and ``frames`` may be called from any thread; they wait for a free process. Start the pool
    before the engine loads, so that no child is forked from a process that holds a model.
    """

    def __init__(self, settings: WorkerSettings, *, on_death: Callable[[str], None]) -> None:
        """``on_death`` is called with why a process was lost: "timeout", "cpu", "crash" or "idle"."""
        self._settings = settings
        self._on_death = on_death
        self._idle: queue.Queue[_Child] = queue.Queue()
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._office_command = _office_command(settings)
        self._limits = MediaLimits(
            max_input_bytes=settings.media_max_input_bytes,
            max_pixels=settings.media_max_pixels,
            max_pages=settings.media_max_pages,
            max_frames=settings.media_max_frames,
            cache_bytes=settings.media_cache_bytes,
            timeout_s=settings.media_timeout_s,
            cpu_s=settings.media_cpu_s,
        )
        for _ in range(settings.media_processes):
            self._idle.put(self._spawn())

    def probe(
        self,
        url: str,
        *,
        trusted: bool,
        timeout_s: float | None = None,
        go_on: Callable[[], None] | None = None,
        look: Probe | None = None,
    ) -> DocumentProbe | VideoProbe:
        """Look at a document or a clip without rendering it: its pages and their sizes, or its length.

        Args:
            url: As `prepare`.
            trusted: As `prepare`.
            timeout_s: Seconds that it may take at most; None leaves the setting.
            go_on: Called every second, while no process is free and while one looks. What it raises ends the wait,
                and the process that looks.
            look: What is looked for; None is nothing but that.

        Raises:
            FleetError: As `prepare`.
        """
        answer = self._run(url, trusted, look or Probe(), timeout_s, go_on)
        assert isinstance(answer, DocumentProbe | VideoProbe)
        return answer

    def prepare(
        self,
        url: str,
        *,
        trusted: bool,
        side: int,
        max_partition: int,
        page: int | None = None,
        rotate: int = 0,
        want_text: bool = False,
        text_suffices: bool = False,
    ) -> Prepared:
        """Fetch and tile one picture, or one page of a document.

        Args:
            url: A URL that was presigned (``trusted``) or is the caller's.
            trusted: Whether the egress policy doesn't apply.
            side: Side of a tile in pixels.
            max_partition: Most tiles of the grid.
            page: Page from 1; None reads the input as one picture.
            rotate: Degrees clockwise: 0, 90, 180 or 270.
            want_text: Whether a page's own text is wanted.
            text_suffices: Whether a page that has text of its own needs no tiles.

        Raises:
            FleetError: What was wrong; ``MediaProcessDied`` where the process ended without saying.
        """
        answer = self._run(url, trusted, Prepare(side, max_partition, page, rotate, want_text, text_suffices))
        assert isinstance(answer, Prepared)
        return answer

    def frames(self, url: str, *, trusted: bool, side: int, max_partition: int, sampling: Sampling) -> Frames:
        """Fetch a clip and tile frames of it.

        Raises:
            FleetError: As `prepare`.
        """
        answer = self._run(url, trusted, Sample(side, max_partition, sampling))
        assert isinstance(answer, Frames)
        return answer

    def _run(
        self,
        url: str,
        trusted: bool,
        work: Work,
        timeout_s: float | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> Answer:
        settings = self._settings
        origin = Origin(url, trusted, settings.egress_allow_http, tuple(map(str, settings.egress_allow_cidrs)))
        limits = self._limits
        if timeout_s is not None:
            limits = replace(limits, timeout_s=min(timeout_s, limits.timeout_s))
        job = MediaJob(origin, work, limits, self._office_command)
        child = self._take(go_on or _go_on)
        healthy = False
        answer: Answer | None = None
        try:
            header = self._ask(child, job, go_on or _go_on)
            if header["ok"]:
                answer = protocol.receive_answer(child.connection, header, job)
            healthy = True
        except (EOFError, OSError, ValueError, KeyError, TypeError, InvalidTilesError) as exc:
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
                child.end()
            self._children.clear()

    def _spawn(self) -> _Child:
        child = _Child(self._settings.media_memory_bytes, MAX_FILE_BYTES if self._office_command else 0)
        with self._lock:
            self._children.add(child)
        return child

    def _take(self, go_on: Callable[[], None]) -> _Child:
        """Wait for a free process for as long as ``go_on`` doesn't raise."""
        while True:
            go_on()
            try:
                child = self._idle.get(timeout=_ASK_S)
                break
            except queue.Empty:
                continue
        try:
            go_on()
            return self._living(child)
        except BaseException:
            self._idle.put(child)
            raise

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

    def _ask(self, child: _Child, job: MediaJob, go_on: Callable[[], None]) -> dict[str, Any]:
        protocol.send_job(child.connection, job)
        ends = time.monotonic() + job.limits.timeout_s + _MARGIN_S
        while not child.connection.poll(min(_ASK_S, max(0.0, ends - time.monotonic()))):
            if time.monotonic() >= ends:
                self._on_death("timeout")
                raise LimitExceeded(f"preparing the input took more than {job.limits.timeout_s:g} seconds")
            go_on()
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


def _go_on() -> None:
    """Wait for as long as it takes."""


def _office_command(settings: WorkerSettings) -> str | None:
    named = settings.media_office_command
    return str(named) if named else shutil.which("soffice")


def _error(code: str, detail: str) -> FleetError:
    return all_errors().get(code, InternalError)(detail)
