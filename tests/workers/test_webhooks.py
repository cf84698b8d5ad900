"""Webhooks from the ending script to a real receiver; time passes by rewriting due times, nothing sleeps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from standardwebhooks.webhooks import WebhookVerificationError

from contract import deliveries, store, submissions
from contract.blobs import BlobStore
from contract.deliveries import EndpointChange
from contract.egress import EgressPolicy
from contract.errors import InputUnavailable
from contract.metrics import QueueMetrics, WebhookMetrics
from contract.redis_io import run
from contract.settings import FleetSettings
from contract.task import PartResult, TaskSpec, Usage, new_task_id
from contract.webhook_secrets import SecretBox, new_secret
from contract.webhooks import Delivery, Endpoint, TaskWebhook, delivery_key, endpoint_key, new_endpoint_id
from ovis_fleet.stack import LocalStack
from tests.workers.receiver import Receiver
from workers.cleaning import Cleaner
from workers.webhooks.deliverer import Deliverer
from workers.webhooks.schedule import DELAYS_S, MAX_TRIES, delay_s
from workers.webhooks.sender import Sender

QUEUE = "ovis2-reader"
OPEN = EgressPolicy(allow_http=True, allow_networks=(ip_network("127.0.0.0/8"),))
SHUT = EgressPolicy(allow_http=True)
RESULT = PartResult(text="hello", finish_reason="stop", blob_key="results/x", usage=Usage(output_tokens=1))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def box(fleet_settings: FleetSettings) -> SecretBox:
    return SecretBox(fleet_settings.webhook_keys)


class Hooks:
    """What a test does to a tenant's webhooks, and the deliverer it drives try by try."""

    def __init__(self, client: redis.Redis, box: SecretBox, policy: EgressPolicy = OPEN, try_s: float = 5) -> None:
        self.client, self.box = client, box
        self.secrets: dict[str, str] = {}
        self.deliverer = Deliverer(
            client, Sender(policy, try_s), box, WebhookMetrics(CollectorRegistry()), public_url="https://ovis.example"
        )

    def endpoint(self, url: str, *events: str, tenant: str = "acme") -> str:
        endpoint_id, secret = new_endpoint_id(), new_secret()
        wanted = json.dumps(events or ["task.succeeded", "task.failed"])
        change = EndpointChange(url=url, events_json=wanted, sealed_secret=self.box.seal(secret))
        assert run(self.client, deliveries.save_endpoint(endpoint_id, tenant, change)) == "saved"
        self.secrets[endpoint_id] = secret
        return endpoint_id

    def submit(self, url: str | None = None, *, tenant: str = "acme", retention_s: int = 86400, **spec: Any) -> str:
        task_id = new_task_id()
        webhook = TaskWebhook(url=url).model_dump_json() if url else ""
        task = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi", retention_s=retention_s, **spec)
        submission = submissions.Submission(task_id, tenant, task, 1, 1.0, 1000, 1000, webhook=webhook)
        run(self.client, submissions.submit(submission))
        return task_id

    def end(self, outcome: str = "succeeded") -> None:
        attempt = run(self.client, store.claim(QUEUE, token=uuid4().hex, worker="w1"))
        assert attempt is not None
        if outcome == "succeeded":
            run(self.client, store.finish(attempt, "succeeded", result=RESULT))
        else:
            error = InputUnavailable("the input's server answered 404").info().model_dump_json()
            run(self.client, store.finish(attempt, "failed", error_json=error))

    def step(self) -> list[str]:
        """Send whatever is due, one by one."""
        self.deliverer.expand()
        stood = []
        while (held := run(self.client, deliveries.claim_delivery(uuid4().hex))) is not None:
            stood.append(self.deliverer.send(held))
        return stood

    def pass_time(self) -> None:
        """All that waits is due now; receivers have rested."""
        for key in self.client.scan_iter("ovis:hooks:health:*"):
            self.client.hdel(key, "open_until_ms")
        for key in self.client.scan_iter("ovis:hooks:due:*"):
            for member in self.client.zrange(key, 0, -1):
                self.client.zadd(key, {member: 1})
            self.client.zadd("ovis:hooks:receivers", {key.removeprefix("ovis:hooks:due:"): 1})

    def log(self) -> list[Delivery]:
        keys = sorted(self.client.scan_iter("ovis:delivery:*"))
        return [Delivery.from_hash(key.removeprefix("ovis:delivery:"), self.client.hgetall(key)) for key in keys]

    def own_secret(self, tenant: str = "acme") -> str:
        return self.box.open(self.client.hget(f"ovis:hooks:secret:{tenant}", "secret"))


