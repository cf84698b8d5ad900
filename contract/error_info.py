"""An error as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ErrorInfo(BaseModel):
    """An error as it is stored in a record and shown to the caller."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str
    retryable: bool
