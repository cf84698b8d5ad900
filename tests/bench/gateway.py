"""``python -m tests.bench gateway``: submissions per second beside Celery's ``send_task`` and an empty endpoint.

A text task of 1 kB, 32 connections. Whoever serves has one core to itself; the client and Valkey share the other. The
three take turns, and medians over the rounds count. Then Valkey is stopped under load, and ``/livez`` must answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import redis
import uvloop
from rich.console import Console
from rich.table import Table

from contract.redis_io import connect
from ovis_fleet.stack import LocalStack, StackConfig
from tests.api_gateway.conftest import free_port
from tests.bench.http_load import Connection, Load, press, request_bytes

_ROOT = Path(__file__).parent.parent.parent

KEY = "sk-bench-0123456789"

#: Requests at once.
CONNECTIONS = 32

#: Seconds of requests before each measurement, and for which Valkey stands still.
_WARM_UP_S, _STALL_S = 1.0, 3.0

#: A task whose JSON has 1 kB.
BODY = {"kind": "text", "model": "ovis2-reader", "prompt": "Say hello. " * 85, "metadata": {"order": "42"}}

_NO_LIMIT = 1_000_000_000

#: Modules that serve each of the contestants.
CONTESTANTS: Mapping[str, tuple[str, ...]] = {
    "ours": ("api_gateway",),
    "ours, rate limited": ("api_gateway",),
    "send_task": ("tests.bench.gateway_apps", "send_task"),
    "empty": ("tests.bench.gateway_apps", "empty"),
}


def write_tenants(path: Path, requests_per_s: int | None) -> Path:
    """A tenants file with one tenant that nothing else holds back."""
    key = {"id": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    tenant = {"id": "bench", "keys": [key], "max_waiting_parts": _NO_LIMIT, "max_unended_tasks": _NO_LIMIT}
    path.write_text(json.dumps({"tenants": [{**tenant, "requests_per_s": requests_per_s}]}))
    return path


@contextmanager
def serving(name: str, stack: LocalStack, folder: Path, port: int, core: int) -> Iterator[str]:
    """A contestant on its core, until the block ends; gives its address."""
    limit = 100_000 if name == "ours, rate limited" else None
    env = {
        **os.environ,
        **stack.env,
        "OVIS_TENANTS_FILE": str(write_tenants(folder / f"tenants-{port}.json", limit)),
        "OVIS_QUEUE_MAX_WAITING_PARTS": str(_NO_LIMIT),
    }
    argv = [sys.executable, "-m", *CONTESTANTS[name], "--port", str(port)]
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, cwd=_ROOT, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process)
        pin(process.pid, {core})
        yield url
    finally:
        process.terminate()
        process.wait(30)


def pin(pid: int, cores: set[int]) -> None:
    """Keep every thread of a process on these cores."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, cores)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/livez", timeout=1)
        except httpx.TransportError:
            assert process.poll() is None, "the contestant ended"
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the contestant doesn't answer")


def measure(url: str, client: redis.Redis, seconds: float) -> Load:
    """One round."""
    client.flushall()
    request = request_bytes("POST", "/v1/tasks", BODY, Authorization=f"Bearer {KEY}")
    uvloop.run(press(url, request, connections=CONNECTIONS, seconds=_WARM_UP_S))
    load = uvloop.run(press(url, request, connections=CONNECTIONS, seconds=seconds))
    assert set(load.statuses) == {202}, load.statuses
    return load


async def _livez_ms(url: str, seconds: float) -> float:
    """The longest that ``/livez`` took, asked every 10 ms."""
    connection = await Connection.open(url)
    request = request_bytes("GET", "/livez")
    worst, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        status, _ = await connection.ask(request)
        assert status == 200
        worst = max(worst, time.perf_counter() - before)
        await asyncio.sleep(0.01)
    connection.close()
    return 1000 * worst


def measure_stall(url: str, valkey: int) -> float:
    """The longest ``/livez`` while Valkey stands still and submissions wait for it, in milliseconds."""
    request = request_bytes("POST", "/v1/tasks", BODY, Authorization=f"Bearer {KEY}")

    async def both() -> float:
        await press(url, request, connections=CONNECTIONS, seconds=_WARM_UP_S)
        os.kill(valkey, signal.SIGSTOP)
        try:
            pressing = asyncio.create_task(press(url, request, connections=CONNECTIONS, seconds=_STALL_S))
            worst = await _livez_ms(url, _STALL_S)
        finally:
            os.kill(valkey, signal.SIGCONT)
        await pressing
        return worst

    return uvloop.run(both())


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table and a line of JSON; exit code 1 where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round")
    args = parser.parse_args(argv)
    first, *others = sorted(os.sched_getaffinity(0))
    rest = set(others) or {first}
    rounds: dict[str, list[Load]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory(prefix="gw") as name, LocalStack(StackConfig(parts=("valkey", "s3"))) as stack:
        folder, client = Path(name), connect(stack.redis_url)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            pin(process.pid, rest)
        for number in range(args.rounds):
            for contestant in CONTESTANTS:
                with serving(contestant, stack, folder, free_port(), first) as url:
                    rounds[contestant].append(measure(url, client, args.seconds))
                    if contestant == "ours" and number == args.rounds - 1:
                        livez_ms = measure_stall(url, stack.parts["valkey"].pid or 0)
        client.close()
    return _report(rounds, livez_ms)


def _report(rounds: Mapping[str, Sequence[Load]], livez_ms: float) -> int:
    table = Table(title=f"POST /v1/tasks, 1 kB of text, {CONNECTIONS} connections, one core")
    for column in ("", "a second", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    rate: dict[str, float] = {}
    p99: dict[str, float] = {}
    for name, loads in rounds.items():
        rate[name] = statistics.median(load.per_s for load in loads)
        p99[name] = statistics.median(load.quantile_ms(0.99) for load in loads)
        p50 = statistics.median(load.quantile_ms(0.5) for load in loads)
        table.add_row(name, f"{rate[name]:.0f}", f"{p50:.1f}", f"{p99[name]:.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"with Valkey stopped, /livez took at most {livez_ms:.1f} ms (at most 50)")
    figures = {
        "over_send_task": round(rate["ours"] / rate["send_task"], 2),
        "over_empty": round(rate["ours"] / rate["empty"], 2),
        "p99_ms": round(p99["ours"], 1),
        "per_s": round(rate["ours"]),
        "livez_stalled_ms": round(livez_ms, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    good = figures["over_send_task"] >= 3 and figures["over_empty"] >= 0.5 and livez_ms <= 50
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
