"""What becomes of a failure inside Redis: one that passes is repeated, a fault of our own script is told."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from structlog.testing import capture_logs

from contract import store, submissions
from contract.errors import InternalError, StoreFull, StoreUnavailable
from contract.redis_io import connect, connect_async, run, run_async
from contract.scripting import Command, Script
from contract.task import TaskSpec, new_task_id
from ovis_fleet.stack import LocalStack

Runner = Callable[[str, Command[object]], object]


def run_here(url: str, command: Command[object]) -> object:
    client = connect(url)
    try:
        return run(client, command)
    finally:
        client.close()


def run_there(url: str, command: Command[object]) -> object:
    async def whole() -> object:
        client = connect_async(url)
        try:
            return await run_async(client, command)
        finally:
            await client.aclose()

    return asyncio.run(whole())


either = pytest.mark.parametrize("runner", [run_here, run_there], ids=["sync", "async"])

CLAIM: Command[object] = store.claim("ovis2-reader", token="t", worker="w")

_SPEC = TaskSpec(kind="text", model="ovis2-reader", operation="ask", prompt="hi")
SUBMIT: Command[object] = submissions.submit(submissions.Submission(new_task_id(), "acme", _SPEC, 1, 1.0, 100, 100))


def script(source: str) -> Command[object]:
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Command(Script("trial", source, digest), (), lambda reply: reply)


@either
@pytest.mark.parametrize(
    "source",
    ["return nothing()", "return redis.call('HGET', 'text', 'f')", "return redis.call('NOSUCH')", "return ("],
    ids=["bug", "wrong type", "no such command", "no Lua"],
)
def test_a_fault_of_a_script_is_ours_and_the_log_names_it(
    client: redis.Redis, servers: LocalStack, runner: Runner, source: str
) -> None:
    client.set("text", "x")
    with capture_logs() as logs, pytest.raises(InternalError):
        runner(servers.redis_url, script(source))
    assert [(line["event"], line["script"]) for line in logs] == [("script_failed", "trial")]


@contextmanager
def replica(client: redis.Redis, port: int, *, stale: str) -> Iterator[None]:
    """A server that has become a replica of one that isn't there."""
    client.config_set("replica-serve-stale-data", stale)
    client.replicaof("127.0.0.1", port)
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")
        client.config_set("replica-serve-stale-data", "yes")


@either
@pytest.mark.parametrize("command", [CLAIM, SUBMIT], ids=["claim", "submit"])
@pytest.mark.parametrize("stale", ["yes", "no"], ids=["READONLY", "MASTERDOWN"])
def test_a_server_that_fails_over_is_away(
    client: redis.Redis,
    servers: LocalStack,
    unused_port: int,
    runner: Runner,
    stale: str,
    command: Command[object],
) -> None:
    with replica(client, unused_port, stale=stale), capture_logs() as logs, pytest.raises(StoreUnavailable):
        runner(servers.redis_url, command)
    assert logs == []


@either
def test_a_server_that_runs_a_slow_script_is_away(client: redis.Redis, servers: LocalStack, runner: Runner) -> None:
    client.config_set("busy-reply-threshold", 1)
    slow = connect(servers.redis_url)
    killed: list[redis.ResponseError] = []

    def spin() -> None:
        try:
            slow.eval("while true do end", 0)
        except redis.ResponseError as exc:
            killed.append(exc)

    spinning = threading.Thread(target=spin)
    spinning.start()
    try:
        while True:  # until the server says that it is busy
            try:
                client.ping()
            except redis.ResponseError:
                break
        with pytest.raises(StoreUnavailable):
            runner(servers.redis_url, CLAIM)
    finally:
        client.script_kill()
        spinning.join()
        slow.close()
        client.config_set("busy-reply-threshold", 5000)
    assert killed


@either
def test_a_full_server_is_full(client: redis.Redis, servers: LocalStack, runner: Runner) -> None:
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull):
            runner(servers.redis_url, script("return redis.call('SET', 'a', 'b')"))
    finally:
        client.config_set("maxmemory", 0)
