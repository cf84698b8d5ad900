"""Files of batches: what callers upload to be run line by line, and what came of it.

A file's bytes lie in the blob store as ``files/<tenant>/<file>/<n>``; its record says which object they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contract.ids import sortable_id
from contract.scripting import Command, load_script
from contract.store import IDEMPOTENCY_S, PURGED_S

FilePurpose = Literal["batch", "batch_output"]
AddOutcome = Literal["created", "exists", "conflict", "tenant_full"]
RemoveOutcome = Literal["removed", "missing", "in_use"]

#: Fields of a record, in ``read_file``'s order.
FILE_FIELDS = ("tenant", "purpose", "filename", "blob", "bytes", "created_ms", "expires_ms")

FILE_RETENTION_KEY = "ovis:file-retention"


class FileRecord(BaseModel):
    """A file as it stands in Redis."""

    model_config = ConfigDict(frozen=True)
    id: str
    tenant: str
    purpose: FilePurpose
    filename: str
    blob: str
    size_bytes: int
    created_ms: int
    expires_ms: int


def file_key(file_id: str) -> str:
    """Key of a file's record."""
    return f"ovis:file:{file_id}"


def file_index_key(tenant: str) -> str:
    """Key of a tenant's list of files."""
    return f"ovis:files:{tenant}"


def file_blob_key(tenant: str, file_id: str, number: int) -> str:
    """Where a file's bytes lie; each attempt at writing it has a number of its own."""
    return f"files/{tenant}/{file_id}/{number}"


def file_prefix(tenant: str, file_id: str) -> str:
    """What the keys of a file's objects begin with."""
    return f"files/{tenant}/{file_id}/"


def new_file_id() -> str:
    """An id that sorts by creation time."""
    return sortable_id("file-")


def output_file_id(batch_id: str, which: str) -> str:
    """The id of a batch's output or error file: the same whoever writes it."""
    digest = hashlib.sha256(f"{batch_id}\n{which}".encode()).hexdigest()
    return f"file-{batch_id.removeprefix('batch_')[:12]}{digest[:20]}"


def read_file(file_id: str, values: Sequence[str | None]) -> FileRecord | None:
    """Decode the values of ``FILE_FIELDS``; None where there is no such file."""
    if values[0] is None:
        return None
    fields = dict(zip(FILE_FIELDS, values, strict=True))
    return FileRecord.model_validate({"id": file_id, "size_bytes": fields.pop("bytes"), **fields})


@dataclass(frozen=True)
class NewFile:
    """A file whose bytes lie in the blob store already.

    Attributes:
        kept_s: Seconds after which it is deleted.
        tenant_bytes_limit: Most bytes of the tenant's files.
        content_hash: What tells two uploads under one idempotency key apart.
    """

    id: str
    tenant: str
    purpose: FilePurpose
    filename: str
    blob: str
    size_bytes: int
    kept_s: int
    tenant_bytes_limit: int
    idempotency_key: str = ""
    content_hash: str = "-"


def add_file(new: NewFile) -> Command[tuple[AddOutcome, str]]:
    """Make a file known; reply outcome and the file's id."""
    args = (
        *(new.id, new.tenant, new.purpose, new.filename, new.blob, new.size_bytes, new.kept_s),
        *(new.idempotency_key, new.content_hash, IDEMPOTENCY_S, new.tenant_bytes_limit),
    )
    return Command(load_script("file_add"), args, lambda reply: (reply[0], reply[1]))


def remove_file(file_id: str, tenant: str, *, only_late: bool = False) -> Command[RemoveOutcome]:
    """Forget a file, unless a batch still reads it; its objects are deleted after that.

    Args:
        file_id: Which.
        tenant: Whose it has to be.
        only_late: Whether one whose time isn't over stays.
    """
    return Command(load_script("file_remove"), (file_id, tenant, int(only_late), PURGED_S), lambda reply: reply)
