"""A document of thousands of pages: what the roles hold in memory, and how fast a cancel in the middle is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil
import redis

from contract import store
from contract.redis_io import connect
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack, StackConfig
from tests.bench.memory import MemoryWatch
from tests.corpus.text_pdf import make_lines, make_pdf
from tools.reader.scoring import edit_distance

MODEL = "ovis2-reader"

#: The roles whose memory is bounded by issue 5.
_ROLES = ("io", "model")

#: Longest wait for anything, in seconds.
_MOST_S = 3600.0

#: The aims of issue 5: what each role may hold, and how long a cancel may take.
MOST_MB, MOST_CANCEL_S = 600.0, 5.0

#: Wrong characters of a page from which it is counted as badly read.
BAD_RATE = 0.05

#: Seconds between looks at how far the document is.
_LOOK_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """How the document went, in seconds.

    Attributes:
        planned_s: From the submission until all parts wait.
        canceled_s: From the cancel to the task's end; None where all pages were read.
        pages: Pages that were read.
        exact: Pages of them whose text is right to the letter; only counted where all were read.
        bad: Pages of which more than a twentieth is wrong, likewise.
        worst_rate: The largest character error rate of a page, likewise.
        seconds: From the submission to the end.
    """

    planned_s: float
    canceled_s: float | None
    pages: int
    seconds: float
    exact: int = 0
    bad: int = 0
    worst_rate: float = 0.0


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
        children = _num_children(stack)
        outcome = _run(client, queue, pdf, num_pages, num_read)
        left = _left(queue) | {"children": max(0, _num_children(stack) - children)}
    end = "to the end" if outcome.canceled_s is None else f"canceled in {outcome.canceled_s:.2f} s"
    print(f"{num_pages} pages, {len(pdf) / 1e6:.1f} MB: planned in {outcome.planned_s:.2f} s, ", end="")
    print(f"{outcome.pages} read in {outcome.seconds:.1f} s, {end}; left: {left}")
    figures = {"large_planned_s": round(outcome.planned_s, 2), "large_pages_read": outcome.pages}
    figures["large_s"] = round(outcome.seconds, 1)
    if outcome.canceled_s is not None:
        figures["large_canceled_s"] = round(outcome.canceled_s, 2)
    else:
        print(f"all in order, {outcome.exact} right to the letter, ", end="")
        print(f"{outcome.bad} more than {BAD_RATE:.0%} wrong, the worst {outcome.worst_rate:.1%}")
        figures |= {"large_pages_exact": outcome.exact, "large_pages_bad": outcome.bad}
        figures["large_worst_rate"] = round(outcome.worst_rate, 4)
    for name, held in watch.peaks.items():
        print(f"{name:<6} {held.alone_mb:6.0f} MB alone, {held.whole_mb:6.0f} MB with its media processes, ", end="")
        print(f"{held.shared_once_mb:6.0f} MB with shared memory once")
        figures |= {f"{name}_mb": round(held.alone_mb), f"{name}_with_children_mb": round(held.shared_once_mb)}
    return figures | {"large_left": sum(left.values())}


def misses_large(figures: Mapping[str, float]) -> bool:
    """Whether an aim for the large document is missed."""
    return (
        any(figures.get(f"{name}_with_children_mb", 0.0) >= MOST_MB for name in _ROLES)
        or figures.get("large_canceled_s", 0.0) > MOST_CANCEL_S
        or figures.get("large_left", 0) > 0
    )


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
    task, seconds = client.get(task_id), time.monotonic() - began
    assert task.status == ("succeeded" if canceled_s is None else "canceled"), task
    outcome = Outcome(planned_s, canceled_s, task.progress.parts_done, seconds)
    return outcome if canceled_s is not None else _compared(outcome, client.result(task_id)["parts"], num_pages)


def _compared(outcome: Outcome, parts: list[dict[str, Any]], num_pages: int) -> Outcome:
    """Adds how the pages were read, all of which must be there in order."""
    assert [part["unit"]["page"] for part in parts] == list(range(1, num_pages + 1))
    truths = ["\n".join(make_lines(page)) for page in range(1, num_pages + 1)]
    rates = [edit_distance(part["text"].strip(), truth) / len(truth) for part, truth in zip(parts, truths, strict=True)]
    bad = sum(rate > BAD_RATE for rate in rates)
    return replace(outcome, exact=rates.count(0.0), bad=bad, worst_rate=max(rates))


def _left(queue: redis.Redis) -> dict[str, int]:
    """What an ended document must not leave in the works."""
    waiting, running = queue.hmget(store.queue_stats_key(MODEL), ["waiting", "running"])
    return {
        "leases": int(queue.zcard("ovis:leases")),
        "attempts": int(queue.hlen("ovis:attempts")),
        "waiting": int(waiting or 0),
        "running": int(running or 0),
    }


def _num_children(stack: LocalStack) -> int:
    """The roles' children. Media processes are replaced now and then: their ids tell nothing."""
    pids = [stack.parts[name].pid or 0 for name in _ROLES]
    return sum(len(psutil.Process(pid).children(recursive=True)) for pid in pids)


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + _MOST_S
    while not condition():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(_LOOK_S)
