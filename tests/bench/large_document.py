"""A document of thousands of pages: what the roles hold in memory, and how fast a cancel in the middle is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import redis

from contract import store
from contract.redis_io import connect
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack, StackConfig
from tests.bench.memory import MemoryWatch
from tests.corpus.text_pdf import make_lines, make_pdf

MODEL = "ovis2-reader"

#: The roles whose memory is bounded by issue 5.
_ROLES = ("io", "model")

#: Longest wait for anything, in seconds.
_MOST_S = 1800.0


@dataclass(frozen=True)
class Outcome:
    """How the document went, in seconds.

    Attributes:
        planned_s: From the submission until all parts wait.
        canceled_s: From the cancel to the task's end; None where all pages were read.
        pages: Pages that were read.
        seconds: From the submission to the end.
    """

    planned_s: float
    canceled_s: float | None
    pages: int
    seconds: float


def measure_large(num_pages: int, num_read: int) -> dict[str, float]:
    """Print what a large document takes; reply the same as figures.

    Args:
        num_pages: Pages of the document.
        num_read: Pages after which it is canceled; ``num_pages`` reads and assembles it all.
    """
    pdf = make_pdf([make_lines(page) for page in range(1, num_pages + 1)])
    config = StackConfig(model=MODEL, extra_env={"OVIS_ENGINE_THREADS": "1", "OMP_NUM_THREADS": "1"})
    with (
        LocalStack(config) as stack,
        Client(stack.url, stack.api_key) as client,
        connect(stack.redis_url) as queue,
        MemoryWatch({name: stack.parts[name].pid or 0 for name in _ROLES}) as watch,
    ):
        children = _children(stack)
        outcome = _run(client, queue, pdf, num_pages, num_read)
        left = _left(queue) | {"children": len(_children(stack) - children)}
    end = "to the end" if outcome.canceled_s is None else f"canceled in {outcome.canceled_s:.2f} s"
    print(f"{num_pages} pages, {len(pdf) / 1e6:.1f} MB: planned in {outcome.planned_s:.2f} s, ", end="")
    print(f"{outcome.pages} read in {outcome.seconds:.1f} s, {end}; left: {left}")
    figures = {"large_planned_s": round(outcome.planned_s, 2), "large_pages_read": outcome.pages}
    if outcome.canceled_s is not None:
        figures["large_canceled_s"] = round(outcome.canceled_s, 2)
    for name, held in watch.peaks.items():
        print(f"{name:<6} {held.alone_mb:6.0f} MB alone, {held.whole_mb:6.0f} MB with its media processes, ", end="")
        print(f"{held.shared_once_mb:6.0f} MB with shared memory once")
        figures |= {f"{name}_mb": round(held.alone_mb), f"{name}_with_children_mb": round(held.shared_once_mb)}
    return figures | {"large_left": sum(left.values())}


def _run(client: Client, queue: redis.Redis, pdf: bytes, num_pages: int, num_read: int) -> Outcome:
    began, canceled_s = time.monotonic(), None
    task_id = client.submit(pdf, kind="document", model=MODEL, operation="ocr").id
    key = store.task_key(task_id)
    _until(lambda: int(queue.hget(key, "parts_total") or 0) == num_pages)
    planned_s = time.monotonic() - began
    if num_read < num_pages:
        _until(lambda: int(queue.hget(key, "parts_done") or 0) >= num_read)
        asked = time.monotonic()
        client.cancel(task_id)
        client.wait(task_id, 60)
        canceled_s = time.monotonic() - asked
    else:
        client.wait(task_id, _MOST_S)
    task = client.get(task_id)
    assert task.status == ("succeeded" if canceled_s is None else "canceled"), task
    return Outcome(planned_s, canceled_s, task.progress.parts_done, time.monotonic() - began)


def _left(queue: redis.Redis) -> dict[str, int]:
    """What an ended document must not leave in the works."""
    waiting, running = queue.hmget(store.queue_stats_key(MODEL), ["waiting", "running"])
    return {
        "leases": int(queue.zcard("ovis:leases")),
        "attempts": int(queue.hlen("ovis:attempts")),
        "waiting": int(waiting or 0),
        "running": int(running or 0),
    }


def _children(stack: LocalStack) -> set[int]:
    """Process ids of the roles' children."""
    pids = [stack.parts[name].pid or 0 for name in _ROLES]
    return {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)}


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + _MOST_S
    while not condition():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.02)
