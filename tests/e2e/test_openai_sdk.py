"""OpenAI's own Python client against the fleet, unchanged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import redis
from pydantic import BaseModel

from contract.json_schemas import follows
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack
from tests.e2e.conftest import MODEL, RECEIPT, SAMPLES

READ = "Read all the text in the image."
TRUTH = json.loads((SAMPLES / "samples.json").read_text())["receipt.png"]["truth"]
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + base64.b64encode(RECEIPT.read_bytes()).decode()},
}
MESSAGES: Any = [{"role": "user", "content": [{"type": "text", "text": READ}, PICTURE]}]


class Receipt(BaseModel):
    """What the answer is held to."""

    shop: str
    total: int


@pytest.fixture
def sdk(fleet: LocalStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.api_key, max_retries=0) as client:
        yield client


def test_a_picture_is_read(sdk: openai.OpenAI, api: Client, queue: redis.Redis) -> None:
    answer = sdk.chat.completions.create(model=f"{MODEL}@p1", messages=MESSAGES, metadata={"order": "42"})
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TRUTH, "stop")
    assert (answer.model, answer.object) == (f"{MODEL}@p1", "chat.completion")
    task = api.get(answer.id.replace("chatcmpl-", "task_"))
    assert (task.status, task.kind, task.metadata) == ("succeeded", "image", {"order": "42"})
    assert answer.usage is not None
    assert task.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        task.usage.prompt_tokens,
        task.usage.output_tokens,
    )
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 576


def test_an_answer_is_streamed_piece_by_piece_with_its_usage_at_the_end(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    chunks = list(
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == TRUTH
    assert len([piece for piece in pieces if piece]) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_an_answer_follows_a_schema(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    schema = {**Receipt.model_json_schema(), "additionalProperties": False}
    schema["properties"]["shop"]["maxLength"] = 20
    schema["properties"]["total"].update(minimum=0, maximum=9999)
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "receipt", "schema": schema, "strict": True}},
    )
    assert follows(schema, json.loads(answer.choices[0].message.content or ""))


def test_a_conversation_goes_on(sdk: openai.OpenAI, api: Client, queue: redis.Redis) -> None:
    first = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4)
    assert first.choices[0].finish_reason == "length"
    messages: Any = [
        {"role": "system", "content": "Read."},
        *MESSAGES,
        first.choices[0].message,
        {"role": "user", "content": [PICTURE, {"type": "text", "text": "And"}, {"type": "text", "text": "this?"}]},
    ]
    answer = sdk.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=8)
    task = api.get(answer.id.replace("chatcmpl-", "task_"))
    assert task.usage is not None
    assert (task.usage.images, task.usage.visual_tokens) == (2, 2 * 576)


def test_a_sampled_answer_ends_at_a_stop_string(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    stop = TRUTH[5]
    answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stop=stop, temperature=0.01, seed=7)
    assert answer.choices[0].message.content == TRUTH[: TRUTH.index(stop)]


def test_a_picture_that_is_none_is_the_callers_mistake_streamed_or_not(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    broken: Any = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,AAAA"}}]},
        {"role": "user", "content": READ},
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model=MODEL, messages=broken)
    assert refused.value.code == "not_an_image"
    with pytest.raises(openai.APIError) as ended:
        list(sdk.chat.completions.create(model=MODEL, messages=broken, stream=True))
    assert ended.value.code == "not_an_image"


def test_models_are_listed_and_found(sdk: openai.OpenAI) -> None:
    models = {model.id: model for model in sdk.models.list()}
    assert (models["ovis2-4b"].object, models["ovis2-4b"].owned_by) == ("model", "AIDC-AI")
    assert sdk.models.retrieve(MODEL).owned_by == "ovis-fleet"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gpt-4")


def test_a_key_that_nobody_holds_is_refused(fleet: LocalStack) -> None:
    stranger = openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="sk-nobody", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (refused.value.code, refused.value.type) == ("unauthenticated", "authentication_error")


def test_the_answers_tokens_come_with_their_likelihood(sdk: openai.OpenAI, queue: redis.Redis) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(entry.token for entry in told.content) == answer.choices[0].message.content == TRUTH
    assert bytes(byte for entry in told.content for byte in entry.bytes or ()).decode() == TRUTH
    assert all(len(entry.top_logprobs) == 2 for entry in told.content)
    assert all(entry.top_logprobs[0].logprob >= entry.logprob > -1 for entry in told.content)

    plain = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, max_tokens=2)
    assert plain.choices[0].logprobs is not None
    assert [entry.top_logprobs for entry in plain.choices[0].logprobs.content or ()] == [[], []]
