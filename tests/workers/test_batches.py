"""Batches, step by step: a real Valkey, a real S3 server; the test plays gateway and model worker by the contract."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from contract import store, submissions
from contract.batch_changes import NewBatch, cancel_batch, claim_batch, create_batch
from contract.batches import BatchRecord, BatchTerms, batch_key, line_task_id, new_batch_id, refused_key
from contract.blobs import BlobStore, result_key
from contract.errors import BlobsUnavailable, DeadlineExceeded, StoreUnavailable
from contract.files import NewFile, add_file, file_blob_key, file_key, new_file_id
from contract.metrics import QueueMetrics
from contract.redis_io import connect, run
from contract.scripting import LEASE_MS
from contract.settings import FleetSettings
from contract.task import Attempt, PartResult, Usage, dumps
from contract.tenants import Tenant
from ovis_fleet.stack import LocalStack
from tests.workers.road import road_without
from workers.batches import batch_keeper
from workers.batches.keeper import BatchKeeper
from workers.batches.lease import BatchLease
from workers.batches.lines import Line, LineTooLong, read_lines
from workers.batches.writing import in_chunks
from workers.cleaning import Cleaner
from workers.settings import WorkerSettings

MODEL = "ovis2-reader"
STATUSES = {"invalid_request": 422, "not_found": 404, "unsupported_parameter": 400, "too_large": 413, "gone": 410}


def line(custom_id: str, text: str = "Say hello.", **body: Any) -> dict[str, Any]:
    """A line that can be run."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": chat}


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads bring about."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.01)


def jsonl(*lines: Any) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in lines)


@dataclass
class Desk:
    """A fleet with one batch keeper, whose steps the test takes."""

    client: redis.Redis
    blobs: BlobStore
    keeper: BatchKeeper
    start: Callable[..., BatchKeeper]

    def upload(self, content: bytes) -> str:
        file_id = new_file_id()
        key = file_blob_key("acme", file_id, 0)
        self.blobs.put(key, content, "application/jsonl")
        new = NewFile(file_id, "acme", "batch", "in.jsonl", key, len(content), 3600, 10**9)
        assert run(self.client, add_file(new)) == ("created", file_id)
        return file_id

    def create(self, content: bytes, *, window_s: int = 3600, **tenant: Any) -> str:
        terms = BatchTerms(
            tenant=Tenant(id="acme", **tenant),
            queue_max_waiting_parts=1000,
            queue_max_bytes=10**9,
            statuses=STATUSES,
            traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        )
        new = NewBatch(
            id=new_batch_id(),
            tenant="acme",
            input_file=self.upload(content),
            endpoint="/v1/chat/completions",
            completion_window="1h",
            window_s=window_s,
            metadata={"job": "7"},
            terms=terms,
            kept_s=3600,
            tenant_limit=10,
        )
        assert run(self.client, create_batch(new)) == ("created", new.id)
        return new.id

    def read(self, batch_id: str) -> BatchRecord:
        return BatchRecord.from_hash(batch_id, self.client.hgetall(batch_key(batch_id)))

    def make_due(self, batch_id: str) -> None:
        """Let time pass until the batch is looked at again."""
        self.client.zadd("ovis:batches-due", {batch_id: 0}, xx=True)

    def step(self, batch_id: str) -> BatchRecord:
        """Let time pass and have the batch looked at once."""
        self.make_due(batch_id)
        assert self.keeper.look()
        return self.read(batch_id)

    def claim(self) -> Attempt | None:
        return run(self.client, store.claim(MODEL, token=uuid4().hex, worker="worker-1"))

    def answer(self, attempt: Attempt, text: str = "hello", inline: bool = True) -> None:
        usage = Usage(prompt_tokens=9, output_tokens=3)
        key = result_key(attempt.tenant, attempt.task_id, attempt.part, attempt.claims)
        self.blobs.put(key, dumps({"text": text}).encode(), "application/json")
        result = PartResult(text=text if inline else None, finish_reason="stop", blob_key=key, usage=usage)
        assert run(self.client, store.finish(attempt, "succeeded", result=result)) == "committed"

    def answer_all(self) -> int:
        """Answer every task that waits; reply how many."""
        count = 0
        while (attempt := self.claim()) is not None:
            self.answer(attempt, f"answer to {attempt.spec.prompt}")
            count += 1
        return count

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id is not None
        blob = self.client.hget(file_key(file_id), "blob")
        return [json.loads(text) for text in self.blobs.get(str(blob)).splitlines()]


