"""Another tenant's things: on every route as if they weren't there."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from api_gateway.app import create_app
from api_gateway.settings import GatewaySettings
from contract.batches import new_batch_id
from contract.files import new_file_id
from contract.task import new_task_id
from tests.api_gateway.conftest import PNG, Fleet, write_tenants


def routes_with_ids(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Every method and path that names something."""
    return [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if "{" in path and path.startswith("/v1/")
    ]


def everything_of(fleet: Fleet, tenant: str, text_task: dict[str, Any]) -> dict[str, str]:
    """One thing of each kind, by the parameter that names it; the task is a dead letter, too."""
    api = fleet.caller(tenant)
    api.post("/v1/tasks", json=text_task)
    upload = api.post("/v1/uploads", json={"size_bytes": len(PNG)}).json()
    httpx.put(upload["put"]["url"], content=PNG, headers=upload["put"]["headers"])
    file = api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}")}).json()
    order = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = api.post("/v1/batches", json=order).json()
    return {
        "task_id": fleet.exhaust(),
        "upload_id": upload["id"],
        "file_id": file["id"],
        "batch_id": batch["id"],
    }


def said(response: httpx.Response) -> tuple[str, str]:
    """Code and message of an error in either form."""
    body = response.json()
    return (body["error"]["code"], body["error"]["message"]) if "error" in body else (body["code"], body["detail"])


def test_another_tenants_id_is_404_on_every_route(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    mine = everything_of(fleet, "acme", text_task)
    nobodys = {
        "task_id": new_task_id(),
        "upload_id": "upl_" + "0" * 32,
        "file_id": new_file_id(),
        "batch_id": new_batch_id(),
    }
    routes = routes_with_ids(api.get("/openapi.json").json())
    assert len(routes) >= 9
    other = fleet.caller("other")

    for method, path in routes:
        names = re.findall(r"{(\w+)}", path)
        known = [name for name in names if name in mine]
        if not known:
            continue
        spots = dict.fromkeys(names, "0")
        body = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        theirs = other.request(method, path.format(**{**spots, **mine}), **body)  # type: ignore[arg-type]
        missing = other.request(method, path.format(**{**spots, **nobodys}), **body)  # type: ignore[arg-type]
        assert (theirs.status_code, said(theirs)[0]) == (404, "not_found"), (method, path)
        assert said(theirs) == said(missing), (method, path)

    task = api.get(f"/v1/tasks/{mine['task_id']}").json()
    assert (task["status"], task["run"]) == ("failed", 1), "nothing was changed"
    assert api.get(f"/v1/dead-letters/{mine['task_id']}").status_code == 200


def test_lists_hold_the_callers_own_alone(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    everything_of(fleet, "acme", text_task)
    other = fleet.caller("other")

    for path in ("/v1/tasks", "/v1/dead-letters", "/v1/usage", "/v1/files", "/v1/batches"):
        assert (path, other.get(path).json()["data"]) == (path, [])
        assert api.get(path).json()["data"] != []


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    tenants = write_tenants(tmp_path_factory.mktemp("described") / "tenants.json")
    return create_app(GatewaySettings(tenants_file=tenants)).openapi()


def test_every_route_needs_a_key_but_those_of_machines(document: dict[str, Any]) -> None:
    open_paths = {
        path for path, operations in document["paths"].items() for item in operations.values() if "security" not in item
    }

    assert open_paths == {"/livez", "/readyz", "/metrics"}
