"""The fleet under attack: two model and two io workers, whatever dies is started again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import psutil
from redis.exceptions import RedisError

from contract.blobs import BlobStore
from contract.redis_io import connect
from contract.settings import FleetSettings
from ovis_fleet.stack import LocalStack, StackConfig

T = TypeVar("T")

MODEL_WORKERS = ("model", "model-2")
IO_WORKERS = ("io", "io-2")

#: Few rows and one thread: the runs share two cores with everything else.
_SETTINGS = {
    "OVIS_ENGINE_ROWS": "4",
    "OVIS_ENGINE_BACKLOG": "2",
    "OVIS_ENGINE_THREADS": "1",
    "OVIS_MEDIA_PROCESSES": "2",
}

#: Seconds after which a part that died is started again: what a kubelet would take, more or less.
_RESTART_S = 0.5

#: Seconds for which the harness itself waits for a Valkey that it has killed.
_PATIENCE_S = 60.0


class ChaosFleet:
    """A context manager. Any thread may call any method.

    Attributes:
        stack: the local stack under it.
        client: a look into its Valkey.
        blobs: a look into its bucket.
    """

    def __init__(self) -> None:
        self.stack = LocalStack(StackConfig(extra_env=_SETTINGS))
        self.client = connect(self.stack.redis_url)
        settings = {name.removeprefix("OVIS_").lower(): value for name, value in self.stack.env.items()}
        self.blobs = BlobStore(FleetSettings(**settings))
        self._held_down: dict[str, float] = {}
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="chaos-keeper", daemon=True)
        self._media_pids: set[int] = set()

    def __enter__(self) -> Self:
        self.stack.start()
        try:
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(self.stack.add_worker, ("model", "io")))
        except BaseException:
            self.stack.stop()
            raise
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_keeping_up()
        self.stack.stop()
        self.client.close()

    def stop_keeping_up(self) -> None:
        """From here on what dies stays dead."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def copy_logs(self, directory: Path) -> None:
        """Save the log of every part, of all its lives; they go with the stack otherwise."""
        directory.mkdir(parents=True, exist_ok=True)
        for part in self.stack.parts.values():
            shutil.copy(part.log_path, directory)

    def is_running(self, part: str) -> bool:
        """Whether the part's process lives."""
        return self.stack.parts[part].is_running

    def is_ready(self, part: str) -> bool:
        """Whether a role says that it serves."""
        argv = self.stack.parts[part].argv
        option = "--port" if part == "gateway" else "--metrics-port"
        url = f"http://127.0.0.1:{argv[argv.index(option) + 1]}/readyz"
        with contextlib.suppress(httpx.HTTPError):
            return self.is_running(part) and httpx.get(url, timeout=2).status_code == 200
        return False

    def kill(self, part: str, down_s: float = _RESTART_S) -> None:
        """``kill -9``; the part is started again after ``down_s``."""
        self._held_down[part] = time.monotonic() + down_s
        self._media_pids |= set(self.media_children(part))
        self.stack.parts[part].kill()

    def revive(self, part: str) -> None:
        """Start a part that is held down, and wait until it serves."""
        self._held_down[part] = 0.0
        deadline = time.monotonic() + _PATIENCE_S
        while not self.is_ready(part) and time.monotonic() < deadline:
            time.sleep(0.1)

    def pause(self, part: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after ``seconds``; returns at once."""
        pid = self.stack.parts[part].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

        def resume() -> None:
            if self.stack.parts[part].pid == pid and self.is_running(part):
                os.kill(pid, signal.SIGCONT)

        timer = threading.Timer(seconds, resume)
        timer.daemon = True
        timer.start()

    def media_children(self, part: str) -> list[int]:
        """Process ids of a model worker's media processes."""
        pid = self.stack.parts[part].pid
        with contextlib.suppress(psutil.Error):
            if pid is not None and self.is_running(part):
                return [child.pid for child in psutil.Process(pid).children()]
        return []

    def orphaned_media(self) -> list[int]:
        """Media processes that outlived their worker."""
        return [pid for pid in self._media_pids if _is_media(pid)]

    def part_of(self, worker: str) -> str | None:
        """The part whose present process bears a worker's name, with or without its host."""
        return next((part for part in MODEL_WORKERS if self.worker_name(part) == worker.split("@")[0]), None)

    def worker_name(self, part: str) -> str | None:
        """What the part's present process calls itself in attempts; None before it has said so."""
        log = self.stack.parts[part].log_path.read_text(encoding="utf-8", errors="replace")
        names = re.findall(r'"worker": ?"([^"]+)"', log)
        return names[-1] if names else None

    def attempts_of(self, worker: str) -> list[dict[str, object]]:
        """Live attempts that a worker holds."""
        found = self.patiently(lambda: self.client.hvals("ovis:attempts"))
        return [attempt for attempt in map(json.loads, found) if attempt["worker"].split("@")[0] == worker]

    def patiently(self, call: Callable[[], T]) -> T:
        """Call Valkey until it answers.

        Raises:
            RedisError: It didn't for a long time.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return call()
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _keep_up(self) -> None:
        while not self._closing.wait(0.1):
            for name, process in list(self.stack.parts.items()):
                if process.is_running:
                    continue
                # One that died by itself gets the same pause as one that was killed.
                due = self._held_down.setdefault(name, time.monotonic() + _RESTART_S)
                if time.monotonic() >= due:
                    self._held_down.pop(name, None)
                    process.start()


def _is_media(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return "workers.media.child" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