@pytest.fixture
def desk(servers: LocalStack, client: redis.Redis, fleet_settings: FleetSettings) -> Desk:
    blobs = BlobStore(fleet_settings)
    values: dict[str, Any] = {name.removeprefix("OVIS_").lower(): value for name, value in servers.env.items()}

    def start(through: BlobStore = blobs, **settings: Any) -> BatchKeeper:
        return batch_keeper(WorkerSettings(**{**values, **settings}), CollectorRegistry(), client, through)

    return Desk(client, blobs, start(batch_window=4, batch_max_lines=50, batch_max_line_bytes=100_000), start)


def test_every_line_is_answered_in_its_order_under_its_custom_id(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("b", "first"), b"", line("a", "second", max_tokens=7)))
    assert desk.read(batch_id).status == "validating"

    checked = desk.step(batch_id)
    assert (checked.status, checked.total, checked.fed) == ("in_progress", 2, 0)
    fed = desk.step(batch_id)
    assert (fed.fed, fed.under_way) == (2, 2)
    first = desk.claim()
    assert first is not None
    assert (first.task_id, first.spec.prompt, first.spec.priority) == (line_task_id(batch_id, 0), "first", "low")
    assert first.spec.trace_id == "a" * 32
    assert first.spec.deadline_s is not None
    assert 3590 < first.spec.deadline_s <= 3600
    desk.answer(first, "one")
    assert (desk.read(batch_id).completed, desk.read(batch_id).under_way) == (1, 1)
    second = desk.claim()
    assert second is not None
    assert second.spec.options.max_new_tokens == 7
    desk.answer(second, "two", inline=False)
    assert desk.step(batch_id).status == "finalizing"
    done = desk.step(batch_id)

    assert (done.status, done.completed, done.failed) == ("completed", 2, 0)
    assert done.error_file is None
    out = desk.lines(done.output_file)
    assert [item["custom_id"] for item in out] == ["b", "a"]
    assert [item["error"] for item in out] == [None, None]
    body = out[1]["response"]["body"]
    assert out[1]["response"]["status_code"] == 200
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    assert body["choices"][0]["message"]["content"] == "two"
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert done.usage == Usage(prompt_tokens=18, output_tokens=6)
    assert desk.client.zcard("ovis:batches-due") == 0
    assert desk.client.hget(file_key(done.input_file), "uses") == "0"


def test_pictures_lie_in_the_blob_store_before_their_line_waits(desk: Desk) -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"a picture").decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "Read."}]
    request = line("a")
    request["body"]["messages"] = [{"role": "user", "content": content}]
    batch_id = desk.create(jsonl(request))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    (stored,) = attempt.spec.inputs
    assert desk.blobs.get(stored.key) == b"a picture"  # type: ignore[union-attr]


def test_lines_are_fed_in_windows(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(10))))
    desk.step(batch_id)
    assert desk.step(batch_id).fed == 4
    assert desk.step(batch_id).fed == 4
    attempt = desk.claim()
    assert attempt is not None
    desk.answer(attempt)
    assert desk.step(batch_id).fed == 5
    rounds = 0
    while desk.read(batch_id).status != "completed":
        assert desk.read(batch_id).under_way <= 4
        desk.answer_all()
        desk.step(batch_id)
        rounds += 1
    assert rounds < 12
    assert [item["custom_id"] for item in desk.lines(desk.read(batch_id).output_file)] == list(map(str, range(10)))


