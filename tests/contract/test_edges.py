"""Errors, settings, tenants, catalogue and logs: what stands at the edges."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.catalogue import CATALOGUE
from contract.errors import all_errors
from contract.settings import FleetSettings
from contract.task import TaskOptions, TaskSpec, UrlInput, new_task_id
from contract.tenants import Tenant, Tenants


def test_every_error_has_a_code_of_its_own_and_a_title() -> None:
    errors = all_errors()
    assert len({error.title for error in errors.values()}) == len(errors)
    assert "fleet_error" not in errors


def test_the_catalogue_holds_the_eight_models_and_the_bundled_one() -> None:
    assert len(CATALOGUE) == 9
    assert all(name == card.name for name, card in CATALOGUE.items())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVIS_EGRESS_ALLOW_CIDRS", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("OVIS_REDIS_URL", "redis://user:hunter2@db/0")
    settings = FleetSettings()
    assert [str(network) for network in settings.egress_allow_cidrs] == ["10.0.0.0/8", "fd00::/8"]
    assert "hunter2" not in repr(settings)


def test_a_bad_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVIS_EGRESS_ALLOW_CIDRS", "10.0.0.0/99")
    with pytest.raises(ValidationError):
        FleetSettings()


def test_a_key_finds_its_tenant_and_only_its(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk-one").hexdigest()
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps({"tenants": [{"id": "one", "key_sha256": [digest], "weight": 2}]}))
    tenants = Tenants.load(path)
    found = tenants.by_key("sk-one")
    assert found is not None
    assert (found.tenant.id, found.tenant.weight) == ("one", 2)
    assert (found.may("read"), found.may("write"), found.may("admin")) == (True, True, False)
    assert tenants.by_key("sk-two") is None


def test_a_tenant_reads_only_under_its_prefixes() -> None:
    tenant = Tenant(id="one", key_sha256=("0" * 64,), s3_prefixes=("s3://bucket/one/",))
    assert tenant.may_read("bucket", "one/a.png")
    assert not tenant.may_read("bucket", "onetwo/a.png")
    assert not tenant.may_read("bucket-2", "one/a.png")


def test_task_ids_sort_by_their_making() -> None:
    ids = [new_task_id() for _ in range(3)]
    assert [task_id[:17] for task_id in ids] == sorted(task_id[:17] for task_id in ids)
    assert len(set(ids)) == 3


def test_the_cost_counts_tiles_with_the_thumbnail_and_the_output() -> None:
    spec = TaskSpec(
        kind="image",
        model="ovis2-4b",
        operation="ocr",
        prompt="",
        inputs=(UrlInput(url="https://example.com/a"),),
        options=TaskOptions(max_new_tokens=100),
    )
    card = CATALOGUE["ovis2-4b"]
    assert spec.estimated_cost(card) == 13 * 256 + 100
    assert spec.model_copy(update={"operation": "caption"}).estimated_cost(card) == 10 * 256 + 100
    assert spec.model_copy(update={"kind": "video", "operation": "caption"}).estimated_cost(card) == 12 * 256 + 100
    assert spec.estimated_cost(CATALOGUE["ovis2-reader"]) == 576 + 100


def test_logs_are_json_and_tracebacks_hold_no_values() -> None:
    program = (
        "from contract.logs import configure_logs, get_logger\n"
        "configure_logs('test')\n"
        "log = get_logger('x')\n"
        "secret = 'hunter2' + ''.join([])\n"
        "try:\n    1 / len(secret[:0])\nexcept ZeroDivisionError:\n    log.exception('broke', task_id='t')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    event = json.loads(done.stderr)
    assert (event["event"], event["role"], event["task_id"], event["level"]) == ("broke", "test", "t", "error")
    assert "ZeroDivisionError" in done.stderr
    assert "locals" not in done.stderr
