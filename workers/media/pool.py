"""The worker's side of its media processes: hand out jobs, kill what overruns, replace what died."""

from __future__ import annotations

import copy
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from contract.errors import FleetError, InternalError, LimitExceeded, MediaProcessDied, all_errors
from contract.logs import get_logger
from ovis_engine.errors import InvalidTilesError
from ovis_engine.video import Sampling
from workers.media import protocol
from workers.media.answers import DocumentProbe, Frames, Prepared, VideoProbe
from workers.media.office import MAX_FILE_BYTES
from workers.media.process import MediaProcess
from workers.media.protocol import Answer, MediaJob, MediaLimits, Origin, Prepare, Probe, Sample, Work
from workers.settings import WorkerSettings

log = get_logger(__name__)

#: Seconds beyond the job's own limit before its process is killed: the limit's error should come from inside.
_MARGIN_S = 5.0

#: Seconds for which a caller waits, for a free process or for its answer, before it asks whether to go on.
_ASK_S = 1.0


class MediaPool:
    """A fixed number of media processes.

    ``probe``, ``prepare`` and ``frames`` may be called from any thread; they wait for a free process, then for its
    answer, and give both up where they are told to (see ``asking``). Start the pool before the engine loads, so that
    no child is forked from a process that holds a model.
    """

    def __init__(self, settings: WorkerSettings, *, on_death: Callable[[str], None]) -> None:
        """``on_death`` is called with why a process was lost: "timeout", "cpu", "crash" or "idle"."""
        self._settings = settings
        self._on_death = on_death
        self._idle: queue.Queue[MediaProcess] = queue.Queue()
        self._children: set[MediaProcess] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._go_on = _go_on
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

    def asking(self, go_on: Callable[[], None]) -> Self:
        """The same processes for one holder, who may want no answer any more.

        Args:
            go_on: Called every second while a call waits. What it raises ends the wait, and the process that works for
                it, which is replaced.
        """
        asked = copy.copy(self)
        asked._go_on = go_on
        return asked

    def probe(
        self,
        url: str,
        *,
        trusted: bool,
        timeout_s: float | None = None,
        look: Probe | None = None,
    ) -> DocumentProbe | VideoProbe:
        """Look at a document or a clip without rendering it: its pages and their sizes, or its length.

        Args:
            url: As `prepare`.
            trusted: As `prepare`.
            timeout_s: Seconds that it may take at most; None leaves the setting.
            look: What is looked for; None is nothing but that.

        Raises:
            FleetError: As `prepare`.
        """
        answer = self._run(url, trusted, look or Probe(), timeout_s)
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

    def _run(self, url: str, trusted: bool, work: Work, timeout_s: float | None = None) -> Answer:
        settings = self._settings
        origin = Origin(url, trusted, settings.egress_allow_http, tuple(map(str, settings.egress_allow_cidrs)))
        limits = self._limits
        if timeout_s is not None:
            limits = replace(limits, timeout_s=min(timeout_s, limits.timeout_s))
        job = MediaJob(origin, work, limits, self._office_command)
        child = self._take()
        ends = time.monotonic() + limits.timeout_s + _MARGIN_S
        healthy = False
        answer: Answer | None = None
        try:
            self._ask(child, job, ends)
            with self._ended_at(ends, child, job):
                header = protocol.receive_header(child.connection)
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
            self._closed.set()
            for child in self._children:
                child.end()
            self._children.clear()

    def _spawn(self) -> MediaProcess:
        child = MediaProcess(self._settings.media_memory_bytes, MAX_FILE_BYTES if self._office_command else 0)
        with self._lock:
            self._children.add(child)
        return child

    def _take(self) -> MediaProcess:
        """Wait for a free process for as long as the holder doesn't mind."""
        while True:
            self._go_on()
            try:
                child = self._idle.get(timeout=_ASK_S)
                break
            except queue.Empty:
                continue
        try:
            self._go_on()
            return self._living(child)
        except BaseException:
            self._idle.put(child)
            raise

    def _living(self, child: MediaProcess) -> MediaProcess:
        """The process, or a new one where it died while it had nothing to do: no part is to blame for that."""
        if child.process.poll() is None or self._closed.is_set():
            return child
        self._on_death("idle")
        return self._replace(child)

    def _replace(self, child: MediaProcess) -> MediaProcess:
        child.kill()
        with self._lock:
            self._children.discard(child)
            # After the close the dead one goes round, so that whoever waits for a process is told.
            if self._closed.is_set():
                return child
        return self._spawn()

    def _ask(self, child: MediaProcess, job: MediaJob, ends: float) -> None:
        """Wait until the answer begins, but no longer than ``ends`` and as long as the holder doesn't mind."""
        protocol.send_job(child.connection, job)
        while (left_s := ends - time.monotonic()) > 0:
            if child.connection.poll(min(_ASK_S, left_s)):
                return
            self._go_on()
        raise self._late(job)

    @contextmanager
    def _ended_at(self, ends: float, child: MediaProcess, job: MediaJob) -> Iterator[None]:
        """End ``child`` where the block, which reads what it says, lasts longer than until ``ends``."""
        timer = threading.Timer(max(0.0, ends - time.monotonic()), child.end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, OSError) as exc:
            if time.monotonic() < ends:
                raise
            raise self._late(job) from exc
        finally:
            timer.cancel()

    def _late(self, job: MediaJob) -> FleetError:
        self._on_death("timeout")
        return LimitExceeded(f"preparing the input took more than {job.limits.timeout_s:g} seconds")

    def _lost(self, child: MediaProcess) -> FleetError:
        code = child.kill()
        if code == -signal.SIGXCPU:
            self._on_death("cpu")
            return LimitExceeded(f"preparing the input took more than {self._settings.media_cpu_s} CPU seconds")
        self._on_death("crash")
        log.warning("media_process_died", exit_code=code)
        return MediaProcessDied("the process that decodes the input ended without an answer")

    def _give_back(self, child: MediaProcess, *, healthy: bool) -> None:
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