def test_the_end_of_a_line_brings_the_next_look_forward(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(10))))
    desk.step(batch_id)
    desk.step(batch_id)
    rests_until = desk.client.zscore("ovis:batches-due", batch_id)
    attempt = desk.claim()
    assert attempt is not None
    desk.answer(attempt)
    looked_at = desk.client.zscore("ovis:batches-due", batch_id)
    assert looked_at is not None
    assert rests_until is not None
    assert looked_at < rests_until


def test_lines_take_half_of_the_tenants_room_and_wait_in_the_file_for_the_rest(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(4))), max_waiting_parts=4)
    desk.step(batch_id)
    assert desk.step(batch_id).fed == 2
    assert desk.step(batch_id).fed == 2
    assert desk.answer_all() == 2
    assert desk.step(batch_id).fed == 4


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"\n \n", [(None, "empty_file", None)]),
        (jsonl(line("a"), b"{no json", line("b")), [(2, "invalid_json_line", None)]),
        (jsonl(line("a"), b"[]", b"7"), [(2, "invalid_request", None), (3, "invalid_request", None)]),
        (jsonl(line("a"), line("b"), line("a")), [(3, "duplicate_custom_id", "custom_id")]),
        (jsonl({**line("a"), "method": "GET"}), [(1, "invalid_request", "method")]),
        (jsonl({**line("a"), "url": "/v1/embeddings"}), [(1, "invalid_request", "url")]),
        (jsonl({**line("a"), "custom_id": ""}), [(1, "invalid_request", "custom_id")]),
        (jsonl(line("a", "x" * 100_000)), [(1, "line_too_long", None)]),
        (jsonl(*(line(str(number)) for number in range(51))), [(51, "too_many_tasks", None)]),
        (b"\xff\xfe\n", [(1, "invalid_json_line", None)]),
    ],
    ids=["empty", "no json", "no object", "twice", "method", "url", "no id", "long", "many", "binary"],
)
def test_a_file_that_cannot_be_run_fails_as_a_whole(
    desk: Desk, content: bytes, errors: list[tuple[int | None, str, str | None]]
) -> None:
    batch_id = desk.create(content)
    failed = desk.step(batch_id)
    assert failed.status == "failed"
    assert [(error.line, error.code, error.param) for error in failed.errors] == errors
    assert (failed.output_file, failed.error_file) == (None, None)
    assert desk.claim() is None


def test_a_line_that_cannot_be_run_goes_to_the_error_file_and_the_others_run(desk: Desk) -> None:
    wrong = [
        line("model", model="gpt-9"),
        line("tools", tools=[{"type": "function"}]),
        line("stream", stream=True),
        line("tokens", max_tokens=0),
        line("s3") | {"body": {"model": MODEL, "messages": []}},
    ]
    batch_id = desk.create(jsonl(wrong[0], line("good"), *wrong[1:]))
    desk.step(batch_id)
    fed = desk.step(batch_id)
    assert (fed.fed, fed.failed, fed.under_way) == (6, 5, 1)
    assert desk.answer_all() == 1
    desk.step(batch_id)
    done = desk.step(batch_id)

    assert (done.status, done.completed, done.failed) == ("completed", 1, 5)
    assert [item["custom_id"] for item in desk.lines(done.output_file)] == ["good"]
    failed = {item["custom_id"]: item["response"] for item in desk.lines(done.error_file)}
    assert {name: (answer["status_code"], answer["body"]["error"]["code"]) for name, answer in failed.items()} == {
        "model": (404, "not_found"),
        "tools": (400, "unsupported_parameter"),
        "stream": (400, "unsupported_parameter"),
        "tokens": (422, "invalid_request"),
        "s3": (422, "invalid_request"),
    }
    assert failed["tokens"]["body"]["error"]["param"] == "max_tokens"
    assert not desk.client.exists(refused_key(batch_id))


