"""Batches: a file of chat completions, run line by line. What stands in Redis of one, and what was laid down for it.

``validating → in_progress → finalizing → completed | expired``; ``failed`` where the file can't be run at all;
``cancelling → cancelled`` from the first two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from contract.ids import sortable_id
from contract.results import Usage
from contract.tenants import Tenant

BatchStatus = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]

#: The one endpoint that lines may go to.
ENDPOINT = "/v1/chat/completions"

#: Statuses that nothing follows.
ENDED: frozenset[BatchStatus] = frozenset({"completed", "failed", "expired", "cancelled"})

#: Statuses that say when they were reached.
_TIMED = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")

BATCH_RETENTION_KEY = "ovis:batch-retention"
BATCHES_DUE_KEY = "ovis:batches-due"


class BatchError(BaseModel):
    """Why a file can't be run."""

    model_config = ConfigDict(frozen=True)
    code: str
    message: str
    line: int | None = Field(None, description="of the file, 1 for the first")
    param: str | None = None


class LineError(BaseModel):
    """Why a line became no task."""

    model_config = ConfigDict(frozen=True)
    code: str
    detail: str
    pointer: str | None = Field(None, description="JSON pointer into the line's body")


def _known_limits(tenant: object) -> object:
    """A stored tenant without what another version of this software added; its own file is read strictly."""
    if not isinstance(tenant, Mapping):
        return tenant
    return {name: value for name, value in tenant.items() if name in Tenant.model_fields}


class BatchTerms(BaseModel):
    """What the gateway lays down when it accepts a batch: workers know neither tenants nor HTTP.

    A batch runs under the limits that its tenant had at its beginning.
    """

    model_config = ConfigDict(frozen=True)
    tenant: Annotated[Tenant, BeforeValidator(_known_limits)] = Field(description="without its keys")
    queue_max_waiting_parts: int
    queue_max_bytes: int
    statuses: dict[str, int] = Field(description="HTTP status of every error's code, for the error file")
    traceparent: str | None = Field(None, description="W3C trace context of the request that created the batch")
    tracestate: str | None = None


class BatchRecord(BaseModel):
    """A batch as it stands in Redis."""

    model_config = ConfigDict(frozen=True)
    id: str
    tenant: str
    status: BatchStatus
    endpoint: str
    input_file: str
    input_blob: str
    completion_window: str
    metadata: dict[str, str]
    created_ms: int
    expires_ms: int
    reached_ms: dict[str, int] = Field(description="when it came to each status")
    total: int = Field(description="lines; 0 until the file was checked")
    fed: int = Field(description="lines that became tasks, or were refused")
    offset: int = Field(description="byte of the file at which the next line begins")
    stopped: int = Field(description="lines that were asked to end")
    completed: int
    failed: int
    claims: int
    losses: int = Field(description="holders lost one after the other without a step forward")
    output_file: str | None = None
    error_file: str | None = None
    errors: tuple[BatchError, ...] = ()
    usage: Usage | None = None

    @property
    def under_way(self) -> int:
        """Lines whose tasks haven't ended."""
        return self.fed - self.completed - self.failed

    @classmethod
    def from_hash(cls, batch_id: str, fields: Mapping[str, str]) -> BatchRecord:
        """Decode the hash ``ovis:batch:<id>``."""
        return cls.model_validate(
            {
                **{name: fields[name] for name in cls.model_fields if name in fields},
                "id": batch_id,
                "metadata": _metadata.validate_json(fields.get("metadata", "null")),
                "reached_ms": {name: int(fields[f"{name}_ms"]) for name in _TIMED if f"{name}_ms" in fields},
                "errors": _errors.validate_json(fields.get("errors", "[]")),
                "usage": Usage.model_validate_json(fields["usage"]) if "usage" in fields else None,
            }
        )


_metadata: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
_errors: TypeAdapter[tuple[BatchError, ...]] = TypeAdapter(tuple[BatchError, ...])


def batch_key(batch_id: str) -> str:
    """Key of a batch's record."""
    return f"ovis:batch:{batch_id}"


def refused_key(batch_id: str) -> str:
    """Key of what was wrong with lines that became no task."""
    return f"ovis:batch:{batch_id}:refused"


def batch_index_key(tenant: str) -> str:
    """Key of a tenant's list of batches."""
    return f"ovis:batches:{tenant}"


def new_batch_id() -> str:
    """An id that sorts by creation time: 12 hex digits of milliseconds, then 80 random bits."""
    return sortable_id("batch_")


def line_task_id(batch_id: str, line: int) -> str:
    """The id of a line's task: the batch's time and the beginning of its random digits, then the line's number."""
    return f"task_{batch_id.removeprefix('batch_')[:24]}{line:08x}"
