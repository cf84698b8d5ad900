"""``ovis-fleet keys``: the keys in a tenants file. A running gateway takes the change up within a second."""

import hashlib
import json
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ovis_fleet.display import print_lines
from ovis_fleet.workspace import write_private


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


#: Random bytes of a key: nobody guesses it, so that a plain hash of it is safe to store.
_KEY_BYTES = 32

keys_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke keys in a tenants file.")

FileOption = Annotated[
    Path,
    typer.Option("--file", envvar="OVIS_TENANTS_FILE", exists=True, dir_okay=False, help="The tenants file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]


@keys_app.command()
def create(
    tenant: TenantArgument,
    file: FileOption,
    scope: Annotated[list[Scope] | None, typer.Option(help="read, write, admin; read and write by default.")] = None,
    new_tenant: Annotated[bool, typer.Option(help="Add the tenant if the file has none of this id.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: the file keeps its hash alone."""
    document = _read(file)
    entry = _find(document, tenant)
    if entry is None:
        if not new_tenant:
            raise typer.BadParameter(f"the file has no tenant {tenant}: see --new-tenant", param_hint="TENANT")
        entry = {"id": tenant}
        document["tenants"].append(entry)
    key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
    made = {
        "id": f"key_{secrets.token_hex(4)}",
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "scopes": list(dict.fromkeys(map(str, scope or (Scope.READ, Scope.WRITE)))),
    }
    entry.setdefault("keys", []).append(made)
    _write(file, document)
    if as_json:
        print_lines(Console(), [json.dumps({"tenant": tenant, "id": made["id"], "scopes": made["scopes"], "key": key})])
        return
    print_lines(Console(stderr=True), [f"{made['id']} of {tenant}; the key is not shown again:"])
    typer.echo(key)


@keys_app.command("list")
def list_keys(
    file: FileOption,
    as_json: JsonOption = False,
) -> None:
    """Show the keys of all tenants, without anything secret."""
    rows = [
        {"tenant": entry["id"], **shown}
        for entry in _read(file)["tenants"]
        for shown in (
            *({"id": key["id"], "scopes": key.get("scopes", ["read", "write"])} for key in entry.get("keys", [])),
            *({"id": f"sha_{sha256[:8]}", "scopes": ["read", "write"]} for sha256 in entry.get("key_sha256", [])),
        )
    ]
    if as_json:
        print_lines(Console(), [json.dumps({"data": rows})])
        return
    table = Table("tenant", "key", "scopes")
    for row in rows:
        table.add_row(row["tenant"], row["id"], ", ".join(row["scopes"]))
    Console().print(table)


@keys_app.command()
def revoke(
    tenant: TenantArgument,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="As `list` shows it.")],
    file: FileOption,
) -> None:
    """Take a key out of the file. A tenant's last key stays: a tenant without one makes the file wrong."""
    document = _read(file)
    entry = _find(document, tenant) or {}
    keys = [key for key in entry.get("keys", []) if key["id"] != key_id]
    hashes = [sha256 for sha256 in entry.get("key_sha256", []) if f"sha_{sha256[:8]}" != key_id]
    if len(keys) + len(hashes) == len(entry.get("keys", [])) + len(entry.get("key_sha256", [])):
        raise typer.BadParameter(f"the tenant {tenant} has no key {key_id}", param_hint="KEY")
    if not keys and not hashes:
        raise typer.BadParameter(f"{key_id} is the last key of {tenant}: create another one first", param_hint="KEY")
    entry.update(keys=keys, key_sha256=hashes)
    _write(file, document)


def _read(path: Path) -> Any:
    try:
        document = json.loads(path.read_text())
        whole = isinstance(document["tenants"], list) and all("id" in entry for entry in document["tenants"])
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise typer.BadParameter(f"{path} is no tenants file", param_hint="--file")
    return document


def _find(document: Any, tenant: str) -> dict[str, Any] | None:
    return next((entry for entry in document["tenants"] if entry["id"] == tenant), None)


def _write(path: Path, document: Any) -> None:
    write_private(path, json.dumps(document, indent=2) + "\n")