def test_a_line_whose_task_failed_goes_to_the_error_file(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a"), line("b")))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    error = DeadlineExceeded("no").info().model_copy(update={"code": "too_large", "detail": "far too large"})
    run(desk.client, store.finish(attempt, "failed", error_json=error.model_dump_json()))
    assert desk.read(batch_id).failed == 1
    desk.answer_all()
    desk.step(batch_id)
    done = desk.step(batch_id)
    (failed,) = desk.lines(done.error_file)
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("a", 413)
    assert failed["response"]["body"]["error"]["message"] == "far too large"


def test_a_retried_line_counts_once(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a"), line("b")))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    run(desk.client, store.finish(attempt, "failed", error_json=DeadlineExceeded("no").info().model_dump_json()))
    assert run(desk.client, store.retry(attempt.task_id, "acme")) == "queued"
    assert (desk.read(batch_id).failed, desk.read(batch_id).under_way) == (0, 2)
    desk.answer_all()
    desk.step(batch_id)
    assert (desk.step(batch_id).completed, desk.read(batch_id).failed) == (2, 0)


def test_a_holder_that_was_lost_changes_nothing_any_more(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a"), line("b")))
    desk.step(batch_id)
    desk.make_due(batch_id)
    lost = run(desk.client, claim_batch("the lost one"))
    assert lost is not None
    assert run(desk.client, claim_batch("too early")) is None
    fed = desk.step(batch_id)  # the lease has run out
    assert (fed.fed, fed.losses) == (2, 0)

    spec = desk.claim()
    assert spec is not None
    for number in (0, 1, 2):
        late = submissions.Submission(
            task_id=line_task_id(batch_id, number + 100),
            tenant="acme",
            spec=spec.spec,
            cost=1,
            weight=1.0,
            tenant_limit=100,
            queue_limit=100,
            line=submissions.LinePlace(batch_id, "the lost one", number, 1),
        )
        assert run(desk.client, submissions.submit(late))[0] == "stale"
    assert desk.read(batch_id).fed == 2


def test_a_line_that_every_holder_is_lost_at_is_passed_over(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("poison"), line("b")))
    desk.step(batch_id)
    for number in range(5):
        desk.make_due(batch_id)
        assert run(desk.client, claim_batch(f"lost {number}")) is not None
    fed = desk.step(batch_id)
    assert (fed.fed, fed.failed, fed.losses) == (2, 1, 0)
    desk.answer_all()
    desk.step(batch_id)
    (failed,) = desk.lines(desk.step(batch_id).error_file)
    assert failed["response"]["body"]["error"]["code"] == "attempts_exhausted"


def test_cancel_waits_for_the_lines_under_way_and_starts_no_other(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(8))))
    desk.step(batch_id)
    desk.step(batch_id)
    done, running = desk.claim(), desk.claim()
    assert done is not None
    assert running is not None
    desk.answer(done)
    assert run(desk.client, cancel_batch(batch_id, "other")) == "missing"
    assert run(desk.client, cancel_batch(batch_id, "acme")) == "cancelling"
    assert run(desk.client, cancel_batch(batch_id, "acme")) == "cancelling"
    stopping = desk.step(batch_id)
    assert (stopping.status, stopping.fed, stopping.under_way) == ("cancelling", 4, 1)
    assert desk.claim() is None
    assert desk.step(batch_id).status == "cancelling"

    assert run(desk.client, store.finish(running, "stopped")) == "canceled"
    ended = desk.step(batch_id)
    assert (ended.status, ended.completed, ended.failed) == ("cancelled", 1, 7)
    assert [item["custom_id"] for item in desk.lines(ended.output_file)] == ["0"]
    errors = desk.lines(ended.error_file)
    assert [item["custom_id"] for item in errors] == list("1234567")
    assert {item["error"]["code"] for item in errors} == {"batch_cancelled"}
    assert run(desk.client, cancel_batch(batch_id, "acme")) == "cancelled"


