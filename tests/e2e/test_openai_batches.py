"""OpenAI's own Python client and a batch, against the whole fleet; the io worker is killed in the middle of one."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
import redis
from openai.types import Batch

from contract.batches import batch_key, line_task_id
from contract.store import task_key
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack
from tests.e2e.conftest import MODEL
from tests.e2e.test_openai_sdk import MESSAGES, TRUTH


@pytest.fixture
def sdk(fleet: LocalStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.api_key) as client:
        yield client


def line(custom_id: str, messages: Any = None, **body: Any) -> dict[str, Any]:
    chat = {"model": MODEL, "messages": messages or [{"role": "user", "content": "hi"}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": chat}


def start(sdk: openai.OpenAI, lines: list[dict[str, Any]], **more: Any) -> Batch:
    content = "\n".join(map(json.dumps, lines)).encode()
    file = sdk.files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch")
    return sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more)


def wait_until(sdk: openai.OpenAI, batch: Batch, holds: Callable[[Batch], bool], timeout_s: float = 90) -> Batch:
    deadline = time.monotonic() + timeout_s
    while not holds(batch := sdk.batches.retrieve(batch.id)):
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def ended(batch: Batch) -> bool:
    return batch.status in ("completed", "failed", "expired", "cancelled")


def read(sdk: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(text) for text in sdk.files.content(file_id).text.splitlines()]


def test_a_file_of_pictures_and_texts_is_answered(sdk: openai.OpenAI, api: Client, queue: redis.Redis) -> None:
    lines = [
        line("picture", MESSAGES, model=f"{MODEL}@p1"),
        line("text", max_tokens=3),
        line("nonsense", model="gpt-9"),
        line("again", MESSAGES),
    ]
    batch = start(sdk, lines, metadata={"job": "42"})
    assert batch.status == "validating"
    done = wait_until(sdk, batch, ended)

    assert (done.status, done.metadata) == ("completed", {"job": "42"})
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (4, 3, 1)
    answers = read(sdk, done.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["picture", "text", "again"]
    for index in (0, 2):
        response = answers[index]["response"]
        completion = openai.types.chat.ChatCompletion.model_validate(response["body"])
        assert (response["status_code"], completion.choices[0].message.content) == (200, TRUTH)
    assert answers[0]["response"]["body"]["model"] == f"{MODEL}@p1"
    task = api.get(answers[1]["response"]["request_id"])
    assert (task.status, task.kind) == ("succeeded", "text")
    (refused,) = read(sdk, done.error_file_id)
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("nonsense", 404)
    assert done.usage is not None
    assert done.usage.output_tokens == sum(
        answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers
    )

    assert next(iter(sdk.batches.list(limit=1))).id == batch.id
    assert sdk.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.APIStatusError, match="deleted"):
        sdk.files.retrieve(batch.input_file_id)


def test_a_file_with_two_lines_of_one_name_fails_before_any_runs(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    failed = wait_until(sdk, start(sdk, [line("a"), line("b"), line("a")]), ended)
    assert (failed.status, failed.output_file_id) == ("failed", None)
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(error.code, error.line) for error in failed.errors.data] == [("duplicate_custom_id", 3)]


def test_a_canceled_batch_gives_what_was_answered(fleet: LocalStack, sdk: openai.OpenAI, queue: redis.Redis) -> None:
    batch = start(sdk, [line(str(number), MESSAGES) for number in range(300)])
    wait_until(sdk, batch, lambda found: found.request_counts is not None and found.request_counts.completed > 2)
    assert sdk.batches.cancel(batch.id).status == "cancelling"
    canceled = wait_until(sdk, batch, ended)
    assert canceled.status == "cancelled"
    assert canceled.request_counts is not None
    answers, errors = read(sdk, canceled.output_file_id), read(sdk, canceled.error_file_id)
    assert len(answers) == canceled.request_counts.completed < 300
    assert len(answers) + len(errors) == 300
    assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}


def test_no_line_runs_twice_or_is_left_out_though_the_io_worker_is_killed(
    fleet: LocalStack, sdk: openai.OpenAI, queue: redis.Redis
) -> None:
    count = 400
    batch = start(sdk, [line(str(number), max_tokens=2) for number in range(count)])
    deadline = time.monotonic() + 60
    while not int(queue.hget(batch_key(batch.id), "fed") or 0) >= 20:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    fleet.kill_part("io")
    assert int(queue.hget(batch_key(batch.id), "fed") or 0) < count
    fleet.start_part("io")
    done = wait_until(sdk, batch, ended, timeout_s=150)

    assert (done.status, done.error_file_id) == ("completed", None)
    assert [answer["custom_id"] for answer in read(sdk, done.output_file_id)] == list(map(str, range(count)))
    attempts = [queue.hget(task_key(line_task_id(batch.id, number)), "attempts") for number in range(count)]
    assert attempts == ["1"] * count
