"""Who may do what, and how much: a JSON file of tenants, their keys and their limits.

``{"tenants": [{"id": "default", "keys": [{"id": "key_1a2b3c4d", "sha256": "…", "scopes": ["read", "write"]}],
"requests_per_s": 50, "weight": 1, "max_waiting_parts": 10000, "max_unended_tasks": 100000,
"max_waiting_bytes": 8589934592, "max_file_bytes": 8589934592, "models": ["ovis2-4b"],
"webhook_hosts": ["*.example.com"], "s3_prefixes": ["s3://bucket/prefix/"]}]}``. Keys are stored as SHA-256: they are
random, so a slow hash adds nothing. ``"key_sha256": ["…"]`` is a short way to write keys that may read and write.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: What a key may be used for: look at the tenant's things, change them, look at everybody's.
Scope = Literal["read", "write", "admin"]

#: What a key may do unless the file says otherwise.
_USUAL_SCOPES: tuple[Scope, ...] = ("read", "write")

#: A host name, or ``*.`` and a host name, which stands for every name below it.
_HostPattern = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class ApiKey(BaseModel):
    """One key, as its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="names the key to operators; not a secret")
    sha256: Sha256
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = _USUAL_SCOPES


class Tenant(BaseModel):
    """One tenant and its limits; None means no limit of that kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    keys: tuple[ApiKey, ...] = ()
    key_sha256: tuple[Sha256, ...] = ()
    weight: float = Field(1.0, gt=0, le=1000)
    requests_per_s: int | None = Field(None, ge=1, le=100_000, description="requests of all its keys in a second")
    max_waiting_parts: int = Field(10_000, ge=1)
    max_unended_tasks: int = Field(1_000_000, ge=1, description="tasks that haven't ended, in all queues")
    max_waiting_estimates: int = Field(3, ge=1, description="estimates that wait for their answer, of all its keys")
    max_waiting_bytes: int = Field(8 * 1024**3, ge=1, description="bytes of stored inputs of tasks that haven't ended")
    max_file_bytes: int = Field(8 * 1024**3, ge=1, description="bytes of its files, outputs of batches included")
    models: tuple[str, ...] | None = None
    webhook_hosts: tuple[_HostPattern, ...] | None = None
    s3_prefixes: tuple[Annotated[str, Field(pattern=r"^s3://[^/]+/.*$")], ...] = ()

    def may_read(self, bucket: str, key: str) -> bool:
        """Whether an ``s3`` input may name this object."""
        return any(f"s3://{bucket}/{key}".startswith(prefix) for prefix in self.s3_prefixes)

    def may_use(self, model: str) -> bool:
        """Whether a task may ask for this model."""
        return self.models is None or model in self.models

    def may_call(self, host: str) -> bool:
        """Whether a webhook may go to this host name."""
        name = host.lower().rstrip(".")
        return self.webhook_hosts is None or any(_matches(name, pattern) for pattern in self.webhook_hosts)

    def all_keys(self) -> Iterator[ApiKey]:
        """Its keys, those written the short way included."""
        yield from self.keys
        for sha256 in self.key_sha256:
            yield ApiKey(id=f"sha_{sha256[:8]}", sha256=sha256)


@dataclass(frozen=True)
class KeyHolder:
    """Who sent a request: a tenant, by one of its keys."""

    tenant: Tenant
    key: ApiKey

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope."""
        return scope in self.key.scopes


class Tenants(BaseModel):
    """All tenants."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tenants: tuple[Tenant, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        if repeated := _repeated([tenant.id for tenant in self.tenants]):
            raise ValueError(f"two tenants have the id {repeated}")
        for tenant in self.tenants:
            if not any(tenant.all_keys()):
                raise ValueError(f"the tenant {tenant.id} has no key")
        keys = [key for tenant in self.tenants for key in tenant.all_keys()]
        if _repeated([key.sha256 for key in keys]):
            raise ValueError("two entries hold the hash of one key")
        return self

    @classmethod
    def load(cls, path: Path) -> Tenants:
        """Read the file; raise ``pydantic.ValidationError`` or ``OSError`` where it is wrong."""
        return cls.model_validate_json(path.read_bytes())

    def by_key(self, key: str) -> KeyHolder | None:
        """Who holds ``key``. What the time of the look-up tells is about its hash, which leads to no key."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        holder = self._holders.get(digest)
        return holder if holder is not None and hmac.compare_digest(digest, holder.key.sha256) else None

    @cached_property
    def _holders(self) -> dict[str, KeyHolder]:
        return {key.sha256: KeyHolder(tenant, key) for tenant in self.tenants for key in tenant.all_keys()}


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _repeated(values: list[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
