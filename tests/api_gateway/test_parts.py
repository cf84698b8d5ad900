"""Pages over HTTP: a document's parts while it runs, its whole result, and its retry."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contract import planned, store
from contract.assembly import MEDIA_TYPES, AssembledFile, Assembly, assembly_key
from contract.errors import InvalidRequest
from contract.redis_io import run
from contract.task import Attempt, Job
from contract.units import PageUnit
from tests.api_gateway.conftest import PNG, Fleet

INPUT = {"base64": base64.b64encode(PNG).decode()}
BODY: dict[str, Any] = {"kind": "document", "model": "ovis2-reader", "input": INPUT}
BROKEN = '{"code":"damaged_document","detail":"page 2 is damaged","retryable":false}'


def claim_job(fleet: Fleet) -> Job:
    job = run(fleet.redis, planned.claim_job(token=uuid4().hex, worker="io-1"))
    assert job is not None
    return job


def submit(fleet: Fleet, api: httpx.Client, num_pages: int = 0, **options: Any) -> str:
    """A document; with its pages planted where there are any."""
    response = api.post("/v1/tasks", json={**BODY, "options": options})
    assert response.status_code == 202, response.text
    if num_pages:
        units = [PageUnit(page=page) for page in range(1, num_pages + 1)]
        assert run(fleet.redis, planned.plant(claim_job(fleet), units, cost=9, summary_cost=None)) == "committed"
    return str(response.json()["id"])


def fail(fleet: Fleet) -> Attempt:
    attempt = fleet.claim()
    assert run(fleet.redis, store.finish(attempt, "failed", error_json=BROKEN)) == "committed"
    return attempt


def assemble(fleet: Fleet, texts: dict[str, str]) -> None:
    job, files = claim_job(fleet), {}
    for form, text in texts.items():
        key = assembly_key(job.tenant, job.task_id, job.claims, form)  # type: ignore[arg-type]
        fleet.blobs.put(key, text.encode(), "text/plain")
        files[form] = AssembledFile(key=key, size_bytes=len(text.encode()))
    assembly = Assembly(files=files, text="short")  # type: ignore[arg-type]
    assert run(fleet.redis, planned.finish_job(job, "succeeded", assembly=assembly)) == "committed"


def test_a_document_is_accepted_at_once_and_says_that_it_is_being_planned(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api)
    task = api.get(f"/v1/tasks/{task_id}").json()
    assert (task["status"], task["stage"], task["progress"]["parts_total"]) == ("queued", "planning", 0)
    assert api.get(f"/v1/tasks/{task_id}/parts").json() == {"data": [], "next_cursor": None}
    early = api.get(f"/v1/tasks/{task_id}/parts/0")
    assert (early.status_code, early.json()["code"]) == (409, "result_not_ready")
    assert "planned" in early.json()["detail"]


def test_pages_are_read_one_by_one_while_the_others_wait(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 4)
    fleet.succeed(fleet.claim(), "page one")
    fail(fleet)
    fleet.claim()
    task = api.get(f"/v1/tasks/{task_id}").json()
    assert (task["status"], task["stage"]) == ("running", "parts")
    assert task["progress"] == {"parts_total": 4, "parts_done": 1, "parts_failed": 1}
    assert task["usage"]["images"] == 1
    parts = api.get(f"/v1/tasks/{task_id}/parts").json()["data"]
    assert [part["state"] for part in parts] == ["succeeded", "failed", "running", "waiting"]
    assert parts[1]["error"]["code"] == "damaged_document"
    document = api.get(parts[0]["result_url"]).json()
    assert (document["text"], document["unit"]) == ("page one", {"kind": "page", "page": 1})
    assert api.get(parts[0]["result_url"], params={"format": "markdown"}).text == "page one"
    for part, said in ((1, "damaged_document: page 2"), (2, "is running"), (3, "is waiting")):
        problem = api.get(f"/v1/tasks/{task_id}/parts/{part}")
        assert (problem.status_code, problem.json()["code"]) == (409, "result_not_ready")
        assert said in problem.json()["detail"]


def test_a_part_that_is_not_there_or_is_anothers_is_not_found(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 2)
    missing = api.get(f"/v1/tasks/{task_id}/parts/2")
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "the task has 2 parts, numbered from 0; there is none 2",
    )
    assert fleet.caller("other").get(f"/v1/tasks/{task_id}/parts/0").status_code == 404
    assert fleet.caller("other").get(f"/v1/tasks/{task_id}/parts").status_code == 404
    assert api.get(f"/v1/tasks/{task_id}/parts/-1").status_code == 422
    fleet.succeed(fleet.claim())
    no_times = api.get(f"/v1/tasks/{task_id}/parts/0", params={"format": "vtt"})
    assert (no_times.status_code, no_times.json()["errors"][0]["parameter"]) == (422, "format")


def test_parts_are_listed_in_pages_and_by_state(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 7)
    fail(fleet)
    fleet.succeed(fleet.claim())
    fail(fleet)
    path, seen, cursor = f"/v1/tasks/{task_id}/parts", [], None
    while True:
        page = api.get(path, params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [part["part"] for part in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(7))
    failed = api.get(path, params={"state": "failed", "limit": 1}).json()
    assert [part["part"] for part in failed["data"]] == [0]
    rest = api.get(path, params={"state": "failed", "cursor": failed["next_cursor"]}).json()
    assert ([part["part"] for part in rest["data"]], rest["next_cursor"]) == ([2], None)
    assert api.get(path, params={"cursor": "zzz"}).status_code == 422


def test_the_whole_result_comes_in_every_form_it_has(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 1)
    assert api.get(f"/v1/tasks/{task_id}/result").status_code == 409
    fleet.succeed(fleet.claim())
    texts = {"json": '{"parts":[]}', "text": "plain", "markdown": "x" * 300_000}
    assemble(fleet, texts)
    task = api.get(f"/v1/tasks/{task_id}").json()
    assert (task["status"], task["stage"], task["result"]["text"]) == ("succeeded", None, "short")
    for form in ("json", "text"):
        answer = api.get(f"/v1/tasks/{task_id}/result", params={"format": form})
        assert (answer.text, answer.headers["content-type"].partition(";")[0]) == (texts[form], MEDIA_TYPES[form])  # type: ignore[index]
    large = api.get(f"/v1/tasks/{task_id}/result", params={"format": "markdown"})
    assert large.status_code == 303
    assert httpx.get(large.headers["location"]).text == texts["markdown"]
    assert api.get(f"/v1/tasks/{task_id}/result", params={"format": "vtt"}).status_code == 422


def test_a_document_with_failed_pages_is_retried_for_those_only(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 2)
    fleet.succeed(fleet.claim())
    fail(fleet)
    assemble(fleet, {"json": "{}"})
    assert api.get(f"/v1/tasks/{task_id}").json()["progress"]["parts_failed"] == 1
    again = api.post(f"/v1/tasks/{task_id}/retry")
    assert (again.status_code, again.json()["status"], again.json()["run"]) == (202, "queued", 2)
    attempt = fleet.claim()
    assert attempt.unit == PageUnit(page=2)
    fleet.succeed(attempt)
    assemble(fleet, {"json": "{}"})
    refused = api.post(f"/v1/tasks/{task_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_status")


def test_a_canceled_retry_leaves_the_result_that_was_there(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 2)
    fleet.succeed(fleet.claim())
    fail(fleet)
    assemble(fleet, {"json": '{"parts":[]}'})
    api.post(f"/v1/tasks/{task_id}/retry")
    assert api.get(f"/v1/tasks/{task_id}/result").status_code == 409
    assert api.post(f"/v1/tasks/{task_id}/cancel").json()["status"] == "canceled"
    task = api.get(f"/v1/tasks/{task_id}").json()
    assert (task["result"]["text"], task["result_url"]) == ("short", f"/v1/tasks/{task_id}/result")
    assert api.get(f"/v1/tasks/{task_id}/result").json() == {"parts": []}


def test_a_plans_error_names_the_option_that_is_wrong(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api)
    error = InvalidRequest("no page is meant", "/options/pages").info().model_dump_json()
    run(fleet.redis, planned.finish_job(claim_job(fleet), "failed", error_json=error))
    told = api.get(f"/v1/tasks/{task_id}").json()["error"]
    assert told["errors"] == [{"detail": "no page is meant", "pointer": "/options/pages", "parameter": None}]


def test_a_dead_document_tells_of_every_page_that_died(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, api, 2, on_page_failure="fail")
    fleet.succeed(fleet.claim())
    assert fleet.exhaust() == task_id
    letter = api.get(f"/v1/dead-letters/{task_id}").json()
    assert [(line["part"], line["attempt"]) for line in letter["history"]] == [(1, 1), (1, 2), (1, 3)]
    assert api.get("/v1/dead-letters").json()["data"] == [letter]


@pytest.mark.parametrize("pages", ["0", "2-1", "1,,2"])
def test_pages_that_make_no_sense_are_refused_at_once(fleet: Fleet, api: httpx.Client, pages: str) -> None:
    answer = api.post("/v1/tasks", json={**BODY, "options": {"pages": pages}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/options/pages")
    assert fleet.task_ids() == []


def test_a_document_is_one_file(fleet: Fleet, api: httpx.Client) -> None:
    answer = api.post("/v1/tasks", json={"kind": "document", "model": "ovis2-reader", "inputs": [INPUT, INPUT]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/inputs")