@pytest.fixture
def hooks(client: redis.Redis, box: SecretBox) -> Hooks:
    return Hooks(client, box)


def test_a_task_and_an_endpoint_each_get_one_signed_delivery(hooks: Hooks, receiver: Receiver) -> None:
    endpoint = hooks.endpoint(receiver.url + "/all")
    task_id = hooks.submit(receiver.url + "/own", metadata={"order": "42"})
    hooks.end()
    assert hooks.step() == ["succeeded", "succeeded"]
    assert hooks.step() == []
    own, all_ = sorted(receiver.received, key=lambda request: request.path, reverse=True)
    event = own.verified(hooks.own_secret())
    assert event == all_.verified(hooks.secrets[endpoint])
    assert event["type"] == "task.succeeded"
    data = event["data"]
    assert (data["id"], data["status"], data["run"], data["metadata"]) == (task_id, "succeeded", 1, {"order": "42"})
    assert data["result_url"] == f"https://ovis.example/v1/tasks/{task_id}/result"
    with pytest.raises(WebhookVerificationError):
        own.verified(hooks.secrets[endpoint])
    assert own.id != all_.id


def test_a_delivery_goes_on_with_its_tasks_trace(hooks: Hooks, receiver: Receiver) -> None:
    trace_id, span_id = "a" * 32, "b" * 16
    hooks.submit(receiver.url, traceparent=f"00-{trace_id}-{span_id}-01", tracestate="vendor=1")
    hooks.submit(receiver.url)
    hooks.end()
    hooks.end()
    assert hooks.step() == ["succeeded", "succeeded"]
    (traced,) = [request.headers for request in receiver.received if "traceparent" in request.headers]
    assert re.fullmatch(rf"00-{trace_id}-[0-9a-f]{{16}}-01", traced["traceparent"])
    assert span_id not in traced["traceparent"], "the try is a step of its own"
    assert traced["tracestate"] == "vendor=1"


@pytest.mark.parametrize("event", ["task.failed", "task.canceled", "task.expired"])
def test_every_end_has_its_event(hooks: Hooks, receiver: Receiver, client: redis.Redis, event: str) -> None:
    task_id = hooks.submit(receiver.url, deadline_s=60)
    if event == "task.failed":
        hooks.end("failed")
    elif event == "task.canceled":
        run(client, store.cancel(task_id, "acme"))
    else:
        client.zadd("ovis:deadlines", {task_id: 1})
        run(client, store.expire_deadlines())
    hooks.step()
    told = receiver.received[0].verified(hooks.own_secret())
    assert (told["type"], told["data"]["status"]) == (event, event.removeprefix("task."))
    assert (told["data"]["error"] is None) == (event == "task.canceled")
    assert told["data"]["result_url"] is None


def test_parts_are_told_only_to_who_asks(hooks: Hooks, receiver: Receiver) -> None:
    hooks.endpoint(receiver.url + "/parts", "task.part.succeeded")
    hooks.submit(receiver.url + "/own")
    hooks.end()
    hooks.step()
    told = {request.path: request.event for request in receiver.received}
    assert {path: event["type"] for path, event in told.items()} == {
        "/hook/parts": "task.part.succeeded",
        "/hook/own": "task.succeeded",
    }
    assert told["/hook/parts"]["data"]["part"] == 0


