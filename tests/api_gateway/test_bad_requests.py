"""Bad input: a typed problem that names the value, and nothing kept."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from tests.api_gateway.conftest import PNG, Fleet

INLINE = {"base64": base64.b64encode(PNG).decode(), "media_type": "image/png"}
IMAGE: dict[str, Any] = {"kind": "image", "model": "ovis2-reader", "input": INLINE}
TEXT: dict[str, Any] = {"kind": "text", "model": "ovis2-reader", "prompt": "Say hello."}


def picture(**source: Any) -> dict[str, Any]:
    return {**IMAGE, "input": source}


CASES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no kind": ({"model": "ovis2-reader"}, 422, "invalid_request", "/kind"),
    "unknown kind": ({**TEXT, "kind": "sound"}, 422, "invalid_request", "/kind"),
    "unknown model": ({**TEXT, "model": "gpt-9"}, 422, "invalid_request", "/model"),
    "field of a later version": ({**TEXT, "callback": "https://a.b"}, 422, "invalid_request", "/callback"),
    "webhook inside": ({**TEXT, "webhook": {"url": "https://127.1/x"}}, 422, "url_not_allowed", "/webhook/url"),
    "unknown event": (
        {**TEXT, "webhook": {"url": "https://a.b", "events": ["task.gone"]}},
        422,
        "invalid_request",
        "/webhook/events/0",
    ),
    "unknown option": ({**TEXT, "options": {"page": "1-2"}}, 422, "invalid_request", "/options/page"),
    "number as text": ({**TEXT, "retention_s": "60"}, 422, "invalid_request", "/retention_s"),
    "no retention": ({**TEXT, "retention_s": 0}, 422, "invalid_request", "/retention_s"),
    "retention for years": ({**TEXT, "retention_s": 10**9}, 422, "invalid_request", "/retention_s"),
    "no time at all": ({**TEXT, "deadline_s": 0}, 422, "invalid_request", "/deadline_s"),
    "deadline in weeks": ({**TEXT, "deadline_s": 604_801}, 422, "invalid_request", "/deadline_s"),
    "part of a second": ({**TEXT, "deadline_s": 1.5}, 422, "invalid_request", "/deadline_s"),
    "unknown priority": ({**TEXT, "priority": "urgent"}, 422, "invalid_request", "/priority"),
    "too much metadata": ({**TEXT, "metadata": {str(n): "" for n in range(33)}}, 422, "invalid_request", "/metadata"),
    "long metadata": ({**TEXT, "metadata": {"a/b": "x" * 513}}, 422, "invalid_request", "/metadata/a~1b"),
    "metadata that isn't text": ({**TEXT, "metadata": {"a": 1}}, 422, "invalid_request", "/metadata/a"),
    "blank prompt": ({**TEXT, "prompt": "  "}, 422, "invalid_request", "/prompt"),
    "long prompt": ({**TEXT, "prompt": "x" * 100_001}, 422, "invalid_request", "/prompt"),
    "ask without prompt": ({**IMAGE, "operation": "ask"}, 422, "invalid_request", "/prompt"),
    "text without prompt": ({"kind": "text", "model": "ovis2-reader"}, 422, "invalid_request", "/prompt"),
    "text that wants ocr": ({**TEXT, "operation": "ocr"}, 422, "invalid_request", "/operation"),
    "text with a picture": ({**TEXT, "input": INLINE}, 422, "invalid_request", "/input"),
    "image without picture": ({"kind": "image", "model": "ovis2-reader"}, 422, "invalid_request", "/input"),
    "no inputs": ({"kind": "image", "model": "ovis2-reader", "inputs": []}, 422, "invalid_request", "/input"),
    "33 pictures": (
        {"kind": "image", "model": "ovis2-4b", "inputs": [INLINE] * 33},
        422,
        "invalid_request",
        "/inputs",
    ),
    "input and inputs": ({**IMAGE, "inputs": [INLINE]}, 422, "invalid_request", ""),
    "two sources": (picture(url="https://a.b/c", s3="s3://ovis/uploads/a"), 422, "invalid_request", "/input"),
    "no source": (picture(), 422, "invalid_request", "/input"),
    "type without bytes": (picture(url="https://a.b/c", media_type="image/png"), 422, "invalid_request", "/input"),
    "base64 that isn't": (picture(base64="###"), 422, "invalid_request", "/input/base64"),
    "base64 with a line break": (picture(base64="aGVs\nbG8="), 422, "invalid_request", "/input/base64"),
    "base64 without padding": (picture(base64="aGVsbG8"), 422, "invalid_request", "/input/base64"),
    "base64 beyond ASCII": (picture(base64="äää="), 422, "invalid_request", "/input/base64"),
    "base64 of nothing": (picture(base64=""), 422, "invalid_request", "/input/base64"),
    "odd media type": (picture(base64="aGVsbG8=", media_type="a\r\nb"), 422, "invalid_request", "/input/media_type"),
    "metadata service": (picture(url="https://169.254.169.254/x"), 422, "url_not_allowed", "/input/url"),
    "localhost": (picture(url="https://localhost/x"), 422, "url_not_allowed", "/input/url"),
    "loopback in hex": (picture(url="https://0x7f000001/x"), 422, "url_not_allowed", "/input/url"),
    "loopback in IPv6": (picture(url="https://[::1]/x"), 422, "url_not_allowed", "/input/url"),
    "private network": (picture(url="https://10.0.0.1/x"), 422, "url_not_allowed", "/input/url"),
    "file": (picture(url="file:///etc/passwd"), 422, "url_not_allowed", "/input/url"),
    "plain http": (picture(url="http://example.com/x"), 422, "url_not_allowed", "/input/url"),
    "URL with a password": (picture(url="https://u:p@example.com/"), 422, "url_not_allowed", "/input/url"),
    "URL with a line break": (picture(url="https://example.com/\r\nx"), 422, "invalid_request", "/input/url"),
    "second URL": (
        {"kind": "image", "model": "ovis2-4b", "inputs": [INLINE, {"url": "https://127.0.0.1/"}]},
        422,
        "url_not_allowed",
        "/inputs/1/url",
    ),
    "another bucket": (picture(s3="s3://secrets/uploads/a"), 403, "s3_not_allowed", "/input/s3"),
    "another prefix": (picture(s3="s3://ovis/results/other/x"), 403, "s3_not_allowed", "/input/s3"),
    "out of the prefix": (picture(s3="s3://ovis/uploads/../results/x"), 422, "invalid_request", "/input/s3"),
    "not an s3 address": (picture(s3="https://ovis/uploads/a"), 422, "invalid_request", "/input/s3"),
    "partition over the model's": (
        {**IMAGE, "options": {"max_partition": 2}},
        422,
        "invalid_request",
        "/options/max_partition",
    ),
    "no partition": ({**IMAGE, "options": {"max_partition": 0}}, 422, "invalid_request", "/options/max_partition"),
    "output over the context": (
        {**TEXT, "options": {"max_new_tokens": 4096}},
        422,
        "context_too_long",
        "/options/max_new_tokens",
    ),
    "pictures over the context": (
        {"kind": "image", "model": "ovis2-reader", "inputs": [INLINE] * 7},
        422,
        "context_too_long",
        "/options/max_new_tokens",
    ),
}


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"].endswith(code)
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    return problem


def assert_nothing_kept(fleet: Fleet) -> None:
    assert fleet.task_ids() == []
    assert fleet.keys() == []


@pytest.mark.parametrize(("body", "status", "code", "pointer"), CASES.values(), ids=CASES)
def test_bad_value_is_named_and_nothing_is_kept(
    fleet: Fleet, api: httpx.Client, body: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    problem = assert_problem(api.post("/v1/tasks", json=body), status, code)

    assert problem["retryable"] is False
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert_nothing_kept(fleet)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"not json", b'{"kind": "text",}', b"\xff\xfe{}", b"[" * 100_000, b'{"kind": "\\ud800"}'],
    ids=["empty", "cut", "words", "comma", "not UTF-8", "deep", "lone surrogate"],
)
def test_malformed_json_is_400(fleet: Fleet, api: httpx.Client, body: bytes) -> None:
    response = api.post("/v1/tasks", content=body, headers={"Content-Type": "application/json"})

    assert_problem(response, 400, "malformed_request")
    assert_nothing_kept(fleet)


def test_wrong_value_is_never_echoed(fleet: Fleet, api: httpx.Client) -> None:
    response = api.post("/v1/tasks", json={**TEXT, "priority": "hunter2", "retention_s": "hunter2"})

    problem = assert_problem(response, 422, "invalid_request")
    assert len(problem["errors"]) == 2
    assert "hunter2" not in response.text


def test_thousands_of_wrong_fields_give_a_short_answer(fleet: Fleet, api: httpx.Client) -> None:
    response = api.post("/v1/tasks", json={**TEXT, **{f"field{n}": 1 for n in range(5000)}})

    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""],
    ids=["text", "form", "xml", "none"],
)
def test_other_content_types_are_415(fleet: Fleet, api: httpx.Client, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = api.post("/v1/tasks", content=json.dumps(TEXT).encode(), headers=headers)

    assert_problem(response, 415, "unsupported_media")
    assert_nothing_kept(fleet)


TASK_PART = ("task", (None, json.dumps({"kind": "image", "model": "ovis2-reader"}).encode(), "application/json"))
FILE_PART = ("file", ("a.png", PNG, "image/png"))
BAD_FORMS: dict[str, tuple[list[Any], int, str]] = {
    "no task": ([FILE_PART], 422, "invalid_request"),
    "two tasks": ([TASK_PART, TASK_PART, FILE_PART], 422, "invalid_request"),
    "no file": ([TASK_PART], 422, "invalid_request"),
    "empty file": ([TASK_PART, ("file", ("a.png", b"", "image/png"))], 422, "invalid_request"),
    "unknown part": ([TASK_PART, FILE_PART, ("thumbnail", ("t.png", PNG, "image/png"))], 422, "invalid_request"),
    "task that isn't JSON": ([("task", (None, b"{", "application/json")), FILE_PART], 400, "malformed_request"),
    "33 files": ([TASK_PART, *([FILE_PART] * 33)], 422, "invalid_request"),
    "hundreds of files": ([TASK_PART, *([FILE_PART] * 200)], 400, "malformed_request"),
    "input beside the file": (
        [("task", (None, json.dumps(IMAGE).encode(), "application/json")), FILE_PART],
        422,
        "invalid_request",
    ),
}


@pytest.mark.parametrize(("files", "status", "code"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_bad_form_is_refused_and_nothing_is_kept(
    fleet: Fleet, api: httpx.Client, files: list[Any], status: int, code: str
) -> None:
    assert_problem(api.post("/v1/tasks", files=files), status, code)
    assert_nothing_kept(fleet)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\n{'),
    ],
    ids=["no boundary", "no parts", "cut"],
)
def test_broken_multipart_is_refused(fleet: Fleet, api: httpx.Client, content_type: str, body: bytes) -> None:
    response = api.post("/v1/tasks", content=body, headers={"Content-Type": content_type})

    assert response.status_code in {400, 422}
    assert response.headers["Content-Type"] == "application/problem+json"
    assert_nothing_kept(fleet)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/tasks/", 404, "not_found"),
        ("DELETE", "/v1/tasks", 405, "method_not_allowed"),
        ("GET", "/v1/tasks?limit=0", 422, "invalid_request"),
        ("GET", "/v1/tasks?limit=101", 422, "invalid_request"),
        ("GET", "/v1/tasks?status=PENDING", 422, "invalid_request"),
        ("GET", "/v1/tasks?kind=audio", 422, "invalid_request"),
        ("GET", "/v1/tasks?statuss=queued", 422, "invalid_request"),
        ("GET", "/v1/tasks?cursor=%2e%2e", 422, "invalid_request"),
        ("GET", "/v1/tasks?cursor=bm9wZQ", 422, "invalid_request"),
        ("GET", "/v1/dead-letters?limit=0", 422, "invalid_request"),
        ("GET", "/v1/dead-letters?cursor=", 422, "invalid_request"),
        ("GET", "/v1/dead-letters?cursor=bm9wZQ", 422, "invalid_request"),
        ("POST", "/v1/dead-letters/task_0", 405, "method_not_allowed"),
        ("GET", "/v1/tasks/task_0?wait=soon", 422, "invalid_request"),
        ("GET", "/v1/tasks/task_0?wait=-1", 422, "invalid_request"),
        ("GET", "/v1/tasks/task_0?wait=nan", 422, "invalid_request"),
        ("GET", "/v1/tasks/task_0/result?format=pdf", 422, "invalid_request"),
    ],
)
def test_bad_path_or_parameter_is_a_problem(
    fleet: Fleet, api: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    assert_problem(api.request(method, path), status, code)


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"\xe4"], ids=["empty", "space", "long", "umlaut"])
def test_odd_idempotency_key_is_refused(fleet: Fleet, api: httpx.Client, key: bytes) -> None:
    response = api.post("/v1/tasks", json=TEXT, headers=[(b"Idempotency-Key", key)])

    problem = assert_problem(response, 422, "invalid_request")
    assert problem["errors"][0]["parameter"] == "Idempotency-Key"
    assert_nothing_kept(fleet)


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer sk-wrong", "Bearer", "Basic c2stYWNtZQ==", "sk-acme-0123456789"],
    ids=["none", "unknown", "empty", "basic", "bare"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/tasks"),
        ("GET", "/v1/tasks"),
        ("GET", "/v1/tasks/task_0"),
        ("GET", "/v1/tasks/task_0/result"),
        ("POST", "/v1/tasks/task_0/cancel"),
        ("POST", "/v1/tasks/task_0/retry"),
        ("DELETE", "/v1/tasks/task_0"),
        ("GET", "/v1/dead-letters"),
        ("GET", "/v1/dead-letters/task_0"),
        ("POST", "/v1/dead-letters/task_0/replay"),
        ("DELETE", "/v1/dead-letters/task_0"),
        ("GET", "/v1/models"),
    ],
)
def test_wrong_key_is_401(fleet: Fleet, authorization: str | None, method: str, path: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = fleet.caller("nobody").request(method, path, headers=headers)

    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert "sk-" not in response.text.replace("sk-...", "")
    assert_nothing_kept(fleet)


def test_request_id_of_the_caller_is_kept_if_it_is_plain(fleet: Fleet, api: httpx.Client) -> None:
    kept = api.get("/nowhere", headers={"X-Request-Id": "order-42"})
    replaced = api.get("/nowhere", headers={"X-Request-Id": "a b"})

    assert kept.headers["X-Request-Id"] == kept.json()["request_id"] == "order-42"
    assert replaced.headers["X-Request-Id"] != "a b"
