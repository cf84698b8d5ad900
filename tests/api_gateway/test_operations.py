"""Models, probes, metrics and the interface's own description."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from contract import store
from contract.catalogue import CATALOGUE
from contract.redis_io import run
from contract.store import task_key
from tests.api_gateway.conftest import Fleet, wait_until


def test_models_are_the_catalogue_with_live_numbers(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    run(fleet.redis, store.renew("ovis2-reader", "worker-1", 24, ()))
    for _ in range(3):
        api.post("/v1/tasks", json=text_task)
    fleet.claim()

    models = {model["id"]: model for model in api.get("/v1/models").json()["data"]}

    assert list(models) == list(CATALOGUE)
    assert models["ovis2-reader"] == {
        "id": "ovis2-reader",
        "object": "model",
        "created": 0,
        "owned_by": "ovis-fleet",
        "description": CATALOGUE["ovis2-reader"].description,
        "params_b": CATALOGUE["ovis2-reader"].params_b,
        "context_tokens": 4096,
        "kinds": ["image", "video", "document", "text"],
        "max_partition": 1,
        "workers": 1,
        "slots": 24,
        "waiting": 2,
        "running": 1,
    }
    assert models["ovis2-4b"]["workers"] == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_machines_need_no_key(fleet: Fleet, path: str) -> None:
    response = fleet.caller("nobody").get(path)

    assert response.status_code == 200
    assert response.headers["X-Request-Id"]


def test_metrics_are_labelled_by_route_and_never_by_path(fleet: Fleet, api: httpx.Client) -> None:
    api.get("/v1/tasks/task_secret")
    api.get("/nowhere/secret")
    api.request("BREW", "/v1/tasks/task_secret")

    text = api.get("/metrics").text

    assert 'route="/v1/tasks/{task_id}",status="404"' in text
    assert 'route="unmatched",status="404"' in text
    assert "secret" not in text
    assert "BREW" not in text


def test_interface_describes_bodies_and_problems(fleet: Fleet, api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()

    submit = document["paths"]["/v1/tasks"]["post"]
    assert set(submit["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"202", "200", "401", "413", "422", "429", "503"} <= set(submit["responses"])
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    assert {
        "/v1/tasks/{task_id}",
        "/v1/tasks/{task_id}/result",
        "/v1/tasks/{task_id}/cancel",
        "/v1/tasks/{task_id}/retry",
        "/v1/dead-letters",
        "/v1/dead-letters/{task_id}",
        "/v1/dead-letters/{task_id}/replay",
        "/v1/models",
        "/livez",
        "/readyz",
        "/metrics",
    } <= set(document["paths"])


def test_log_has_one_line_for_each_request_without_secrets(fleet: Fleet, api: httpx.Client) -> None:
    api.get("/v1/tasks", params={"metadata[name]": "hunter2"}, headers={"X-Request-Id": "find-me"})

    # The line is written after the answer.
    file = fleet.stack.data_dir / "logs" / "gateway.log"
    wait_until(lambda: "find-me" in file.read_text())
    log = file.read_text()
    (line,) = [line for line in log.splitlines() if "find-me" in line]
    assert '"route":"/v1/tasks"' in line
    assert '"tenant":"acme"' in line
    assert "hunter2" not in log
    assert "sk-acme" not in log


def test_fault_of_ours_is_a_500_without_traceback(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]
    fleet.redis.hset(task_key(task_id), "status", "confused")

    response = api.get(f"/v1/tasks/{task_id}", headers={"X-Request-Id": "look-here"})

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.json()["request_id"] == "look-here"
    assert "confused" not in response.text
    assert "Traceback" not in response.text
