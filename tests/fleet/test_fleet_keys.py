"""``ovis-fleet keys``: what it writes is a tenants file that the gateway takes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.tenants import Tenants
from ovis_fleet.cli import app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "tenants.json"
    made.write_text(json.dumps({"tenants": [{"id": "old", "key_sha256": ["0" * 64], "weight": 2}]}))
    return made


def keys(path: Path, *argv: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["keys", *argv, "--file", str(path)])
    assert done.exit_code == status, done.output
    return done.stdout.strip()


def test_a_created_key_is_held_by_its_tenant_and_stored_as_a_hash(path: Path) -> None:
    key = keys(path, "create", "old", "--scope", "read", "--scope", "admin")

    holder = Tenants.load(path).by_key(key)

    assert key.startswith("sk-")
    assert key not in path.read_text()
    assert holder is not None
    assert (holder.tenant.id, holder.tenant.weight) == ("old", 2)
    assert [holder.may(scope) for scope in ("read", "write", "admin")] == [True, False, True]
    assert path.stat().st_mode & 0o077 == 0


def test_a_new_tenant_is_added_when_it_is_meant(path: Path) -> None:
    keys(path, "create", "new", status=2)
    key = keys(path, "create", "new", "--new-tenant")

    holder = Tenants.load(path).by_key(key)

    assert holder is not None
    assert holder.tenant.id == "new"


def test_keys_are_listed_and_revoked_but_for_the_last(path: Path) -> None:
    key = keys(path, "create", "old")
    rows = json.loads(keys(path, "list", "--json"))["data"]

    assert [row["tenant"] for row in rows] == ["old", "old"]
    keys(path, "revoke", "old", "sha_00000000")
    (kept,) = (row["id"] for row in rows if row["id"] != "sha_00000000")
    assert kept in keys(path, "list")
    keys(path, "revoke", "old", kept, status=2)
    keys(path, "revoke", "old", "key_nobody", status=2)
    assert Tenants.load(path).by_key(key) is not None


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')

    keys(path, "create", "old", status=2)

    assert path.read_text() == '{"a": 1}'
