"""The client against a real HTTP server that answers as it is told."""

import email.parser
import email.policy
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ovis_fleet import ApiError, Client, ProtocolError, SourceError, Task, TaskTimeoutError, UnreachableError

KEY = "sk-test"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def parts(self) -> list[tuple[str, str | None, str, bytes]]:
        """The parts of a multipart body: name, file name, media type, content."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        return [
            (
                part.get_param("name", header="content-disposition"),
                part.get_filename(),
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in message.iter_parts()
        ]


@dataclass
class Answer:
    """What the server says next; ``drop`` closes the connection without a word."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class Server:
    """Gives the queued answers in order, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.seen: list[Seen] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {key.lower(): value for key, value in self.headers.items()}
                outer.seen.append(Seen(self.command, self.path, headers, body))
                answer = outer.answers.popleft() if len(outer.answers) > 1 else outer.answers[0]
                if answer.drop:
                    self.close_connection = True
                    return
                is_problem = answer.status >= 400 and isinstance(answer.body, dict)
                text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self.send_response(answer.status)
                kind = "text/plain" if isinstance(answer.body, str) else "application/json"
                self.send_header("Content-Type", "application/problem+json" if is_problem else kind)
                self.send_header("Content-Length", str(len(text.encode())))
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps the test's output clean."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def will_answer(self, *answers: Answer) -> None:
        self.answers.extend(answers)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """The gateway's stand-in."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def other_host() -> Iterator[Server]:
    """The object store's stand-in."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, KEY, timeout_s=5) as made:
        yield made


def task_document(status: str = "queued", **fields: Any) -> dict[str, Any]:
    return {"id": "task_1", "kind": "image", "model": "ovis2-reader", "status": status, **fields}


def problem(status: int, code: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"urn:ovis:{code}", "title": "Title", "status": status, "code": code, **fields}


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
        pytest.param(None, {}, id="none"),
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

    assert caught.value.code == "queue_full"
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


def test_nobody_at_the_address_is_an_error_of_its_own() -> None:
    with Client("http://127.0.0.1:9", KEY) as client, pytest.raises(UnreachableError, match="cannot reach"):
        client.models()


def test_a_silent_gateway_is_given_up(server: Server) -> None:
    server.will_answer(Answer())
    server._http.shutdown()
    with Client(server.url, KEY, timeout_s=0.2) as client, pytest.raises(UnreachableError, match="no answer"):
        client.models()


def test_a_task_is_read_whole_and_unknown_fields_are_left_out(server: Server, client: Client) -> None:
    document = task_document(
        "succeeded",
        operation="ocr",
        progress={"parts_total": 1, "parts_done": 1, "parts_failed": 0, "parts_dreamt": 3},
        attempts=1,
        created_at="2026-11-22T10:00:00Z",
        started_at=None,
        ended_at="2026-11-22T10:00:02.500000+00:00",
        usage={"images": 1, "visual_tokens": 256, "gpu_seconds": 0.5},
        result={"text": "TOTAL 9.50", "finish_reason": "stop", "location": "s3://ovis/results/r.json"},
        error=None,
        metadata={"order": "42"},
        later="unknown",
    )
    server.will_answer(Answer(200, document))

    task = client.get("task_1")

    assert task.is_ended
    assert task.duration_s == 2.5
    assert task.usage is not None
    assert task.usage.visual_tokens == 256
    assert task.result is not None
    assert task.result.text == "TOTAL 9.50"
    assert (task.error, task.started_at, task.metadata) == (None, None, {"order": "42"})


def test_waiting_asks_again_until_the_end(server: Server, client: Client) -> None:
    failed = task_document("failed", error=problem(422, "not_an_image", detail="no picture"))
    server.will_answer(Answer(200, task_document()), Answer(200, task_document("running")), Answer(200, failed))

    task = client.wait("task_1", timeout_s=20)

    assert task.error is not None
    assert task.error.code == "not_an_image"
    assert [request.path for request in server.seen] == ["/v1/tasks/task_1?wait=20"] * 3


def test_waiting_ends_with_the_callers_time(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, task_document("running")))

    with pytest.raises(TaskTimeoutError, match="still running after 1 s"):
        client.wait("task_1", timeout_s=1)
    assert len(server.seen) < 10


def test_a_wait_at_submission_is_a_preference(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, task_document("succeeded")))

    assert client.submit(b"a", model="m", wait_s=12.4).is_ended
    assert server.seen[0].headers["prefer"] == "wait=12"


def test_a_redirected_result_is_fetched_without_the_key(server: Server, other_host: Server, client: Client) -> None:
    server.will_answer(Answer(303, "", {"Location": f"{other_host.url}/ovis/results/r?X-Amz-Signature=s"}))
    other_host.will_answer(Answer(200, {"text": "long"}), Answer(200, "long"))

    assert client.result("task_1") == {"text": "long"}
    assert client.result("task_1", "text") == "long"
    for request in other_host.seen:
        assert request.path == "/ovis/results/r?X-Amz-Signature=s"
        assert KEY not in str(request.headers)


def test_an_id_cannot_lead_to_another_path(server: Server, client: Client) -> None:
    server.will_answer(Answer(404, problem(404, "not_found")))

    with pytest.raises(ApiError):
        client.cancel("../models?x=")
    assert server.seen[0].path == "/v1/tasks/..%2Fmodels%3Fx%3D/cancel"


def test_all_pages_of_a_list_are_read(server: Server, client: Client) -> None:
    pages = [
        {"data": [task_document(), task_document()], "next_cursor": "c1"},
        {"data": [task_document("failed")], "next_cursor": None},
    ]
    server.will_answer(*(Answer(200, page) for page in pages))

    assert [task.status for task in client.list_all(model="m")] == ["queued", "queued", "failed"]
    assert [request.path for request in server.seen] == ["/v1/tasks?model=m", "/v1/tasks?model=m&cursor=c1"]


def test_models_are_read_tolerantly(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, {"data": [{"id": "ovis2-4b", "workers": 2, "new": 1}, {"id": "ovis2-1b"}]}))

    four, one = client.models()

    assert (four.id, four.workers, four.params_b) == ("ovis2-4b", 2, None)
    assert (one.id, one.workers) == ("ovis2-1b", None)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.will_answer(Answer(200, {"data": []}))

    with Client(server.url, KEY) as client:
        assert client.models() == ()


def test_a_problem_with_one_invalid_value_is_not_said_twice(server: Server, client: Client) -> None:
    said = "there is no such model"
    server.will_answer(Answer(422, problem(422, "x", detail=said, errors=[{"pointer": "/model", "detail": said}])))

    with pytest.raises(ApiError, match=r"^x: there is no such model \[/model\]$"):
        client.models()
