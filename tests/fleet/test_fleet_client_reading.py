"""The client reads: tasks, results, lists, dead letters; against a real HTTP server that answers as it is told."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ovis_fleet import ApiError, Client, ProtocolError, TaskTimeoutError, UnreachableError
from ovis_fleet.uploading import LARGE_BYTES
from tests.fleet.answering import KEY, Answer, Server, problem, task_document
from tests.fleet.both_clients import Open


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
    assert [request.path for request in server.seen] == ["/v1/tasks/task_1", *["/v1/tasks/task_1?wait=20"] * 2]


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


def test_retry_and_deletion_name_the_task(server: Server, client: Client) -> None:
    deadline = "2026-11-22T10:00:02.500Z"
    server.will_answer(Answer(202, task_document(run=2, deadline_at=deadline)), Answer(204))

    task = client.retry("task_1")
    client.delete("task_1")

    assert (task.run, task.deadline_at) == (2, datetime.fromisoformat(deadline))
    assert [(request.method, request.path) for request in server.seen] == [
        ("POST", "/v1/tasks/task_1/retry"),
        ("DELETE", "/v1/tasks/task_1"),
    ]


def test_a_task_in_the_wrong_status_is_refused_at_once(server: Server, client: Client) -> None:
    server.will_answer(Answer(409, problem(409, "wrong_status", detail="the task is running", retryable=False)))

    for call in (client.retry, client.delete):
        with pytest.raises(ApiError, match="wrong_status: the task is running"):
            call("task_1")
    assert len(server.seen) == 2


def test_a_deadline_goes_with_the_submission(server: Server, client: Client) -> None:
    server.will_answer(Answer(202, task_document()))

    client.submit(kind="text", model="m", prompt="p", deadline_s=60)

    assert server.seen[0].json()["deadline_s"] == 60


def letter_document(task_id: str) -> dict[str, Any]:
    times = {"started_at": "2026-11-22T10:00:00.000Z", "ended_at": "2026-11-22T10:00:02.500Z"}
    history = [{"attempt": n, "worker": "w", "why": "engine_died", "later": 1, **times} for n in (1, 2, 3)]
    error = problem(500, "attempts_exhausted")
    return {"task": {**task_document("failed", error=error), "id": task_id}, "error": error, "history": history}


def test_a_dead_letter_is_read_with_its_history(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, letter_document("task_1")))

    letter = client.dead_letter("task_1")

    assert letter.task.error is not None
    assert (letter.task.id, letter.task.error.code) == ("task_1", "attempts_exhausted")
    assert [(end.attempt, end.worker, end.why) for end in letter.history] == [
        (n, "w", "engine_died") for n in (1, 2, 3)
    ]
    assert letter.history[0].started_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert server.seen[0].path == "/v1/dead-letters/task_1"


def test_an_answer_without_a_task_is_no_dead_letter(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, {"hello": "world"}))

    with pytest.raises(ProtocolError, match="did not answer with a dead letter"):
        client.dead_letter("task_1")


def test_all_pages_of_dead_letters_are_read(server: Server, client: Client) -> None:
    pages = [
        {"data": [letter_document("task_3"), letter_document("task_2")], "next_cursor": "c1"},
        {"data": [letter_document("task_1")], "next_cursor": None},
    ]
    server.will_answer(*(Answer(200, page) for page in pages))

    assert [letter.task.id for letter in client.all_dead_letters()] == ["task_3", "task_2", "task_1"]
    assert [request.path for request in server.seen] == ["/v1/dead-letters", "/v1/dead-letters?cursor=c1"]


def test_replay_and_discard_name_the_dead_letter(server: Server, client: Client) -> None:
    server.will_answer(Answer(202, task_document(run=2)), Answer(204))

    assert client.replay("task_1").run == 2
    client.discard("../task_1")

    assert [(request.method, request.path) for request in server.seen] == [
        ("POST", "/v1/dead-letters/task_1/replay"),
        ("DELETE", "/v1/dead-letters/..%2Ftask_1"),
    ]


def test_models_are_read_tolerantly(server: Server, client: Client) -> None:
    server.will_answer(Answer(200, {"data": [{"id": "ovis2-4b", "workers": 2, "new": 1}, {"id": "ovis2-1b"}]}))

    four, one = client.models()

    assert (four.id, four.workers, four.params_b) == ("ovis2-4b", 2, None)
    assert (one.id, one.workers) == ("ovis2-1b", None)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: Server, opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.will_answer(Answer(200, {"data": []}))

    with opening(server.url, KEY) as client:
        assert client.models() == ()


def test_a_problem_with_one_invalid_value_is_not_said_twice(server: Server, client: Client) -> None:
    said = "there is no such model"
    server.will_answer(Answer(422, problem(422, "x", detail=said, errors=[{"pointer": "/model", "detail": said}])))

    with pytest.raises(ApiError, match=r"^x: there is no such model \[/model\]$"):
        client.models()


def sent(*events: tuple[str, dict[str, Any]]) -> str:
    """A stream's text, with a comment after each event that keeps it alive."""
    return "".join(f"id: {key}\nevent: {body['kind']}\ndata: {json.dumps(body)}\n\n: ping\n\n" for key, body in events)


