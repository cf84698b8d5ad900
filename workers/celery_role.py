"""Celery as the carrier of wake-ups: one app, one task, threads.

Celery owns the signals of a worker process. Its warm shutdown takes no new wake-ups and waits for running ones; we
hook its start to begin our own deadline.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from celery import Celery
from celery.signals import setup_logging, worker_ready, worker_shutting_down

from contract.logs import get_logger
from contract.wakeups import WAKE_TASK, celery_settings

log = get_logger(__name__)


def run_celery(
    *,
    broker_url: str,
    queue: str,
    name: str,
    concurrency: int,
    wake: Callable[[], str],
    on_ready: Callable[[], None],
    on_shutdown: Callable[[], None],
    on_second_signal: Callable[[], None] | None = None,
) -> None:
    """Consume wake-ups of ``queue`` until SIGTERM; return when running ones have ended.

    Args:
        name: The worker's name; Celery adds the host.
        concurrency: Wake-ups handled at once.
        wake: Handles one wake-up; called from pool threads.
        on_ready: Called once wake-ups are being consumed.
        on_shutdown: Called when the shutdown begins, in a thread of its own.
        on_second_signal: Called at the second SIGTERM, instead of Celery's cold shutdown, which drops what runs.
    """
    app = Celery("ovis", broker=broker_url, set_as_current=False)
    app.conf.update(celery_settings(queue))

    @app.task(name=WAKE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def take_wakeup() -> None:
        wake()

    # Receivers are kept by weak reference, so these names must live as long as the worker does.
    def ready(**_: object) -> None:
        if on_second_signal is not None:
            _soften_second_sigterm(on_second_signal)
        on_ready()

    def shutting_down(**_: object) -> None:
        log.info("drain_started", queue=queue)
        threading.Thread(target=on_shutdown, name="drain", daemon=True).start()

    def keep_our_logging(**_: object) -> None:
        """A receiver of this signal is what stops Celery from configuring logging."""

    worker_ready.connect(ready)
    worker_shutting_down.connect(shutting_down)
    setup_logging.connect(keep_our_logging)
    argv = ["worker", "--pool=threads", f"--concurrency={concurrency}", f"--queues={queue}", f"--hostname={name}@%h"]
    argv += ["--disable-prefetch", "--without-gossip", "--without-mingle", "--loglevel=WARNING"]
    try:
        app.worker_main(argv)
    except SystemExit as exc:
        if exc.code:
            raise


def _soften_second_sigterm(on_second: Callable[[], None]) -> None:
    """Let Celery have the first SIGTERM, ``on_second`` the others. Main thread, once Celery's handler is in place."""
    first = signal.getsignal(signal.SIGTERM)
    seen = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen or not callable(first):
            on_second()
        else:
            seen = True
            first(signum, frame)

    signal.signal(signal.SIGTERM, handle)