def test_each_run_of_a_task_is_told_once(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    task_id = hooks.submit(receiver.url)
    hooks.end("failed")
    assert run(client, store.retry(task_id, "acme")) == "queued"  # before the first run's event has gone out
    hooks.end()
    hooks.step()
    hooks.pass_time()
    assert hooks.step() == []
    told = [(request.event["type"], request.event["data"]["run"]) for request in receiver.received]
    assert sorted(told) == [("task.failed", 1), ("task.succeeded", 2)]
    assert len({request.id for request in receiver.received}) == 2


def test_a_receiver_that_comes_back_gets_the_same_message(hooks: Hooks, receiver: Receiver) -> None:
    def faults(number: int) -> tuple[int, dict[str, str]] | None:
        answers = [None, (500, {}), (302, {"Location": receiver.url + "/elsewhere"}), (404, {})]
        return answers[number - 1] if number <= len(answers) else (200, {})

    hooks.deliverer.sender = Sender(OPEN, try_s=0.3)
    receiver.answer = faults
    hooks.submit(receiver.url)
    hooks.end()
    for expected in ("pending", "pending", "pending", "pending", "succeeded"):
        assert hooks.step() == [expected]
        hooks.pass_time()
    assert hooks.step() == []
    assert {request.id for request in receiver.received} == {hooks.log()[0].id}
    assert {request.path for request in receiver.received} == {"/hook"}
    assert len({request.body for request in receiver.received}) == 1
    for request in receiver.received:
        request.verified(hooks.own_secret())
    tried = [(line.status_code, line.error) for line in hooks.log()[0].attempts]
    assert tried == [(None, "timeout"), (500, "refused"), (302, "redirect"), (404, "refused"), (200, None)]


def test_the_schedule_ends_after_ten_tries(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    receiver.answer = lambda _number: (503, {})
    hooks.submit(receiver.url)
    hooks.end()
    waits = []
    for _ in range(MAX_TRIES):
        hooks.step()
        delivery = hooks.log()[0]
        if delivery.due_ms:
            waits.append((delivery.due_ms - delivery.attempts[-1].at_ms) / 1000)
        hooks.pass_time()
    assert hooks.step() == []
    assert (delivery.status, delivery.tries, len(receiver.received)) == ("failed", MAX_TRIES, MAX_TRIES)
    assert all(0.85 * plan < wait < 1.15 * plan for plan, wait in zip(DELAYS_S, waits, strict=True))


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("120", 120), ("Fri, 01 Jan 2100 00:00:00 GMT", 86400), ("999999999", 86400), ("soon", 5), ("-5", 5), ("", 5)],
)
def test_retry_after_is_honoured_within_a_day(retry_after: str, seconds: float) -> None:
    assert delay_s(1, 0.5, retry_after) == pytest.approx(seconds)


def test_410_disables_the_endpoint_and_ends_what_waits_for_it(
    hooks: Hooks, receiver: Receiver, client: redis.Redis
) -> None:
    receiver.answer = lambda _number: (410, {})
    endpoint = hooks.endpoint(receiver.url)
    for _ in range(3):
        hooks.submit()
        hooks.end()
    assert hooks.step() == ["failed"]
    read = Endpoint.from_hash(endpoint, client.hgetall(endpoint_key(endpoint)))
    assert (read.enabled, read.disabled_why) == (False, "the receiver answered 410")
    assert sorted(delivery.status for delivery in hooks.log()) == ["canceled", "canceled", "failed"]
    hooks.submit()
    hooks.end()
    assert hooks.step() == []
    assert len(receiver.received) == 1


def test_nothing_is_delivered_inside(hooks: Hooks, receiver: Receiver) -> None:
    hooks.deliverer.sender = Sender(SHUT)
    port = receiver.server_address[1]
    for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "127.0.0.1.", "0.0.0.0"):
        hooks.submit(f"http://{host}:{port}/hook")
        hooks.end()
    assert hooks.step() == ["pending"] * 6
    inside = EgressPolicy(allow_http=True, lookup=lambda *_args, **_kind: [(2, 1, 6, "", ("127.0.0.1", port))])
    hooks.deliverer.sender = Sender(inside)
    hooks.submit(f"http://rebound.example:{port}/hook")
    hooks.end()
    assert hooks.step() == ["pending"]
    assert receiver.received == []
    assert {line.error for delivery in hooks.log() for line in delivery.attempts} == {"url_not_allowed"}


