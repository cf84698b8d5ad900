"""Celery as the carrier of wake-ups: one app, one task, threads.

Celery owns the signals of a worker process. Its warm shutdown takes no new wake-ups and waits for running ones; we
hook its start to begin our own deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

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
) -> None:
    """Consume wake-ups of ``queue`` until SIGTERM; return when running ones have ended.

    Args:
        name: The worker's name; Celery adds the host.
        concurrency: Wake-ups handled at once.
        wake: Handles one wake-up; called from pool threads.
        on_ready: Called once wake-ups are being consumed.
        on_shutdown: Called when the shutdown begins, in a thread of its own.
    """
    app = Celery("ovis", broker=broker_url, set_as_current=False)
    app.conf.update(celery_settings(queue))

    @app.task(name=WAKE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def take_wakeup() -> None:
        wake()

    # Receivers are kept by weak reference, so these names must live as long as the worker does.
    def ready(**_: object) -> None:
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
