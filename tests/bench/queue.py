"""``python -m tests.bench queue``: what submit and claim cost in a short and in a long queue, and what a task weighs.

Costs are those inside Valkey (``INFO commandstats``), so that the client's share doesn't hide a growth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

import redis
from rich.console import Console
from rich.table import Table

from contract import store, submissions
from contract.redis_io import connect, run
from contract.task import Attempt, ObjectInput, PartResult, TaskSpec, Usage, dumps, new_task_id
from ovis_fleet.stack import LocalStack, StackConfig

QUEUE = "ovis2-reader"

#: Tenants that share the queue.
_TENANTS = 16

#: Calls between two looks at the statistics; the queue's length swings by as many.
_BLOCK = 200

#: Commands of one pipeline while the queue is filled.
_PIPELINE = 1000

_RESULT = PartResult(text="x", finish_reason="stop", blob_key="results/x", usage=Usage(output_tokens=1))


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, in microseconds per call, inside Valkey."""

    submit_us: float
    claim_us: float


class QueueBench:
    """One Valkey as the local stack runs it, and one queue in it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._numbers = count()
        self._spec = TaskSpec(
            kind="image",
            model=QUEUE,
            operation="ocr",
            prompt="Read all the text in the image.",
            inputs=(ObjectInput(bucket="ovis", key="inputs/tenant-0/task_0123456789abcdef0123456789abcdef/0"),),
        )
        self._submit = submissions.submit(self._submission())
        # A rewrite of the log forks the process, which would be measured with whatever runs then.
        client.config_set("auto-aof-rewrite-percentage", 0)

    def fill(self, waiting: int) -> None:
        """Submit until so many parts wait."""
        missing = waiting - int(self._client.hget(store.queue_stats_key(QUEUE), "waiting") or 0)
        run(self._client, submissions.submit(self._submission()))  # the script is known from here on
        for start in range(0, missing - 1, _PIPELINE):
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(min(_PIPELINE, missing - 1 - start)):
                pipeline.evalsha(self._submit.script.sha, 0, *self._submit_args())
            pipeline.execute()

    def measure(self, rounds: int, calls: int) -> Cost:
        """Submit and claim in turn, in blocks, so that the queue keeps its length."""
        costs = [self._round(calls) for _ in range(rounds)]
        return Cost(*(round(statistics.median(side), 1) for side in zip(*costs, strict=True)))

    def used_bytes(self) -> int:
        """Memory that Valkey uses for everything."""
        return int(self._client.info("memory")["used_memory"])

    def _round(self, calls: int) -> tuple[float, float]:
        """Microseconds per call of each kind: medians over the blocks, as other work on the machine disturbs some."""
        submits, claims = [], []
        for _ in range(calls // _BLOCK):
            submits.append(
                self._spent_us(lambda: self._client.evalsha(self._submit.script.sha, 0, *self._submit_args()))
            )
            held: list[Attempt] = []
            claims.append(self._spent_us(lambda held=held: held.append(self._take())))
            for attempt in held:
                run(self._client, store.finish(attempt, "succeeded", result=_RESULT))
        return statistics.median(submits) / _BLOCK, statistics.median(claims) / _BLOCK

    def _spent_us(self, call: object) -> float:
        """Microseconds that a block of calls took inside Valkey."""
        self._client.config_resetstat()
        for _ in range(_BLOCK):
            call()  # type: ignore[operator]
        stats = self._client.info("commandstats")["cmdstat_evalsha"]
        assert stats["calls"] == _BLOCK
        return float(stats["usec"])

    def _take(self) -> Attempt:
        attempt = run(self._client, store.claim(QUEUE, token=uuid4().hex, worker="bench"))
        assert attempt is not None
        return attempt

    def _submission(self) -> submissions.Submission:
        return submissions.Submission(
            task_id=new_task_id(),
            tenant="tenant-0",
            spec=self._spec,
            cost=896,
            weight=1.0,
            tenant_limit=10_000_000,
            queue_limit=10_000_000,
            size_bytes=20_000,
        )

    def _submit_args(self) -> Iterator[str]:
        _, _, *others = json.loads(str(self._submit.args[0]))
        yield dumps([new_task_id(), f"tenant-{next(self._numbers) % _TENANTS}", *others])


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and a line of JSON; exit code 1 where a figure is over its bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench queue", description=__doc__)
    parser.add_argument("--short", type=int, default=1_000, help="waiting parts of the short queue")
    parser.add_argument("--long", type=int, default=1_000_000, help="waiting parts of the long queue")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000, help="calls per round")
    args = parser.parse_args(argv)
    with LocalStack(StackConfig(parts=("valkey",))) as stack:
        client = connect(stack.redis_url)
        bench = QueueBench(client)
        bench.fill(args.short)
        short = bench.measure(args.rounds, args.calls)
        before_bytes, started = bench.used_bytes(), time.monotonic()
        bench.fill(args.long)
        filled_s = time.monotonic() - started
        bytes_per_task = (bench.used_bytes() - before_bytes) / (args.long - args.short)
        long = bench.measure(args.rounds, args.calls)
        client.close()
    return _report(short, long, bytes_per_task, (args.long - args.short) / filled_s)


def _report(short: Cost, long: Cost, bytes_per_task: float, fill_rate: float) -> int:
    ratios = {"submit": long.submit_us / short.submit_us, "claim": long.claim_us / short.claim_us}
    table = Table(title="Queue cost, microseconds per call inside Valkey")
    for column in ("call", "short queue", "long queue", "ratio (at most 1.5)"):
        table.add_column(column, justify="left" if column == "call" else "right")
    table.add_row("submit", str(short.submit_us), str(long.submit_us), f"{ratios['submit']:.2f}")
    table.add_row("claim", str(short.claim_us), str(long.claim_us), f"{ratios['claim']:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"{bytes_per_task:.0f} bytes per waiting task (at most 2000); filled with {fill_rate:.0f} tasks/s")
    figures = {
        "bytes_per_task": round(bytes_per_task),
        "submit_us_1k": short.submit_us,
        "submit_us_1m": long.submit_us,
        "claim_us_1k": short.claim_us,
        "claim_us_1m": long.claim_us,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if max(ratios.values()) <= 1.5 and bytes_per_task <= 2000 else 1


if __name__ == "__main__":
    sys.exit(main())
