"""Files and batches, as OpenAI's clients read them. Times are Unix times, in seconds."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from contract.batches import BatchError, BatchRecord, BatchStatus
from contract.files import FilePurpose, FileRecord
from contract.results import Usage


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: str


V = TypeVar("V", bound=_View)


class FileView(_View):
    """A file."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"

    @classmethod
    def of(cls, record: FileRecord) -> FileView:
        """The view of a file."""
        return cls(
            id=record.id,
            bytes=record.size_bytes,
            created_at=record.created_ms // 1000,
            expires_at=record.expires_ms // 1000,
            filename=record.filename,
            purpose=record.purpose,
        )


class DeletedFileView(_View):
    """A file that was deleted."""

    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class RequestCounts(BaseModel):
    """How many lines there are, and what came of them so far."""

    model_config = ConfigDict(frozen=True)
    total: int = Field(description="0 until the file was checked")
    completed: int
    failed: int


class BatchErrors(BaseModel):
    """Why a file can't be run, line by line; the first 50."""

    model_config = ConfigDict(frozen=True)
    object: Literal["list"] = "list"
    data: tuple[BatchError, ...]


class _InputDetails(BaseModel):
    cached_tokens: int = 0


class _OutputDetails(BaseModel):
    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """What all lines took, in tokens."""

    model_config = ConfigDict(frozen=True)
    input_tokens: int
    input_tokens_details: _InputDetails = _InputDetails()
    output_tokens: int
    output_tokens_details: _OutputDetails = _OutputDetails()
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> BatchUsage:
        """The view of a usage."""
        return cls(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.prompt_tokens + usage.output_tokens,
        )


class BatchView(_View):
    """A batch."""

    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = Field(description="answers, in the lines' order; null where there are none (yet)")
    error_file_id: str | None = Field(description="lines without an answer; null where there are none (yet)")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage | None = Field(description="null until the end")
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, record: BatchRecord) -> BatchView:
        """The view of a batch."""
        names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        reached = {f"{name}_at": _seconds(record.reached_ms.get(name)) for name in names}
        return cls.model_validate(
            {
                "id": record.id,
                "endpoint": record.endpoint,
                "errors": BatchErrors(data=record.errors) if record.errors else None,
                "input_file_id": record.input_file,
                "completion_window": record.completion_window,
                "status": record.status,
                "output_file_id": record.output_file,
                "error_file_id": record.error_file,
                "created_at": record.created_ms // 1000,
                "expires_at": record.expires_ms // 1000,
                **reached,
                "request_counts": RequestCounts(total=record.total, completed=record.completed, failed=record.failed),
                "usage": BatchUsage.of(record.usage) if record.usage else None,
                "metadata": record.metadata or None,
            }
        )


class ListView(BaseModel, Generic[V]):
    """A page of a list."""

    model_config = ConfigDict(frozen=True)
    object: Literal["list"] = "list"
    data: list[V]
    first_id: str | None
    last_id: str | None = Field(description="leads on, as after")
    has_more: bool

    @classmethod
    def of(cls, views: list[V], has_more: bool) -> ListView[V]:
        """A page of views."""
        first, last = (views[0].id, views[-1].id) if views else (None, None)
        return cls(data=views, first_id=first, last_id=last, has_more=has_more)


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
