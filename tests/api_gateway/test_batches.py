"""Files and batches over HTTP, in OpenAI's wire format; the test takes the io worker's steps where some are needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from api_gateway.stored_results import MAX_PASSED_BYTES
from contract.batches import BatchTerms, batch_key
from contract.files import file_key
from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess, memory_peak_bytes
from workers.batches import batch_keeper
from workers.settings import WorkerSettings
from workers.sweep import sweep_orphans

LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "ovis2-reader", "messages": [{"role": "user", "content": "Say hello."}]},
}
JSONL = json.dumps(LINE).encode() + b"\n"


def upload(api: httpx.Client, content: bytes = JSONL, purpose: str = "batch", **headers: str) -> httpx.Response:
    files = {"file": ("in.jsonl", content)}
    return api.post("/v1/files", data={"purpose": purpose}, files=files, headers=headers)


def create(api: httpx.Client, file_id: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return api.post("/v1/batches", json=body, headers=headers or {})


def step(fleet: Fleet) -> None:
    """What an io worker does at one look."""
    values: dict[str, Any] = {name.removeprefix("OVIS_").lower(): value for name, value in fleet.stack.env.items()}
    keeper = batch_keeper(WorkerSettings(**values), CollectorRegistry(), fleet.redis, fleet.blobs)
    for batch_id in fleet.redis.zrange("ovis:batches-due", 0, -1):
        fleet.redis.zadd("ovis:batches-due", {batch_id: 0})
    assert keeper.look()


def test_a_file_is_kept_read_listed_and_deleted(fleet: Fleet, api: httpx.Client) -> None:
    made = upload(api)
    assert made.status_code == 200, made.text
    file = made.json()
    assert (file["object"], file["bytes"], file["filename"], file["purpose"]) == (
        "file",
        len(JSONL),
        "in.jsonl",
        "batch",
    )
    assert file["expires_at"] - file["created_at"] == 30 * 86_400
    assert api.get(f"/v1/files/{file['id']}").json() == file
    assert api.get("/v1/files").json() == {
        "object": "list",
        "data": [file],
        "first_id": file["id"],
        "last_id": file["id"],
        "has_more": False,
    }
    content = api.get(f"/v1/files/{file['id']}/content")
    assert (content.content, content.headers["content-type"]) == (JSONL, "application/jsonl")
    assert api.get("/v1/limits").json()["file_bytes"] == len(JSONL)

    assert api.delete(f"/v1/files/{file['id']}").json() == {"id": file["id"], "object": "file", "deleted": True}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert api.request(method, f"/v1/files/{file['id']}{path}").status_code == 410
    assert fleet.keys("files/") == []
    assert api.get("/v1/limits").json()["file_bytes"] == 0


def test_a_long_file_is_read_from_the_blob_store(fleet: Fleet, api: httpx.Client) -> None:
    content = b"x" * (MAX_PASSED_BYTES + 1)
    file_id = upload(api, content).json()["id"]
    answer = api.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 303
    assert httpx.get(answer.headers["location"]).content == content


def test_a_file_longer_than_other_bodies_is_never_whole_in_memory(
    fleet: Fleet, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_FILE_MAX_BYTES=str(64 * 1024**2), OVIS_MAX_BODY_BYTES="100000")
    headers = {"Authorization": f"Bearer {KEYS['acme']}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as api:
        assert upload(api).status_code == 200
        before = memory_peak_bytes(gateway.process.pid)
        assert upload(api, b"y" * 60 * 1024**2).status_code == 200
        assert memory_peak_bytes(gateway.process.pid) - before < 40 * 1024**2
        refused = upload(api, b"y" * (64 * 1024**2 + 1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
        assert upload(api, b"y" * (65 * 1024**2 + 1)).status_code == 413
        assert api.post("/v1/tasks", content=b"z" * 100_001).status_code == 413


@pytest.mark.parametrize(
    ("form", "files", "param"),
    [
        ({"purpose": "batch"}, {}, "file"),
        ({}, {"file": ("a", JSONL)}, "purpose"),
        ({"purpose": "fine-tune"}, {"file": ("a", JSONL)}, "purpose"),
        ({"purpose": "batch"}, {"file": ("a", b"")}, "file"),
        ({"purpose": "batch", "more": "1"}, {"file": ("a", JSONL)}, "more"),
        ({"purpose": "batch", "expires_after[seconds]": "4000"}, {"file": ("a", JSONL)}, "expires_after"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            {"file": ("a", JSONL)},
            "expires_after",
        ),
    ],
    ids=["no file", "no purpose", "purpose", "empty", "unknown", "no anchor", "seconds"],
)
def test_a_wrong_form_is_refused(
    fleet: Fleet, api: httpx.Client, form: dict[str, str], files: dict[str, Any], param: str
) -> None:
    refused = api.post("/v1/files", data=form, files=files or {"other": (None, "x")})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in (param, "other")
    assert fleet.keys("files/") == []


def test_a_body_of_another_type_is_refused(api: httpx.Client) -> None:
    assert api.post("/v1/files", json={}).status_code == 415


def test_a_file_may_say_for_how_long_it_is_kept(api: httpx.Client) -> None:
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = api.post("/v1/files", data=form, files={"file": ("a", JSONL)}).json()
    assert file["expires_at"] - file["created_at"] == 3600


def test_one_idempotency_key_makes_one_file(fleet: Fleet, api: httpx.Client) -> None:
    first, second = (upload(api, **{"Idempotency-Key": "k"}).json() for _ in range(2))
    assert first == second
    assert len(fleet.keys("files/")) == 1
    other = upload(api, b"other\n", **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_conflict")


def test_lists_lead_on_in_both_orders(api: httpx.Client) -> None:
    ids = [upload(api).json()["id"] for _ in range(5)]
    for order, expected in (("desc", ids[::-1]), ("asc", ids)):
        seen, after = [], None
        while True:
            page = api.get(
                "/v1/files", params={"limit": 2, "order": order, **({"after": after} if after else {})}
            ).json()
            seen += [file["id"] for file in page["data"]]
            if not page["has_more"]:
                break
            after = page["last_id"]
        assert seen == expected
    assert api.get("/v1/files", params={"purpose": "batch_output"}).json()["data"] == []
    assert api.get("/v1/files", params={"after": "nothing"}).status_code == 400


def test_a_tenant_has_room_for_so_many_bytes(fleet: Fleet) -> None:
    small = fleet.caller("small")
    assert upload(small, b"x" * 2000).status_code == 200
    refused = upload(small, b"x" * 2000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert len(fleet.keys("files/small/")) == 1


def test_a_batch_is_accepted_read_and_listed(fleet: Fleet, api: httpx.Client) -> None:
    file_id = upload(api).json()["id"]
    made = create(api, file_id, metadata={"job": "7"})
    assert made.status_code == 200, made.text
    batch = made.json()
    assert (batch["object"], batch["status"], batch["input_file_id"]) == ("batch", "validating", file_id)
    assert batch["expires_at"] - batch["created_at"] == 86_400
    assert batch["metadata"] == {"job": "7"}
    assert api.get(f"/v1/batches/{batch['id']}").json() == batch
    assert api.get("/v1/batches").json()["data"] == [batch]
    refused = api.delete(f"/v1/files/{file_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "wrong_status")

    terms = BatchTerms.model_validate_json(str(fleet.redis.hget(batch_key(batch["id"]), "terms")))
    assert list(terms.tenant.all_keys()) == []
    assert (terms.tenant.id, terms.statuses["not_found"], terms.statuses["invalid_request"]) == ("acme", 404, 400)


def test_a_batch_is_run_to_its_end(fleet: Fleet, api: httpx.Client) -> None:
    wrong = {**LINE, "custom_id": "b", "body": {**LINE["body"], "model": "gpt-9"}}  # type: ignore[dict-item]
    file_id = upload(api, JSONL + json.dumps(wrong).encode()).json()["id"]
    batch_id = create(api, file_id).json()["id"]
    step(fleet)
    assert api.get(f"/v1/batches/{batch_id}").json()["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
    step(fleet)
    fleet.succeed(fleet.claim(), "hello there")
    assert api.get(f"/v1/batches/{batch_id}").json()["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    step(fleet)
    step(fleet)

    batch = api.get(f"/v1/batches/{batch_id}").json()
    assert (batch["status"], batch["usage"]["total_tokens"]) == ("completed", 12)
    (answer,) = api.get(f"/v1/files/{batch['output_file_id']}/content").text.splitlines()
    assert json.loads(answer)["response"]["body"]["choices"][0]["message"]["content"] == "hello there"
    (error,) = api.get(f"/v1/files/{batch['error_file_id']}/content").text.splitlines()
    assert json.loads(error)["response"]["status_code"] == 404
    outputs = api.get("/v1/files", params={"purpose": "batch_output"}).json()["data"]
    assert {file["id"] for file in outputs} == {batch["output_file_id"], batch["error_file_id"]}
    assert create(api, batch["output_file_id"]).json()["error"]["param"] == "input_file_id"
    assert api.delete(f"/v1/files/{file_id}").status_code == 200

    canceled = api.post(f"/v1/batches/{batch_id}/cancel")
    assert (canceled.status_code, canceled.json()["error"]["code"]) == (400, "wrong_status")
    fleet.redis.delete(file_key(batch["error_file_id"]))
    assert sweep_orphans(fleet.redis, fleet.blobs, min_age_s=0) == 1
    assert len(fleet.keys("files/")) == 1


def test_what_is_wrong_with_a_file_is_told(fleet: Fleet, api: httpx.Client) -> None:
    batch_id = create(api, upload(api, JSONL + JSONL).json()["id"]).json()["id"]
    step(fleet)
    batch = api.get(f"/v1/batches/{batch_id}").json()
    assert batch["status"] == "failed"
    assert batch["failed_at"] >= batch["created_at"]
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == ("duplicate_custom_id", 2, "custom_id")


def test_cancel_is_answered_at_once_and_repeated_without_harm(fleet: Fleet, api: httpx.Client) -> None:
    batch_id = create(api, upload(api).json()["id"]).json()["id"]
    for _ in range(2):
        canceled = api.post(f"/v1/batches/{batch_id}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "cancelling")
    step(fleet)
    assert api.get(f"/v1/batches/{batch_id}").json()["status"] == "cancelled"


def test_one_idempotency_key_makes_one_batch(api: httpx.Client) -> None:
    file_id = upload(api).json()["id"]
    first, second = (create(api, file_id, {"Idempotency-Key": "k"}).json() for _ in range(2))
    assert first == second
    assert create(api, file_id, {"Idempotency-Key": "k"}, metadata={"a": "b"}).status_code == 400
    assert len(api.get("/v1/batches").json()["data"]) == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-" + "0" * 32}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1d"}, "completion_window"),
        ({"completion_window": "169h"}, "completion_window"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"more": 1}, "more"),
    ],
    ids=["file", "endpoint", "unit", "window", "metadata", "unknown"],
)
def test_a_wrong_batch_is_refused(api: httpx.Client, change: dict[str, Any], param: str) -> None:
    refused = create(api, upload(api).json()["id"], **change)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_tenant_has_so_many_batches_at_a_time(fleet: Fleet, start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(OVIS_BATCH_MAX_UNENDED="1")
    headers = {"Authorization": f"Bearer {KEYS['acme']}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as api:
        file_id = upload(api).json()["id"]
        assert create(api, file_id).status_code == 200
        refused = create(api, file_id)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "tenant_queue_full")


def test_another_tenants_files_and_batches_are_not_there(fleet: Fleet, api: httpx.Client) -> None:
    file_id = upload(api).json()["id"]
    batch_id = create(api, file_id).json()["id"]
    other = fleet.caller("other")
    assert create(other, file_id).json()["error"]["param"] == "input_file_id"
    for method, path in (
        ("GET", f"files/{file_id}"),
        ("GET", f"files/{file_id}/content"),
        ("DELETE", f"files/{file_id}"),
        ("GET", f"batches/{batch_id}"),
        ("POST", f"batches/{batch_id}/cancel"),
    ):
        assert other.request(method, f"/v1/{path}").status_code == 404
    assert (other.get("/v1/files").json()["data"], other.get("/v1/batches").json()["data"]) == ([], [])
    assert api.get(f"/v1/batches/{batch_id}").json()["status"] == "validating"
