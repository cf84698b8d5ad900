"""One process per GPU: start, pin, restart with backoff, pass signals on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from contract.logs import get_logger

log = get_logger(__name__)

#: Seconds before a dead worker is started again: doubled per death, back to the first after a good while.
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, _GOOD_WHILE_S = 1.0, 60.0, 120.0


def supervise(gpus: Sequence[str], argv: Sequence[str], *, metrics_port: int) -> None:
    """Run ``python -m workers <argv>`` once per GPU until SIGTERM or SIGINT; return when all have ended.

    Args:
        gpus: GPU indices or UUIDs, as CUDA_VISIBLE_DEVICES takes them.
        argv: Arguments of the single worker.
        metrics_port: Port of the first worker; the others follow it. 0 lets the system choose for each.
    """
    stopping = threading.Event()
    slots = [
        _Slot(gpu, [*argv, "--metrics-port", str(metrics_port + index if metrics_port else 0)], stopping)
        for index, gpu in enumerate(gpus)
    ]

    def stop(signum: int, _frame: object) -> None:
        stopping.set()
        for slot in slots:
            slot.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    threads = [threading.Thread(target=slot.keep_running, name=f"gpu-{slot.gpu}") for slot in slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Slot:
    """One GPU and the worker on it."""

    def __init__(self, gpu: str, argv: Sequence[str], stopping: threading.Event) -> None:
        self.gpu = gpu
        self._argv = [sys.executable, "-m", "workers", *argv]
        self._stopping = stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def send_signal(self, signum: int) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signum)

    def keep_running(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                environment = {**os.environ, "CUDA_VISIBLE_DEVICES": self.gpu}
                self._process = subprocess.Popen(self._argv, env=environment)  # noqa: S603 - our own module
            started = time.monotonic()
            log.info("gpu_worker_started", gpu=self.gpu, pid=self._process.pid)
            code = self._process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _GOOD_WHILE_S:
                backoff_s = _FIRST_BACKOFF_S
            log.error("gpu_worker_died", gpu=self.gpu, exit_code=code, restart_in_s=backoff_s)
            self._stopping.wait(backoff_s)
            backoff_s = min(_LONGEST_BACKOFF_S, 2 * backoff_s)
