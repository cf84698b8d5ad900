"""An error as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ErrorInfo(BaseModel):
    """An error as it is stored in a record and shown to the caller."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str
    retryable: bool
    pointer: str | None = Field(
        None, description="JSON pointer to what is wrong in the request", exclude_if=lambda pointer: pointer is None
    )
