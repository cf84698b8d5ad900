"""Who may submit, and how much: a static JSON file, read once at the start.

``{"tenants": [{"id": "default", "key_sha256": ["…"], "weight": 1, "max_waiting_parts": 10000,
"max_waiting_bytes": 8589934592, "s3_prefixes": ["s3://bucket/prefix/"]}]}``. Keys are stored as SHA-256: they are
random, so a slow hash adds nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tenant(BaseModel):
    """One tenant and its limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    key_sha256: tuple[Sha256, ...] = Field(min_length=1)
    weight: float = Field(1.0, gt=0, le=1000)
    max_waiting_parts: int = Field(10_000, ge=1)
    max_waiting_bytes: int = Field(8 * 1024**3, ge=1, description="bytes of stored inputs of tasks that haven't ended")
    s3_prefixes: tuple[Annotated[str, Field(pattern=r"^s3://[^/]+/.*$")], ...] = ()

    def may_read(self, bucket: str, key: str) -> bool:
        """Whether an ``s3`` input may name this object."""
        return any(f"s3://{bucket}/{key}".startswith(prefix) for prefix in self.s3_prefixes)


class Tenants(BaseModel):
    """All tenants."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tenants: tuple[Tenant, ...] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> Tenants:
        """Read the file; raise ``pydantic.ValidationError`` or ``OSError`` where it is wrong."""
        return cls.model_validate_json(path.read_bytes())

    def by_key(self, key: str) -> Tenant | None:
        """The tenant that holds ``key``. Compares with every hash, so the time tells nothing."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = None
        for tenant in self.tenants:
            for known in tenant.key_sha256:
                if hmac.compare_digest(digest, known):
                    found = tenant
        return found