def test_a_stream_of_events_that_ends_early_is_resumed_after_its_last(server: Server, client: Client) -> None:
    begun = sent(("1-0", {"kind": "status", "run": 1, "status": "running"}))
    rest = sent(
        ("2-0", {"kind": "part", "run": 1, "part": 0, "state": "succeeded", "later": 1}),
        ("3-0", {"kind": "status", "run": 1, "status": "succeeded"}),
    )
    stream = {"Content-Type": "text/event-stream"}
    server.will_answer(Answer(drop=True), Answer(200, begun, stream), Answer(drop=True), Answer(200, rest, stream))

    events = list(client.events("task_1"))

    assert [(event.id, event.kind, event.status or event.state) for event in events] == [
        ("1-0", "status", "running"),
        ("2-0", "part", "succeeded"),
        ("3-0", "status", "succeeded"),
    ]
    assert [request.headers.get("last-event-id") for request in server.seen] == [None, None, "1-0", "1-0"]


def test_nothing_after_the_last_event_is_an_end(server: Server, client: Client) -> None:
    server.will_answer(Answer(204))

    assert list(client.events("task_1", after="9-0")) == []


def test_what_is_no_stream_is_not_taken_for_one(server: Server, client: Client) -> None:
    server.will_answer(Answer(404, problem(404, "not_found")), Answer(200, {"hello": "world"}))

    with pytest.raises(ApiError, match="not_found"):
        next(iter(client.events("task_1")))
    with pytest.raises(ProtocolError, match="did not answer with events"):
        next(iter(client.events("task_1")))


def test_a_large_file_goes_to_the_store_and_the_key_does_not(
    server: Server, other_host: Server, client: Client, tmp_path: Path
) -> None:
    picture = tmp_path / "large.png"
    picture.write_bytes(b"x" * (LARGE_BYTES + 1))
    form = {"url": f"{other_host.url}/ovis", "fields": {"key": "incoming/1", "policy": "p"}}
    server.will_answer(Answer(201, {"id": "upl_1", "post": form}), Answer(202, task_document()))
    other_host.will_answer(Answer(drop=True), Answer(204))

    client.submit(picture, model="m")

    announced, submitted = server.seen
    assert announced.json() == {"size_bytes": LARGE_BYTES + 1, "media_type": "image/png"}
    assert submitted.json() == {"kind": "image", "model": "m", "input": {"upload": "upl_1"}}
    _, again = other_host.seen
    assert KEY not in str(again.headers)
    parts = again.parts()
    assert [part[0] for part in parts] == ["key", "policy", "file"]
    assert (parts[2][2], len(parts[2][3])) == ("image/png", LARGE_BYTES + 1)


def test_a_secret_is_not_rotated_twice(server: Server, client: Client) -> None:
    server.will_answer(Answer(drop=True), Answer(200, {"secret": "whsec_1"}))

    with pytest.raises(UnreachableError):
        client.rotate_webhook_secret()
    assert len(server.seen) == 1


def test_secrets_are_not_part_of_what_is_printed(server: Server, client: Client) -> None:
    server.will_answer(Answer(201, {"id": "we_1", "url": "https://h/", "secret": "whsec_1"}))

    made = client.create_endpoint("https://h/")

    assert made.secret == "whsec_1"
    assert "whsec_1" not in repr(made)


def test_use_and_limits_are_read_with_what_is_nested(server: Server, client: Client) -> None:
    day = {"date": "2026-11-22", "tasks": {"submitted": 2}, "usage": {"pages": 3}}
    limits = ("max_unended_tasks", "unended_tasks", "max_waiting_parts", "max_waiting_bytes", "waiting_bytes")
    limits += ("max_body_bytes", "max_upload_bytes", "max_wait_s")
    server.will_answer(
        Answer(200, {"data": [day], "total": day}), Answer(200, dict.fromkeys(limits, 7)), Answer(200, {"hello": 1})
    )

    used = client.usage(7)

    assert (used.data[0].date, used.total.usage.pages, used.total.tasks) == ("2026-11-22", 3, {"submitted": 2})
    assert client.limits().max_wait_s == 7
    with pytest.raises(ProtocolError, match="did not answer with a set of limits"):
        client.limits()
    assert server.seen[0].path == "/v1/usage?days=7"


def test_waiting_survives_a_gateway_that_goes_away(server: Server, client: Client) -> None:
    gone = [Answer(drop=True)] * 5
    server.will_answer(Answer(200, task_document("running")), *gone, Answer(200, task_document("succeeded")))

    assert client.wait("task_1", timeout_s=60).status == "succeeded"
