"""The attempts that a worker holds, against a real Valkey."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from contract import store
from contract.redis_io import run
from contract.task import Attempt
from tests.workers.conftest import QUEUE, SubmitTask
from workers.leases import Lease, LeaseKeeper, StopReason


@pytest.fixture
def keeper(client: redis.Redis) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(client, QUEUE, "w1", slots=4)
    keeper.start()
    yield keeper
    keeper.close()
    assert client.zcard("ovis:q:ovis2-reader:workers") == 0


def claim(client: redis.Redis) -> Attempt:
    attempt = run(client, store.claim(QUEUE, token="token-1", worker="w1"))
    assert attempt is not None
    return attempt


def stopped(lease: Lease, timeout_s: float = 20) -> StopReason | None:
    event = threading.Event()
    lease.when_stopped(event.set)
    event.wait(timeout_s)
    return lease.stop_reason


def test_a_worker_is_on_the_list_with_its_slots(client: redis.Redis, keeper: LeaseKeeper) -> None:
    assert client.hget(store.queue_stats_key(QUEUE), "slots") == "4"


def test_a_held_lease_is_renewed(client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask) -> None:
    submit_task()
    attempt = claim(client)
    client.zadd("ovis:leases", {"token-1": 1})
    with keeper.hold(attempt):
        for _ in range(100):
            if (client.zscore("ovis:leases", "token-1") or 0) > 1:
                break
            threading.Event().wait(0.1)
        assert (client.zscore("ovis:leases", "token-1") or 0) > 1


def test_a_cancel_stops_the_lease(client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask) -> None:
    task_id = submit_task()
    with keeper.hold(claim(client)) as lease:
        run(client, store.cancel(task_id, "acme"))
        assert stopped(lease) is StopReason.CANCELED


def test_a_lease_that_another_took_over_is_lost(
    client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask
) -> None:
    submit_task()
    with keeper.hold(claim(client)) as lease:
        run(client, store.release("token-1", "taken away", counts=True))
        assert stopped(lease) is StopReason.LOST


def test_renewals_go_on_after_every_connection_was_cut(
    client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask
) -> None:
    task_id = submit_task()
    with keeper.hold(claim(client)) as lease:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
        run(client, store.cancel(task_id, "acme"))
        assert stopped(lease) is StopReason.CANCELED


def test_the_first_reason_to_stop_stands(client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask) -> None:
    submit_task()
    with keeper.hold(claim(client)) as lease:
        keeper.stop_all(StopReason.DRAINED)
        lease.stop(StopReason.CANCELED)
        calls: list[int] = []
        lease.when_stopped(lambda: calls.append(1))
        assert (lease.stop_reason, calls) == (StopReason.DRAINED, [1])


def test_an_attempt_that_is_held_after_the_drain_is_stopped_too(
    client: redis.Redis, keeper: LeaseKeeper, submit_task: SubmitTask
) -> None:
    submit_task()
    attempt = claim(client)
    keeper.stop_all(StopReason.DRAINED)
    with keeper.hold(attempt) as lease:
        assert lease.stop_reason is StopReason.DRAINED
