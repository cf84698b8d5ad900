"""Chat completions: what becomes of a request, what is refused, who waits for what."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api_gateway.openai_wire.streaming import Transcript
from contract import store
from contract.errors import InternalError
from contract.events import EventBody, append_delta
from contract.redis_io import run
from contract.task import Attempt, PastTurn
from tests.api_gateway.conftest import KEYS, PNG, Fleet, GatewayProcess, wait_until

DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
ASK = {"role": "user", "content": "Say hello."}
SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def picture(url: str = DATA_URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts: Any) -> dict[str, Any]:
    shaped = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": shaped}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "ovis2-reader", "messages": list(messages or (ASK,)), **more}


def answered(
    fleet: Fleet, api: httpx.Client, body: dict[str, Any], text: str = "hello"
) -> tuple[httpx.Response, Attempt]:
    """Ask, play the worker, and reply what came back and what the worker was told."""
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(api.post, "/v1/chat/completions", json=body)
        wait_until(lambda: asking.done() or fleet.task_ids() != [])
        assert not asking.done(), asking.result().text
        attempt = fleet.claim(body["model"].partition("@")[0])
        fleet.succeed(attempt, text)
        return asking.result(), attempt


def test_the_pictures_go_before_the_text_and_texts_join_with_newlines(fleet: Fleet, api: httpx.Client) -> None:
    body = chat(
        {"role": "system", "content": "Be brief."},
        user("What is", picture("https://example.com/a.png"), "this?"),
        {"role": "assistant", "content": "A bill.", "refusal": None, "tool_calls": None},
        user("And"),
        user("these?", picture("s3://ovis/uploads/b.png"), picture()),
        max_tokens=9,
        temperature=0.5,
        stop="end",
        seed=3,
        user="me",
        n=1,
    )
    response, attempt = answered(fleet, api, body)
    spec = attempt.spec
    assert response.status_code == 200
    assert (spec.kind, spec.operation, spec.priority, spec.system) == ("image", "ask", "high", "Be brief.")
    assert spec.history == (
        PastTurn(role="user", text="What is\nthis?", images=1),
        PastTurn(role="assistant", text="A bill."),
    )
    assert (spec.prompt, len(spec.inputs)) == ("And\nthese?", 3)
    assert spec.options.model_dump(exclude_defaults=True) == {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "stop": ("end",),
        "seed": 3,
    }


def test_an_alias_stands_for_options(fleet: Fleet, api: httpx.Client) -> None:
    response, attempt = answered(fleet, api, {**chat(user("?", picture())), "model": "ovis2-4b@p12"})
    assert (attempt.spec.model, attempt.spec.options.max_partition) == ("ovis2-4b", 12)
    assert response.json()["model"] == "ovis2-4b@p12"


def test_a_video_is_asked_about_by_alias(fleet: Fleet, api: httpx.Client) -> None:
    body = {**chat(user(picture("https://example.com/a.mp4"), "?")), "model": "ovis2-4b@video"}
    _, attempt = answered(fleet, api, body)
    assert attempt.spec.kind == "video"


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "bill", "schema": SCHEMA, "strict": True}}, SCHEMA),
    ],
    ids=["text", "object", "schema"],
)
def test_a_response_format_is_a_schema(fleet: Fleet, api: httpx.Client, response_format: Any, schema: Any) -> None:
    _, attempt = answered(fleet, api, chat(response_format=response_format))
    assert (attempt.spec.kind, attempt.spec.options.json_schema) == ("text", schema)


def test_a_text_that_is_too_long_for_the_record_is_given_whole(fleet: Fleet, api: httpx.Client) -> None:
    response, _ = answered(fleet, api, chat(), "long " * 100)
    assert response.json()["choices"][0]["message"]["content"] == "long " * 100


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "two answers": (chat(n=2), 400, "unsupported_parameter", "n"),
    "yes for one": (chat(n=True), 400, "unsupported_parameter", "n"),
    "log probabilities in a stream": (chat(logprobs=True, stream=True), 400, "unsupported_parameter", "logprobs"),
    "alternatives alone": (chat(top_logprobs=3), 400, "invalid_request", "top_logprobs"),
    "too many alternatives": (chat(logprobs=True, top_logprobs=21), 400, "invalid_request", "top_logprobs"),
    "tools": (chat(tools=[{"type": "function"}]), 400, "unsupported_parameter", "tools"),
    "unknown": (chat(colour="red"), 400, "unsupported_parameter", "colour"),
    "called a tool": (
        chat(ASK, {"role": "assistant", "content": "", "tool_calls": [{}]}, ASK),
        400,
        "unsupported_parameter",
        "messages[1].tool_calls",
    ),
    "no such model": ({**chat(), "model": "gpt-4"}, 404, "not_found", "model"),
    "no such alias": ({**chat(), "model": "ovis2-4b@fast"}, 404, "not_found", "model"),
    "alias over the limit": ({**chat(user("?", picture())), "model": "ovis2-4b@p17"}, 400, "invalid_request", "model"),
    "tiles without a picture": ({**chat(), "model": "ovis2-4b@p2"}, 400, "invalid_request", "model"),
    "no video": ({**chat(), "model": "ovis2-4b@video"}, 400, "invalid_request", "messages"),
    "no messages": ({"model": "ovis2-reader", "messages": []}, 400, "invalid_request", "messages"),
    "no question": (chat(user(picture())), 400, "invalid_request", "messages"),
    "an answer begun": (chat(ASK, {"role": "assistant", "content": "I"}), 400, "invalid_request", "messages"),
    "only a system": (chat({"role": "system", "content": "Be brief."}), 400, "invalid_request", "messages"),
    "begun by the assistant": (chat({"role": "assistant", "content": "I"}, ASK), 400, "invalid_request", "messages"),
    "system in the middle": (
        chat(ASK, {"role": "system", "content": "x"}, ASK),
        400,
        "invalid_request",
        "messages[1].role",
    ),
    "audio": (
        chat({"role": "user", "content": [{"type": "input_audio"}]}),
        400,
        "invalid_request",
        "messages[0].content[0]",
    ),
    "a picture without address": (
        chat(user({"type": "image_url", "image_url": {"url": ""}})),
        400,
        "invalid_request",
        "messages[0].content[0].image_url.url",
    ),
    "hot": (chat(temperature=11), 400, "invalid_request", "temperature"),
    "17 stops": (chat(stop=["a"] * 17), 400, "invalid_request", "stop"),
    "stop inside JSON": (chat(stop="a", response_format={"type": "json_object"}), 400, "invalid_request", "stop"),
    "no schema": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}),
        400,
        "invalid_request",
        "response_format.json_schema.schema",
    ),
    "inside": (
        chat(user("?", picture(), picture("https://127.0.0.1/a.png"))),
        400,
        "url_not_allowed",
        "messages[0].content[2].image_url.url",
    ),
    "bytes that aren't base64": (
        chat(user("?", picture("data:image/png;base64,*"))),
        400,
        "invalid_request",
        "messages[0].content[1].image_url.url",
    ),
    "percent-encoded": (
        chat(user("?", picture("data:text/plain,a"))),
        400,
        "invalid_request",
        "messages[0].content[1].image_url.url",
    ),
}


@pytest.mark.parametrize(("body", "status", "code", "param"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_in_openais_words_and_leaves_nothing(
    fleet: Fleet, api: httpx.Client, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    response = api.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert fleet.task_ids() == []


def test_errors_before_the_route_have_the_same_form(fleet: Fleet, api: httpx.Client) -> None:
    assert api.get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
    assert api.post("/v1/chat/nothing").json()["error"]["code"] == "not_found"
    assert api.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "unsupported_media"


def test_a_completion_that_is_not_there_in_time_is_504_and_canceled(
    fleet: Fleet, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_CHAT_S="0.1")
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {KEYS['acme']}"}) as api:
        response = api.post("/v1/chat/completions", json=chat())
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
        streamed = api.post("/v1/chat/completions", json=chat(stream=True))
        assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == "deadline_exceeded"
    (first, _) = sorted(fleet.task_ids())
    assert fleet.redis.hget(f"ovis:task:{first}", "status") == "canceled"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_caller_who_goes_away_cancels(fleet: Fleet, api: httpx.Client, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/chat/completions", json=chat(stream=stream), timeout=0.5)
    (task_id,) = fleet.task_ids()
    wait_until(lambda: fleet.redis.hget(f"ovis:task:{task_id}", "status") == "canceled")


def test_a_repeated_request_finds_the_completion_that_its_caller_left(fleet: Fleet, api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k1"}
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/chat/completions", json=chat(), timeout=0.5, headers=headers)
    fleet.succeed(fleet.claim())
    response = api.post("/v1/chat/completions", json=chat(), headers=headers)
    assert response.json()["choices"][0]["message"]["content"] == "hello"
    assert len(fleet.task_ids()) == 1


def test_a_stream_goes_on_where_it_was_when_another_attempt_begins_anew(fleet: Fleet, api: httpx.Client) -> None:
    received: list[str] = []
    done = threading.Event()

    def read() -> None:
        body = chat(stream=True, temperature=1)
        with api.stream("POST", "/v1/chat/completions", json=body) as response:
            received.extend(line for line in response.iter_lines() if line.startswith("data: "))
        done.set()

    threading.Thread(target=read).start()
    wait_until(lambda: fleet.task_ids() != [])
    first = fleet.claim()
    assert first.spec.options.seed is not None
    run(fleet.redis, append_delta(first.token, 0, "hel"))
    assert run(fleet.redis, store.release(first.token, "drained", counts=False)) == "queued"
    second = fleet.claim()
    run(fleet.redis, append_delta(second.token, 0, "he"))
    run(fleet.redis, append_delta(second.token, 2, "llo wo"))
    fleet.succeed(second, "hello world")
    assert done.wait(10)
    assert received[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in received[:-1]]
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert "".join(piece or "" for piece in pieces) == "hello world"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def delta(attempt: int, offset: int, text: str) -> EventBody:
    return EventBody(kind="delta", run=1, part=0, attempt=attempt, offset=offset, text=text)


def test_a_piece_that_comes_twice_is_sent_once_and_a_gap_is_closed_at_the_end() -> None:
    transcript = Transcript()
    taken = [transcript.take(delta(1, 0, "ab")), transcript.take(delta(1, 0, "ab")), transcript.take(delta(1, 5, "x"))]
    assert taken == ["ab", "", ""]
    assert transcript.complete("abcdex") == "cdex"


def test_an_answer_that_comes_out_differently_is_not_sent_on() -> None:
    transcript = Transcript()
    transcript.take(delta(1, 0, "ab"))
    with pytest.raises(InternalError):
        transcript.take(delta(2, 0, "xy"))
    with pytest.raises(InternalError):
        transcript.complete("a")
