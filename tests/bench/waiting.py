"""``python -m tests.bench waiting``: 10 000 long polls and 2 000 event streams on one gateway while 100 tasks end.

Prints the gateway's memory and the time from a task's commit to its callers' receipt. Each task that ends is polled and
followed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import redis
import uvloop

from contract import store
from contract.redis_io import connect, run
from contract.submissions import Submission, submit
from contract.task import PartResult, TaskSpec, Usage, new_task_id
from ovis_fleet.stack import LocalStack, StackConfig
from tests.bench.http_load import Connection, request_bytes

QUEUE = "ovis2-reader"

#: Seconds that every poll may wait; longer than the bench takes.
_WAIT_S = 300

#: Connections that are opened at once.
_OPENING = 200

_RESULT = PartResult(text="x", finish_reason="stop", blob_key="results/x", usage=Usage(output_tokens=1))


def submit_all(client: redis.Redis, count: int) -> list[str]:
    """Accept so many tasks as the gateway does, without its HTTP."""
    spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi")
    ids = [new_task_id() for _ in range(count)]
    commands = [submit(Submission(task_id, "default", spec, 1, 1.0, 10**9, 10**9)) for task_id in ids]
    run(client, commands[0])
    pipeline = client.pipeline(transaction=False)
    for command in commands[1:]:
        pipeline.evalsha(command.script.sha, 0, *map(str, command.args))
    pipeline.execute()
    return ids


async def _poll(url: str, key: str, task_id: str, gate: asyncio.Semaphore, opened: asyncio.Event) -> tuple[str, float]:
    """Wait for a task; when the answer came."""
    async with gate:
        connection = await Connection.open(url)
        opened.set()
    asked = request_bytes("GET", f"/v1/tasks/{task_id}?wait={_WAIT_S}", Authorization=f"Bearer {key}")
    status, body = await connection.ask(asked)
    received = time.perf_counter()
    connection.close()
    assert status == 200, body
    assert json.loads(body)["status"] == "succeeded"
    return task_id, received


async def _follow(url: str, key: str, task_id: str, gate: asyncio.Semaphore, opened: asyncio.Event) -> float:
    """Follow a task's events to its success; when they said so."""
    async with gate:
        connection = await Connection.open(url)
        asked = request_bytes("GET", f"/v1/tasks/{task_id}/events", Authorization=f"Bearer {key}")
        assert await connection.follow(asked) == 200
        opened.set()
    await connection.read_until(b'"succeeded"')
    received = time.perf_counter()
    connection.close()
    return received


@dataclass(frozen=True)
class Waiting:
    """What came of it.

    Attributes:
        polled_ms: From commit to the long poll's answer, of the tasks that ended; sorted.
        streamed_ms: From commit to the event; sorted.
        rss_mib: The gateway's memory while all others still wait.
    """

    polled_ms: list[float]
    streamed_ms: list[float]
    rss_mib: float


async def measure(stack: LocalStack, client: redis.Redis, polls: int, streams: int, ends: int) -> Waiting:
    """Open the polls and streams, end some of the tasks, time the answers."""
    url, key = stack.url, stack.api_key
    ids = await asyncio.to_thread(submit_all, client, polls)
    read_before = _num_reads(client)
    gate = asyncio.Semaphore(_OPENING)
    opened = [asyncio.Event() for _ in ids]
    waiting = [
        asyncio.create_task(_poll(url, key, task_id, gate, event)) for task_id, event in zip(ids, opened, strict=True)
    ]
    await asyncio.gather(*(event.wait() for event in opened))
    while await asyncio.to_thread(_num_reads, client) < read_before + polls * 2:  # each read its task twice
        await asyncio.sleep(0.2)
    followed = [asyncio.Event() for _ in range(streams)]
    following = [
        asyncio.create_task(_follow(url, key, task_id, gate, event))
        for task_id, event in zip(ids, followed, strict=False)
    ]
    await asyncio.gather(*(event.wait() for event in followed))
    committed: dict[str, float] = {}
    for _ in range(ends):
        attempt = await asyncio.to_thread(run, client, store.claim(QUEUE, token=uuid4().hex, worker="bench"))
        assert attempt is not None
        committed[attempt.task_id] = time.perf_counter()
        await asyncio.to_thread(run, client, store.finish(attempt, "succeeded", result=_RESULT))
    polls_of, streams_of = dict(zip(ids, waiting, strict=True)), dict(zip(ids, following, strict=False))
    polled = [1000 * ((await polls_of[task_id])[1] - at) for task_id, at in committed.items()]
    streamed = [1000 * (await streams_of[task_id] - at) for task_id, at in committed.items() if task_id in streams_of]
    rss_mib = memory_mib(stack.parts["gateway"].pid or 0)
    everybody = [*waiting, *following]
    broken = [task for task in everybody if task.done() and task.exception()]
    for task in everybody:
        task.cancel()
    await asyncio.gather(*everybody, return_exceptions=True)
    assert not broken, f"{len(broken)} polls or streams broke off"
    return Waiting(sorted(polled), sorted(streamed), rss_mib)


def _num_reads(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))


def memory_mib(pid: int) -> float:
    """Resident memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def main(argv: Sequence[str] | None = None) -> int:
    """Print two lines and a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench waiting", description=__doc__)
    parser.add_argument("--polls", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=2_000, help="at most as many as polls, at least as many as ends")
    parser.add_argument("--ends", type=int, default=100)
    args = parser.parse_args(argv)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    env = {"OVIS_MAX_WAIT_S": str(_WAIT_S)}
    with LocalStack(StackConfig(parts=("valkey", "s3", "gateway"), extra_env=env)) as stack:
        pid = stack.parts["gateway"].pid or 0
        before = memory_mib(pid)
        client = connect(stack.redis_url)
        found = uvloop.run(measure(stack, client, args.polls, args.streams, args.ends))
        client.close()
    held = f"{args.polls} long polls and {args.streams} event streams"
    print(f"{held}: the gateway went from {before:.0f} to {found.rss_mib:.0f} MiB; no error")
    for name, took in (("long polls", found.polled_ms), ("event streams", found.streamed_ms)):
        print(f"commit to receipt, {name}: p50 {_quantile(took, 0.5):.1f} ms, p99 {_quantile(took, 0.99):.1f} ms")
    figures = {
        "polls": args.polls,
        "streams": args.streams,
        "rss_mib": round(found.rss_mib),
        "p99_ms": round(_quantile(sorted([*found.polled_ms, *found.streamed_ms]), 0.99), 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _quantile(took_ms: Sequence[float], share: float) -> float:
    return took_ms[int(share * (len(took_ms) - 1))] if took_ms else 0.0


if __name__ == "__main__":
    sys.exit(main())