def test_a_batch_canceled_before_its_check_ends_without_files(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    run(desk.client, cancel_batch(batch_id, "acme"))
    ended = desk.step(batch_id)
    assert (ended.status, ended.output_file, ended.error_file) == ("cancelled", None, None)


def test_what_is_not_answered_within_the_window_expires(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(6))))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    desk.answer(attempt)
    desk.client.hset(batch_key(batch_id), "expires_ms", 1)
    assert desk.step(batch_id).status == "in_progress"
    for task_id in desk.client.zrange("ovis:deadlines", 0, -1):
        desk.client.zadd("ovis:deadlines", {task_id: 1})
    run(desk.client, store.expire_deadlines())
    assert desk.step(batch_id).status == "finalizing"
    ended = desk.step(batch_id)
    assert (ended.status, ended.completed, ended.failed) == ("expired", 1, 5)
    assert {item["error"]["code"] for item in desk.lines(ended.error_file)} == {"batch_expired"}


def test_a_batch_whose_file_was_lost_fails(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    desk.step(batch_id)
    desk.blobs.delete_prefix("files/")
    failed = desk.step(batch_id)
    assert (failed.status, [error.code for error in failed.errors]) == ("failed", ["input_unavailable"])


def test_a_batch_whose_file_was_lost_midway_stops_its_lines_and_leaves_their_answers(desk: Desk) -> None:
    batch_id = desk.create(jsonl(*(line(str(number)) for number in range(6))))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    desk.answer(attempt)
    desk.blobs.delete_prefix("files/")
    failed = desk.step(batch_id)
    assert (failed.status, [error.code for error in failed.errors]) == ("failed", ["input_unavailable"])
    assert desk.claim() is None
    assert desk.client.hget(store.task_key(attempt.task_id), "status") == "succeeded"


@pytest.mark.parametrize("change", ["secret", "bucket"])
@pytest.mark.parametrize("steps", [0, 1, 3], ids=["validating", "in_progress", "finalizing"])
def test_a_bucket_closed_or_gone_for_a_while_costs_a_batch_nothing(
    desk: Desk, fleet_settings: FleetSettings, change: str, steps: int
) -> None:
    batch_id = desk.create(jsonl(line("a")))
    for _ in range(steps):
        desk.step(batch_id)
        desk.answer_all()
    before = desk.read(batch_id)
    wrong = {"secret": {"s3_secret_access_key": SecretStr("wrong")}, "bucket": {"s3_bucket": "nowhere"}}
    closed = desk.start(BlobStore(fleet_settings.model_copy(update=wrong[change])))
    desk.make_due(batch_id)
    assert closed.look()
    after = desk.read(batch_id)
    assert (after.status, after.losses, after.fed) == (before.status, 0, before.fed)
    for _ in range(4 - steps):
        desk.step(batch_id)
        desk.answer_all()
    done = desk.read(batch_id)
    assert (done.status, [item["custom_id"] for item in desk.lines(done.output_file)]) == ("completed", ["a"])


def test_a_result_that_cannot_be_read_for_a_while_is_waited_for(desk: Desk, fleet_settings: FleetSettings) -> None:
    batch_id = desk.create(jsonl(line("a"), line("b")))
    desk.step(batch_id)
    desk.step(batch_id)
    for _ in range(2):
        attempt = desk.claim()
        assert attempt is not None
        desk.answer(attempt, "kept", inline=False)
    assert desk.step(batch_id).status == "finalizing"
    with road_without("/results/", str(fleet_settings.s3_endpoint_url)) as address:
        partly = desk.start(BlobStore(fleet_settings.model_copy(update={"s3_endpoint_url": address})))
        desk.make_due(batch_id)
        assert partly.look()
    waiting = desk.read(batch_id)
    assert (waiting.status, waiting.losses, waiting.output_file, waiting.error_file) == ("finalizing", 0, None, None)
    done = desk.step(batch_id)
    assert (done.status, done.completed, done.failed) == ("completed", 2, 0)
    texts = [item["response"]["body"]["choices"][0]["message"]["content"] for item in desk.lines(done.output_file)]
    assert texts == ["kept", "kept"]


def test_a_line_whose_task_failed_for_an_outage_is_not_waited_for(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    error = BlobsUnavailable("the object store refused").info()
    run(desk.client, store.finish(attempt, "failed", error_json=error.model_dump_json()))
    desk.step(batch_id)
    done = desk.step(batch_id)
    assert (done.status, done.completed, done.failed) == ("completed", 0, 1)
    (failed,) = desk.lines(done.error_file)
    assert failed["response"]["body"]["error"]["code"] == "blobs_unavailable"


def test_a_batch_in_another_versions_form_rests_without_a_loss(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    terms = desk.client.hget(batch_key(batch_id), "terms")
    assert terms is not None
    desk.client.hset(batch_key(batch_id), "terms", dumps({**json.loads(terms), "queue_max_bytes": {"of": "newer"}}))
    with capture_logs() as logs:
        for _ in range(10):  # more often than losses are borne
            resting = desk.step(batch_id)
    assert (resting.status, resting.losses) == ("validating", 0)
    assert [entry["fields"] for entry in logs if entry["event"] == "batch_unreadable"] == [["queue_max_bytes"]] * 10
    assert not desk.keeper.look()  # it isn't due at once
    desk.client.hset(batch_key(batch_id), "terms", terms)
    assert desk.step(batch_id).status == "in_progress"


def test_what_another_version_knows_of_a_tenant_is_passed_over(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    terms = json.loads(str(desk.client.hget(batch_key(batch_id), "terms")))
    terms["tenant"]["max_of_tomorrow"] = 3
    desk.client.hset(batch_key(batch_id), "terms", dumps(terms))
    assert desk.step(batch_id).status == "in_progress"


def test_the_answer_of_a_line_is_kept_until_the_batch_has_ended(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    desk.answer(attempt, "kept", inline=False)
    cleaner = Cleaner(desk.client, desk.blobs, QueueMetrics(CollectorRegistry()))
    desk.client.zadd(store.RETENTION_KEY, {attempt.task_id: 1})  # its time is over
    cleaner.one_pass()
    desk.step(batch_id)
    done = desk.step(batch_id)
    assert (done.status, done.completed, done.failed) == ("completed", 1, 0)
    desk.client.zadd(store.RETENTION_KEY, {attempt.task_id: 1})
    cleaner.one_pass()
    assert not desk.client.exists(store.task_key(attempt.task_id))


@pytest.mark.parametrize("status", ["cancelling", "finalizing"])
def test_a_line_is_not_retried_while_its_batch_ends(desk: Desk, status: str) -> None:
    batch_id = desk.create(jsonl(line("a")))
    desk.step(batch_id)
    desk.step(batch_id)
    attempt = desk.claim()
    assert attempt is not None
    run(desk.client, store.finish(attempt, "failed", error_json=DeadlineExceeded("no").info().model_dump_json()))
    if status == "cancelling":
        run(desk.client, cancel_batch(batch_id, "acme"))
    else:
        desk.step(batch_id)
    assert desk.read(batch_id).status == status
    assert run(desk.client, store.retry(attempt.task_id, "acme")) == f"batch {status}"
    assert desk.client.hget(store.task_key(attempt.task_id), "status") == "failed"
    done = desk.step(batch_id)
    assert (done.under_way, done.failed) == (0, 1)
    assert run(desk.client, store.retry(attempt.task_id, "acme")) == "queued"  # for its own sake


def test_lines_are_held_in_memory_by_their_number_and_their_bytes() -> None:
    def sizes(*lengths: int) -> list[int]:
        return [len(chunk) for chunk in in_chunks(Line(b"x" * length, 1, 1) for length in lengths)]

    mib = 1024**2
    assert sizes() == []
    assert sizes(*[1] * 250) == [100, 100, 50]
    assert sizes(*[3 * mib] * 7) == [3, 3, 1]
    assert sizes(32 * mib, 1, 1) == [1, 2]


def test_a_lease_is_renewed_again_after_a_renewal_that_broke(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    claimed = run(desk.client, claim_batch("holder"))
    assert claimed is not None
    key, aside = batch_key(batch_id), f"{batch_key(batch_id)}:aside"
    with BatchLease(desk.client, claimed.read(), lambda: False, renewal_s=0.01) as lease:
        desk.client.rename(key, aside)
        desk.client.set(key, "no hash")  # the script breaks on it
        with capture_logs() as logs:
            until(lambda: any(entry["event"] == "batch_renewal_failed" for entry in logs))
        desk.client.rename(aside, key)
        run(desk.client, cancel_batch(batch_id, "acme"))
        until(lambda: lease.check() == "cancelling")


def test_what_has_had_its_time_goes(desk: Desk) -> None:
    batch_id = desk.create(jsonl(line("a")))
    desk.step(batch_id)
    desk.step(batch_id)
    running = desk.read(batch_id)
    desk.client.hset(file_key(running.input_file), "expires_ms", 1)
    desk.client.zadd("ovis:file-retention", {running.input_file: 1})
    desk.keeper.purge()
    assert desk.client.exists(file_key(running.input_file))  # the batch still reads it
    desk.answer_all()
    desk.step(batch_id)
    done = desk.step(batch_id)
    desk.client.zadd("ovis:file-retention", {running.input_file: 1})
    desk.client.zadd("ovis:batch-retention", {batch_id: 1})
    desk.keeper.purge()
    assert not desk.client.exists(file_key(running.input_file))
    assert not desk.client.exists(batch_key(batch_id))
    assert desk.client.get(f"ovis:purged:{batch_id}") == "acme"
    stored = {stored.task_id for stored in desk.blobs.list_tasks("files")}
    assert stored & {done.input_file, done.output_file} == {done.output_file}
    assert desk.client.hget("ovis:load", "b:acme") == "0"


def test_a_keeper_runs_batches_until_it_is_closed(desk: Desk) -> None:
    keeper = desk.start()
    thread = threading.Thread(target=keeper.keep)
    thread.start()
    batch_id = desk.create(jsonl(line("a")))
    while desk.read(batch_id).status != "completed":
        desk.answer_all()
    keeper.close()
    thread.join(10)
    assert not thread.is_alive()


def test_lost_leases_are_long_enough_for_renewals() -> None:
    assert LEASE_MS >= 12_000


@given(
    texts=st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=8),
    ends=st.booleans(),
    size=st.integers(1, 20),
)
def test_lines_are_the_same_however_they_arrive(texts: list[bytes], ends: bool, size: int) -> None:
    whole = b"\n".join(texts) + (b"\n" if ends and texts else b"")
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    lines = list(read_lines(chunks, 30))
    expected = [(number, text.strip()) for number, text in enumerate(whole.split(b"\n"), 1) if text.strip()]
    assert [(item.number, item.text) for item in lines] == expected
    for item in lines:
        rest = [other.text for other in read_lines([whole[item.end :]], 30, offset=item.end)]
        assert rest == [text for number, text in expected if number > item.number]


def test_a_line_that_never_ends_is_given_up_early() -> None:
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 10

    with pytest.raises(LineTooLong):
        list(read_lines(chunks(), 35))
    assert taken == 4


def test_an_outage_of_the_store_ends_the_look(desk: Desk) -> None:
    away = connect("redis://127.0.0.1:1/0")
    keeper = BatchKeeper(
        away, desk.blobs, desk.keeper.checker, desk.keeper.feeder, desk.keeper.writer, desk.keeper.metrics
    )
    with pytest.raises(StoreUnavailable):
        keeper.look()
