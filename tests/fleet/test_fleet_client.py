"""The client hands in: bodies, repetition, errors; against a real HTTP server that answers as it is told."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ovis_fleet import ApiError, Client, ProtocolError, SourceError, Task, UnreachableError, Upload
from tests.fleet.answering import KEY, Answer, Server, problem, task_document
from tests.fleet.both_clients import Open


def test_a_file_goes_as_multipart_with_the_task_beside_it(server: Server, client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "receipt.png"
    picture.write_bytes(b"\x89PNG...")
    server.will_answer(Answer(202, task_document()))

    task = client.submit(picture, model="ovis2-reader", operation="ocr", metadata={"order": "42"})

    assert task == Task(id="task_1", kind="image", model="ovis2-reader", status="queued")
    (request,) = server.seen
    (name, filename, media_type, body), upload = request.parts()
    assert (request.method, request.path) == ("POST", "/v1/tasks")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (name, filename, media_type) == ("task", None, "application/json")
    assert json.loads(body) == {
        "kind": "image",
        "model": "ovis2-reader",
        "operation": "ocr",
        "metadata": {"order": "42"},
    }
    assert upload == ("file", "receipt.png", "image/png", b"\x89PNG...")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("https://host/a.png", {"input": {"url": "https://host/a.png"}}, id="url"),
        pytest.param("s3://ovis/uploads/a", {"input": {"s3": "s3://ovis/uploads/a"}}, id="s3"),
        pytest.param(["http://h/a", "s3://b/c"], {"inputs": [{"url": "http://h/a"}, {"s3": "s3://b/c"}]}, id="several"),
        pytest.param(None, {"kind": "text"}, id="none"),
        pytest.param("s3://ovis/a.PDF", {"kind": "document", "input": {"s3": "s3://ovis/a.PDF"}}, id="document"),
        pytest.param(
            [Upload("upl_1"), "http://h/a"], {"inputs": [{"upload": "upl_1"}, {"url": "http://h/a"}]}, id="upload"
        ),
    ],
)
def test_addresses_go_in_the_json_body(server: Server, client: Client, source: Any, expected: dict[str, Any]) -> None:
    server.will_answer(Answer(202, task_document()))

    client.submit(source, model="m", prompt="p")

    assert server.seen[0].json() == {"kind": "image", "model": "m", "prompt": "p", **expected}


def test_several_files_keep_their_order(server: Server, client: Client) -> None:
    server.will_answer(Answer(202, task_document()))

    client.submit([b"first", b"second"], model="m")

    assert [part[3] for part in server.seen[0].parts()[1:]] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("no/such/file.png", "no such file", id="missing"),
        pytest.param("ftp://host/a.png", "ftp:// is not an input", id="scheme"),
        pytest.param([b"bytes", "https://host/a.png"], "can't be mixed", id="mixed"),
    ],
)
def test_a_source_that_cannot_be_handed_in_never_leaves(
    server: Server, client: Client, source: Any, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        client.submit(source, model="m")
    assert server.seen == []


def test_a_broken_connection_is_tried_again_with_the_same_key_and_the_whole_file(
    server: Server, client: Client, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"x" * 100_000)
    server.will_answer(Answer(drop=True), Answer(drop=True), Answer(202, task_document()))

    client.submit(picture, model="m")

    assert len(server.seen) == 3
    assert len({request.headers["idempotency-key"] for request in server.seen}) == 1
    assert {request.parts()[1][3] for request in server.seen} == {b"x" * 100_000}


def test_two_submissions_have_different_keys(server: Server, client: Client) -> None:
    server.will_answer(Answer(202, task_document()))
    client.submit(b"a", model="m")
    client.submit(b"a", model="m")
    client.submit(b"a", model="m", idempotency_key="mine")

    first, second, third = (request.headers["idempotency-key"] for request in server.seen)
    assert len({first, second, "mine"}) == 3
    assert third == "mine"


@pytest.mark.parametrize("status", [409, 429, 503])
def test_a_gateway_that_names_a_time_is_asked_again(server: Server, client: Client, status: int) -> None:
    busy = Answer(status, problem(status, "busy", retryable=True), {"Retry-After": "0"})
    server.will_answer(busy, Answer(202, task_document()))

    client.submit(b"a", model="m")

    assert len(server.seen) == 2


def test_the_gateway_is_left_alone_for_as_long_as_it_asks(server: Server, client: Client) -> None:
    server.will_answer(Answer(429, problem(429, "busy"), {"Retry-After": "1"}), Answer(200, {"data": []}))
    began = time.monotonic()

    client.models()

    assert 1 <= time.monotonic() - began < 3


def test_trying_again_has_an_end(server: Server, client: Client) -> None:
    server.will_answer(Answer(503, problem(503, "queue_full", retryable=True), {"Retry-After": "0"}))

    with pytest.raises(ApiError) as caught:
        client.models()

    assert (caught.value.code, caught.value.retry_after_s) == ("queue_full", 0)
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(503, problem(503, "x")), id="no Retry-After"),
        pytest.param(Answer(503, problem(503, "x"), {"Retry-After": "3600"}), id="an hour"),
        pytest.param(Answer(500, problem(500, "x"), {"Retry-After": "0"}), id="500"),
    ],
)
def test_what_is_not_worth_waiting_for_is_raised_at_once(server: Server, client: Client, answer: Answer) -> None:
    server.will_answer(answer)

    with pytest.raises(ApiError):
        client.models()
    assert len(server.seen) == 1


def test_a_problem_becomes_a_typed_error_with_all_its_fields(server: Server, client: Client) -> None:
    document = problem(
        422,
        "invalid_request",
        detail="1 value is not allowed",
        retryable=False,
        request_id="req_7",
        errors=[{"pointer": "/options/max_new_tokens", "detail": "at most 4096"}],
        unknown="later",
    )
    server.will_answer(Answer(422, document))

    with pytest.raises(ApiError) as caught:
        client.get("task_1")

    error = caught.value
    assert (error.status, error.code, error.retryable, error.request_id) == (422, "invalid_request", False, "req_7")
    assert error.errors == ({"pointer": "/options/max_new_tokens", "detail": "at most 4096"},)
    assert str(error) == (
        "invalid_request: 1 value is not allowed [/options/max_new_tokens: at most 4096] (request req_7)"
    )


def test_an_error_of_a_proxy_in_between_is_an_api_error_too(server: Server, client: Client) -> None:
    server.will_answer(Answer(502, "<html>Bad gateway</html>"))

    with pytest.raises(ApiError, match="http_502: Bad Gateway"):
        client.models()


def test_another_service_at_the_address_is_recognised(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, "hello"), Answer(200, ["not", "a", "task"]), Answer(200, {"hello": "world"}))

    for _ in range(3):
        with pytest.raises(ProtocolError):
            client.get("task_1")


def test_nobody_at_the_address_is_an_error_of_its_own(opening: Open) -> None:
    with opening("http://127.0.0.1:9", KEY) as client, pytest.raises(UnreachableError, match="cannot reach"):
        client.models()


def test_a_silent_gateway_is_given_up(server: Server, opening: Open) -> None:
    server.will_answer(Answer())
    server._http.shutdown()
    with opening(server.url, KEY, timeout_s=0.2) as client, pytest.raises(UnreachableError, match="no answer"):
        client.models()
