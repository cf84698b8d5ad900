"""Tenants, keys and scopes: who is let in, and a file that changes while the gateway runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.tenants import Tenant, Tenants
from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess, tenant_entry, wait_until

NEW_KEY = "sk-new-0123456789"


def write(path: Path, *entries: dict[str, Any]) -> None:
    """Replace the file as an editor or Kubernetes does: never half written."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"tenants": entries}))
    fresh.replace(path)


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.json"
    write(path, tenant_entry("acme"))
    return path


@pytest.fixture
def own_gateway(fleet: Fleet, own_file: Path, start_gateway: Callable[..., GatewayProcess]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=start_gateway(OVIS_TENANTS_FILE=str(own_file)).url) as client:
        yield client


def status(client: httpx.Client, key: str) -> int:
    return client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_changed_file_counts_without_a_restart_and_a_broken_one_does_not(
    own_gateway: httpx.Client, own_file: Path, tmp_path: Path
) -> None:
    assert (status(own_gateway, KEYS["acme"]), status(own_gateway, NEW_KEY)) == (200, 401)

    write(own_file, tenant_entry("acme", NEW_KEY))

    wait_until(lambda: status(own_gateway, NEW_KEY) == 200)
    assert status(own_gateway, KEYS["acme"]) == 401, "its key was taken back"
    assert own_gateway.get("/readyz").json() == {"status": "ready", "tenants_file": "ok"}

    write(own_file, {"id": "acme", "key_sha256": ["not a hash"]})

    wait_until(lambda: "ovis_gateway_tenants_file_ok 0.0" in own_gateway.get("/metrics").text)
    assert status(own_gateway, NEW_KEY) == 200, "the last good file is in use"
    ready = own_gateway.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "key_sha256" in ready.json()["tenants_file"]
    assert "not a hash" not in ready.text
    assert 'ovis_gateway_tenants_reloads_total{outcome="refused"} 1.0' in own_gateway.get("/metrics").text

    own_file.unlink()
    wait_until(lambda: "can't be read" in own_gateway.get("/readyz").json()["tenants_file"])
    write(own_file, tenant_entry("acme"))

    wait_until(lambda: status(own_gateway, KEYS["acme"]) == 200)
    assert "ovis_gateway_tenants_file_ok 1.0" in own_gateway.get("/metrics").text
    (log,) = tmp_path.glob("gateway-*.log")
    assert "tenants_file_refused" in log.read_text()


def test_a_key_that_may_only_read_changes_nothing(fleet: Fleet, text_task: dict[str, Any]) -> None:
    reader = fleet.caller("reader")

    response = reader.post("/v1/tasks", json=text_task)

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert "write" in response.json()["detail"]
    assert reader.get("/v1/tasks").status_code == 200
    assert fleet.task_ids() == []


def test_a_tenant_uses_its_models_only(fleet: Fleet, text_task: dict[str, Any]) -> None:
    narrow = fleet.caller("narrow")

    response = narrow.post("/v1/tasks", json={**text_task, "model": "ovis2-4b"})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert response.json()["errors"][0]["pointer"] == "/model"
    assert [model["id"] for model in narrow.get("/v1/models").json()["data"]] == ["ovis2-reader"]
    assert narrow.post("/v1/tasks", json=text_task).status_code == 202


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("HOOKS.example.com.", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("hooks.example.com.evil.net", False),
    ],
)
def test_webhooks_go_to_the_tenants_hosts_only(host: str, allowed: bool) -> None:
    tenant = Tenant(id="one", key_sha256=("0" * 64,), webhook_hosts=("hooks.example.com", "*.example.org"))

    assert tenant.may_call(host) is allowed
    assert Tenant(id="two", key_sha256=("0" * 64,)).may_call(host)


def test_a_webhook_elsewhere_is_refused_with_a_task_and_as_an_endpoint(fleet: Fleet, text_task: dict[str, Any]) -> None:
    narrow, elsewhere = fleet.caller("narrow"), {"url": "https://example.com/hook"}

    with_task = narrow.post("/v1/tasks", json={**text_task, "webhook": elsewhere})
    as_endpoint = narrow.post("/v1/webhook-endpoints", json=elsewhere)

    assert [answer.json()["code"] for answer in (with_task, as_endpoint)] == ["url_not_allowed"] * 2
    assert "example.com" in with_task.json()["detail"]
    allowed = narrow.post("/v1/webhook-endpoints", json={"url": "https://a.example.org/hook"})
    assert allowed.status_code == 201


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([tenant_entry("acme"), tenant_entry("acme", NEW_KEY)], "two tenants have the id acme"),
        ([tenant_entry("acme", NEW_KEY), tenant_entry("other", NEW_KEY)], "hash of one key"),
        ([{"id": "acme"}], "has no key"),
        ([{**tenant_entry("acme"), "requests_per_s": 0}], "requests_per_s"),
        ([{**tenant_entry("acme"), "webhook_hosts": ["https://x"]}], "webhook_hosts"),
    ],
    ids=["same id", "same key", "no key", "no requests", "address for host"],
)
def test_an_ambiguous_or_wrong_file_is_refused(own_file: Path, entries: list[dict[str, Any]], message: str) -> None:
    write(own_file, *entries)

    with pytest.raises(ValueError, match=message):
        Tenants.load(own_file)
