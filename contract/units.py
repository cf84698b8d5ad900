"""What one part of a planned task covers: a page of a file, a stretch of a video, or the summary of all stretches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class PageUnit(BaseModel):
    """A page of a document."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["page"] = "page"
    page: int = Field(ge=1, description="number in the file, from 1")


class ClipUnit(BaseModel):
    """A stretch of a video, in seconds from its beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["clip"] = "clip"
    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)


class SummaryUnit(BaseModel):
    """The last part of a video by clips: it gets their captions as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["summary"] = "summary"


Unit = Annotated[PageUnit | ClipUnit | SummaryUnit, Field(discriminator="kind")]
