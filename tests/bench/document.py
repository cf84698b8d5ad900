"""``python -m tests.bench document``: what a second model worker does for one document, and what 2 000 pages hold.

Each model worker has one core, which its media processes share. Gateway, io role, Valkey and S3 run where there is
room: beside one worker they have a core of their own, beside two they have none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import redis

from contract import store
from contract.redis_io import connect
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack, StackConfig
from tests.bench.large_document import measure_large, misses_large
from tests.corpus.text_pdf import make_lines, make_pdf

#: The bundled model.
MODEL = "ovis2-reader"

#: The workers' names in the stack.
WORKERS = ("model", "model-2")

#: Pages of the document, and of the one that warms a worker up.
NUM_PAGES, WARM_PAGES = 40, 32

#: The aim of issue 5.
AIM = 0.65


@dataclass(frozen=True)
class Run:
    """One document.

    Attributes:
        seconds: From the submission to the task's end, plan and assembly included.
        pages: How many each worker did.
        cpu_s: Processor time of each part of the fleet with its children.
    """

    seconds: float
    pages: dict[str, int]
    cpu_s: dict[str, float]


def make_document(first: int, count: int) -> bytes:
    """A PDF of pages that no other document has."""
    return make_pdf([make_lines(page) for page in range(first, first + count)])


def cpu_seconds(stack: LocalStack) -> dict[str, float]:
    """Processor time that every running part and its children have had."""
    found = {}
    for name, part in stack.parts.items():
        if part.pid is not None and part.is_running:
            process = psutil.Process(part.pid)
            times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
            found[name] = sum(one.user + one.system for one in times)
    return found


def pin(pid: int, core: int) -> None:
    """Give a process, its threads and its children one core; what they start later inherits it."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        for thread in one.threads():
            os.sched_setaffinity(thread.id, {core})


class Bench:
    """A fleet with two workers, of which the second comes and goes."""

    def __init__(self, stack: LocalStack, client: Client, queue: redis.Redis) -> None:
        self._stack = stack
        self._client = client
        self._queue = queue
        self._cores = sorted(os.sched_getaffinity(0))
        self._next_page = 1
        stack.add_worker("model")
        stack.stop_part(WORKERS[1])
        self._settle(1)

    def run(self, workers: int, num_pages: int) -> Run:
        """Have a document read by so many workers."""
        running = self._stack.parts[WORKERS[1]].is_running
        if (workers == 2) != running:
            (self._stack.start_part if workers == 2 else self._stack.stop_part)(WORKERS[1])
            self._settle(workers)
        return self._read(num_pages)

    def _settle(self, workers: int) -> None:
        """Pin the workers and let each meet a few pages."""
        for name, core in zip(WORKERS[:workers], self._cores, strict=False):
            pin(self._stack.parts[name].pid or 0, core)
        self._read(workers * WARM_PAGES)

    def _read(self, num_pages: int) -> Run:
        pdf = make_document(self._next_page, num_pages)
        self._next_page += num_pages
        before, began = cpu_seconds(self._stack), time.monotonic()
        task_id = self._client.submit(pdf, kind="document", model=MODEL, operation="ocr").id
        task = self._client.wait(task_id, 600)
        seconds, after = time.monotonic() - began, cpu_seconds(self._stack)
        assert (task.status, task.progress.parts_done) == ("succeeded", num_pages), task
        return Run(seconds, self._spread(task_id, num_pages), {name: after[name] - before[name] for name in after})

    def _spread(self, task_id: str, num_pages: int) -> dict[str, int]:
        """Pages by the worker that did them."""
        names = [f"p{part}:history" for part in range(num_pages)]
        lines = [str(value) for value in self._queue.hmget(store.task_key(task_id), names)]
        return dict(Counter(json.loads(line.splitlines()[-1])["worker"] for line in lines))


@contextmanager
def fleet() -> Iterator[Bench]:
    """Two workers that compute with one thread each."""
    settings = {"OVIS_ENGINE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with (
        LocalStack(StackConfig(model=MODEL, extra_env=settings)) as stack,
        Client(stack.url, stack.api_key) as client,
        connect(stack.redis_url) as queue,
    ):
        yield Bench(stack, client, queue)


def measure_workers(rounds: int, num_pages: int) -> dict[str, float]:
    """Print runs of one and of two workers, in turn; reply the medians and their ratio."""
    runs: dict[int, list[Run]] = {1: [], 2: []}
    with fleet() as bench:
        for number in range(rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                run = bench.run(workers, num_pages)
                runs[workers].append(run)
                spread = "+".join(map(str, sorted(run.pages.values(), reverse=True)))
                shares = "  ".join(f"{name} {seconds:.2f}" for name, seconds in run.cpu_s.items())
                print(f"{workers} worker(s) {run.seconds:6.2f} s  pages {spread:<7} CPU seconds: {shares}", flush=True)
    one, two = (statistics.median(run.seconds for run in runs[workers]) for workers in (1, 2))
    return {
        "two_over_one": round(two / one, 3),
        "one_worker_s": round(one, 2),
        "two_workers_s": round(two, 2),
        "one_worker_pages_s": round(num_pages / one, 2),
        "two_workers_pages_s": round(num_pages / two, 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and a line of JSON; exit code 1 where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench document", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of one and two workers; 0 leaves them out")
    parser.add_argument("--pages", type=int, default=NUM_PAGES, help="pages of the document that they read")
    parser.add_argument("--large", type=int, default=0, help="pages of the large document; 0 leaves it out")
    parser.add_argument(
        "--read",
        type=int,
        nargs="+",
        default=[200],
        help="pages of the large document read before it is canceled, in a fleet of its own for each number; "
        "as many as it has: to its end",
    )
    args = parser.parse_args(argv)
    figures: dict[str, float] = {}
    if args.rounds:
        figures |= measure_workers(args.rounds, args.pages)
    runs = [measure_large(args.large, num_read) for num_read in args.read if args.large]
    print(json.dumps(figures | {"large": runs}))
    return 0 if figures.get("two_over_one", 0.0) <= AIM and not any(map(misses_large, runs)) else 1
