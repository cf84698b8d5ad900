"""Dead letters: listed, inspected, replayed, discarded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from contract.store import dead_letters_key
from tests.api_gateway.conftest import Fleet


@pytest.fixture
def dead(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> str:
    """A task of acme's that is a dead letter."""
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]
    assert fleet.exhaust() == task_id
    return str(task_id)


def walk(api: httpx.Client, limit: int) -> list[list[str]]:
    pages = []
    cursor: str | None = None
    while True:
        page = api.get("/v1/dead-letters", params={"limit": limit, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        pages.append([letter["task"]["id"] for letter in page.json()["data"]])
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return pages


def test_no_dead_letters_are_an_empty_page(fleet: Fleet, api: httpx.Client) -> None:
    assert api.get("/v1/dead-letters").json() == {"data": [], "next_cursor": None}


def test_dead_letter_tells_of_every_attempt(fleet: Fleet, api: httpx.Client, dead: str) -> None:
    letter = api.get(f"/v1/dead-letters/{dead}").json()

    assert letter["task"] == api.get(f"/v1/tasks/{dead}").json()
    assert (letter["task"]["status"], letter["task"]["attempts"]) == ("failed", 3)
    assert letter["error"] == letter["task"]["error"]
    assert (letter["error"]["code"], letter["error"]["retryable"]) == ("attempts_exhausted", True)
    seen = [(line["attempt"], line["worker"], line["why"]) for line in letter["history"]]
    assert seen == [(number, "worker-1", "engine_died") for number in (1, 2, 3)]
    times = [datetime.fromisoformat(line[name]) for line in letter["history"] for name in ("started_at", "ended_at")]
    assert times == sorted(times)
    assert api.get("/v1/dead-letters").json() == {"data": [letter], "next_cursor": None}


def test_replayed_dead_letter_runs_again_with_its_history(fleet: Fleet, api: httpx.Client, dead: str) -> None:
    response = api.post(f"/v1/dead-letters/{dead}/replay")

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/tasks/{dead}"
    assert (response.json()["status"], response.json()["run"]) == ("queued", 2)
    assert api.get("/v1/dead-letters").json()["data"] == []
    again = api.post(f"/v1/dead-letters/{dead}/replay")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    fleet.exhaust(why="lease expired")
    history = api.get(f"/v1/dead-letters/{dead}").json()["history"]
    assert [line["attempt"] for line in history] == [1, 2, 3, 1, 2, 3]
    assert [line["why"] for line in history] == ["engine_died"] * 3 + ["lease expired"] * 3


def test_discarded_dead_letter_stays_a_failed_task(fleet: Fleet, api: httpx.Client, dead: str) -> None:
    response = api.delete(f"/v1/dead-letters/{dead}")

    assert (response.status_code, response.content) == (204, b"")
    assert api.get("/v1/dead-letters").json()["data"] == []
    for gone in (api.get(f"/v1/dead-letters/{dead}"), api.delete(f"/v1/dead-letters/{dead}")):
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert api.get(f"/v1/tasks/{dead}").json()["status"] == "failed"
    assert api.post(f"/v1/tasks/{dead}/retry").status_code == 202


@pytest.mark.parametrize("path", ["/v1/dead-letters/{id}", "/v1/dead-letters/{id}/replay"])
def test_task_that_lives_is_no_dead_letter(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], path: str
) -> None:
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]

    response = api.request("POST" if "replay" in path else "GET", path.format(id=task_id))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_another_tenants_dead_letters_are_not_seen(fleet: Fleet, dead: str) -> None:
    other = fleet.caller("other")

    assert other.get("/v1/dead-letters").json()["data"] == []
    for method, path in (("GET", ""), ("POST", "/replay"), ("DELETE", "")):
        assert other.request(method, f"/v1/dead-letters/{dead}{path}").status_code == 404
    assert fleet.caller("acme").get(f"/v1/dead-letters/{dead}").status_code == 200


def test_pages_hold_every_dead_letter_once_the_last_to_die_first(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    died = []
    for _ in range(7):
        api.post("/v1/tasks", json=text_task)
        died.append(fleet.exhaust())

    pages = walk(api, 3)

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [task_id for page in pages for task_id in page] == died[::-1]


def test_dead_letters_of_one_moment_are_all_found(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    for _ in range(6):
        api.post("/v1/tasks", json=text_task)
        fleet.redis.zadd(dead_letters_key("acme"), {fleet.exhaust(): 1_700_000_000_000})

    pages = walk(api, 1)

    assert [len(page) for page in pages] == [1] * 6
    assert len({task_id for page in pages for task_id in page}) == 6


def test_dead_letters_that_go_meanwhile_disturb_no_page(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    died = []
    for _ in range(4):
        api.post("/v1/tasks", json=text_task)
        died.append(fleet.exhaust())
    first = api.get("/v1/dead-letters", params={"limit": 2}).json()
    for letter in first["data"]:
        api.delete(f"/v1/dead-letters/{letter['task']['id']}")

    second = api.get("/v1/dead-letters", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [letter["task"]["id"] for letter in second["data"]] == [died[1], died[0]]
