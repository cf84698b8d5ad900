"""Lists: newest first, page by page, filtered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract import submissions
from contract.redis_io import run
from contract.submissions import Submission
from contract.task import TaskSpec, new_task_id
from tests.api_gateway.conftest import Fleet


def submit(fleet: Fleet, tenant: str = "acme", **fields: Any) -> str:
    defaults: dict[str, Any] = {"kind": "text", "model": "ovis2-reader", "operation": "ask", "prompt": "x"}
    spec = TaskSpec(**(defaults | fields))
    submission = Submission(new_task_id(), tenant, spec, 1, 1.0, 10_000, 10_000)
    return run(fleet.redis, submissions.submit(submission))[1]


def walk(api: httpx.Client, **params: Any) -> list[list[str]]:
    pages = []
    cursor: str | None = None
    while True:
        page = api.get("/v1/tasks", params={**params, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        pages.append([task["id"] for task in page.json()["data"]])
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return pages


def test_no_tasks_are_an_empty_page(fleet: Fleet, api: httpx.Client) -> None:
    assert api.get("/v1/tasks").json() == {"data": [], "next_cursor": None}


def test_pages_hold_every_task_once_newest_first(fleet: Fleet, api: httpx.Client) -> None:
    ids = sorted(submit(fleet) for _ in range(7))

    pages = walk(api, limit=3)

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [task_id for page in pages for task_id in page] == ids[::-1]


def test_full_last_page_leads_nowhere(fleet: Fleet, api: httpx.Client) -> None:
    for _ in range(4):
        submit(fleet)

    assert [len(page) for page in walk(api, limit=2)] == [2, 2]


def test_tasks_that_come_meanwhile_disturb_no_page(fleet: Fleet, api: httpx.Client) -> None:
    ids = sorted(submit(fleet) for _ in range(4))
    first = api.get("/v1/tasks", params={"limit": 2}).json()
    submit(fleet)

    second = api.get("/v1/tasks", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [task["id"] for task in first["data"] + second["data"]] == ids[::-1]


def test_item_of_a_list_reads_as_the_task_does(fleet: Fleet, api: httpx.Client) -> None:
    task_id = submit(fleet, metadata={"order": "42"})

    (item,) = api.get("/v1/tasks").json()["data"]

    assert item == api.get(f"/v1/tasks/{task_id}").json()


def test_another_tenants_tasks_are_not_listed(fleet: Fleet, api: httpx.Client) -> None:
    submit(fleet, tenant="other")

    assert walk(api) == [[]]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"status": "queued"}, {"large", "order", "both"}),
        ({"status": "succeeded"}, {"done"}),
        ({"model": "ovis2-4b"}, {"large"}),
        ({"model": "unheard-of"}, set()),
        ({"kind": "text"}, {"done", "large", "order", "both"}),
        ({"kind": "image"}, set()),
        ({"metadata[order]": "42"}, {"order", "both"}),
        ({"metadata[order]": "42", "metadata[page]": "1"}, {"both"}),
        ({"metadata[order]": "43"}, set()),
        ({"status": "queued", "model": "ovis2-reader", "metadata[page]": "1"}, {"both"}),
    ],
)
def test_filters_keep_what_fits(fleet: Fleet, api: httpx.Client, params: dict[str, str], expected: set[str]) -> None:
    names = {submit(fleet): "done"}
    fleet.succeed(fleet.claim())
    names[submit(fleet, model="ovis2-4b")] = "large"
    names[submit(fleet, metadata={"order": "42"})] = "order"
    names[submit(fleet, metadata={"order": "42", "page": "1"})] = "both"

    found = [names[task_id] for page in walk(api, **params) for task_id in page]

    assert sorted(found) == sorted(expected)


def test_rare_match_is_found_behind_bounded_pages(fleet: Fleet, api: httpx.Client) -> None:
    needle = submit(fleet, metadata={"needle": "yes"})
    with fleet.redis.pipeline(transaction=False) as pipe:
        for _ in range(1500):
            pipe.zadd("ovis:index:acme", {new_task_id(): 0})
        pipe.execute()

    pages = walk(api, **{"metadata[needle]": "yes"})

    assert len(pages) > 1, "one request should not look at them all"
    assert [task_id for page in pages for task_id in page] == [needle]