def test_a_redirect_inside_is_not_followed(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = lambda _number: (307, {"Location": receiver.url + "/inside"})
    hooks.submit(receiver.url)
    hooks.end()
    assert hooks.step() == ["pending"]
    assert [request.path for request in receiver.received] == ["/hook"]


def test_a_dead_receiver_rests_and_slows_nobody(
    hooks: Hooks, receiver: Receiver, client: redis.Redis, unused_port: int
) -> None:
    """Given many deliveries for a dead receiver, then a live one's are all sent, and the dead one is left alone."""
    dead = hooks.endpoint(f"http://127.0.0.1:{unused_port}/hook", tenant="dead")
    for _ in range(20):
        hooks.submit(tenant="dead")
        hooks.end()
    hooks.submit(receiver.url, tenant="acme")
    hooks.end()
    stood = hooks.step()
    assert stood.count("succeeded") == 1
    assert stood.count("pending") == 5  # then it rests
    assert float(client.hget(f"ovis:hooks:health:{dead}", "open_until_ms")) > time.time() * 1000 + 20_000
    hooks.submit(receiver.url, tenant="acme")
    hooks.end()
    assert hooks.step() == ["succeeded"]


def test_a_receiver_gets_at_most_four_at_once_and_a_failing_one_only_one(
    hooks: Hooks, receiver: Receiver, client: redis.Redis
) -> None:
    for _ in range(9):
        hooks.submit(receiver.url)
        hooks.end()
    hooks.deliverer.expand()

    def take() -> list[deliveries.HeldDelivery]:
        taken = []
        while (held := run(client, deliveries.claim_delivery(uuid4().hex))) is not None:
            taken.append(held)
        return taken

    receiver.answer = lambda _number: (500, {})
    first = take()
    assert len(first) == 4
    for held in first:
        hooks.deliverer.send(held)
    assert len(take()) == 1


def test_rotation_signs_with_both_secrets_for_a_while(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    endpoint = hooks.endpoint(receiver.url)
    new = new_secret()
    run(client, deliveries.rotate_secret(endpoint, "acme", hooks.box.seal(new), 60))
    for until_ms in (None, 1):
        if until_ms:
            client.hset(endpoint_key(endpoint), "old_until_ms", until_ms)
        hooks.submit()
        hooks.end()
        hooks.step()
    both, new_only = receiver.received
    both.verified(hooks.secrets[endpoint])
    both.verified(new)
    new_only.verified(new)
    with pytest.raises(WebhookVerificationError):
        new_only.verified(hooks.secrets[endpoint])


def test_secrets_lie_encrypted_in_the_store(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    endpoint = hooks.endpoint(receiver.url)
    hooks.submit(receiver.url)
    hooks.end()
    hooks.step()
    everything = json.dumps([client.hgetall(key) for key in client.scan_iter("*", _type="hash")])
    for secret in (hooks.secrets[endpoint], hooks.own_secret()):
        assert secret not in everything
        assert secret.removeprefix("whsec_") not in everything
    other = SecretBox((SecretStr("A" * 43 + "="),))
    with pytest.raises(Exception, match="no longer holds"):
        other.open(client.hget(endpoint_key(endpoint), "secret"))


def test_a_replay_keeps_id_and_body_even_after_the_purge(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    task_id = hooks.submit(receiver.url)
    hooks.end()
    hooks.step()
    assert run(client, store.purge(task_id))
    delivery_id = hooks.log()[0].id
    assert run(client, deliveries.replay(delivery_id, "other")) == "missing"
    assert run(client, deliveries.replay(delivery_id, "acme")) == "pending"
    assert hooks.step() == ["succeeded"]
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)


def test_a_record_lives_until_its_deliveries_have_ended(
    hooks: Hooks, receiver: Receiver, client: redis.Redis, fleet_settings: FleetSettings
) -> None:
    receiver.answer = lambda number: (500 if number == 1 else 200, {})
    cleaner = Cleaner(client, BlobStore(fleet_settings), QueueMetrics(CollectorRegistry()))
    task_id = hooks.submit(receiver.url, retention_s=1)
    hooks.end()

    def retention_passes() -> None:
        client.hset(store.task_key(task_id), "expires_ms", 1)
        client.zadd(store.RETENTION_KEY, {task_id: 1})
        cleaner.one_pass()

    retention_passes()
    assert client.exists(store.task_key(task_id))
    assert hooks.step() == ["pending"]
    retention_passes()
    assert client.exists(store.task_key(task_id))
    hooks.pass_time()
    assert hooks.step() == ["succeeded"]
    cleaner.one_pass()
    assert not client.exists(store.task_key(task_id))


def test_a_deleted_task_tells_nobody_any_more(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    receiver.answer = lambda _number: (500, {})
    task_id = hooks.submit(receiver.url)
    hooks.end()
    hooks.step()
    run(client, store.purge(task_id))
    hooks.pass_time()
    assert hooks.step() == []
    assert (hooks.log()[0].status, hooks.log()[0].why) == ("canceled", "the task was deleted")


def test_a_body_stays_under_its_limit_whatever_the_metadata(hooks: Hooks, receiver: Receiver) -> None:
    hooks.submit(receiver.url, metadata={f"{n:02}" * 16: "\U0001f600" * 512 for n in range(32)})
    hooks.end()
    hooks.step()
    assert len(receiver.received[0].body) <= 20_000
    assert receiver.received[0].event["data"]["metadata"] is None


def test_a_late_record_changes_nothing(hooks: Hooks, receiver: Receiver, client: redis.Redis) -> None:
    """Given a sender that was given up, when both have sent, then one id has two requests and one record."""
    hooks.submit(receiver.url)
    hooks.end()
    hooks.deliverer.expand()
    slow = run(client, deliveries.claim_delivery("slow"))
    assert slow is not None
    client.zadd("ovis:hooks:sending", {slow.delivery.id: 1})
    assert hooks.step() == ["succeeded"]
    assert hooks.deliverer.send(slow) == "stale"
    assert [request.id for request in receiver.received] == [slow.delivery.id] * 2
    lines = hooks.log()[0].attempts
    assert [line.error for line in lines] == ["sender_lost", None]
    assert client.hgetall(f"ovis:hooks:health:{hooks.client.hget(delivery_key(slow.delivery.id), 'receiver')}") == {
        "sending": "0"
    }


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def test_a_killed_io_worker_costs_no_delivery(
    hooks: Hooks, receiver: Receiver, client: redis.Redis, servers: LocalStack, tmp_path: Path
) -> None:
    """At least once, under one id: the worker dies between sending and recording, the next one sends again."""
    env = {**os.environ, **servers.env, "OVIS_EGRESS_ALLOW_HTTP": "true", "OVIS_EGRESS_ALLOW_CIDRS": "127.0.0.0/8"}
    log = (tmp_path / "io.log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "workers", "io", "--metrics-port", "0"], env=env, stderr=log, cwd=tmp_path
        )

    process = start()
    killed = threading.Event()

    def kill_first(number: int) -> tuple[int, dict[str, str]]:
        if number == 1:
            os.kill(process.pid, signal.SIGKILL)
            killed.set()
        return 200, {}

    receiver.answer = kill_first
    try:
        task_id = hooks.submit(receiver.url)
        hooks.end()
        assert killed.wait(30)
        process.wait()
        delivery_id = hooks.log()[0].id
        assert hooks.log()[0].status == "pending"
        client.zadd("ovis:hooks:sending", {delivery_id: 1})
        process = start()
        until(lambda: hooks.log()[0].status == "succeeded")
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    assert len(hooks.log()) == 1
    assert [request.id for request in receiver.received] == [delivery_id] * 2
    for request in receiver.received:
        assert request.verified(hooks.own_secret())["data"]["id"] == task_id
    written = (tmp_path / "io.log").read_text()
    assert hooks.own_secret() not in written
    assert receiver.url not in written
