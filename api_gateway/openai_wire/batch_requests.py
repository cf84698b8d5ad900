"""What OpenAI's clients send to make files and batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Longest time that a batch may take, in hours: a task's longest deadline.
MAX_WINDOW_H = 168

#: Shortest and longest time for which a file is kept, in seconds, where its sender says for how long.
MIN_KEPT_S, MAX_KEPT_S = 3600, 30 * 86_400

_MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
_MetadataValue = Annotated[str, Field(max_length=512)]


class ExpiresAfter(BaseModel):
    """For how long a file is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_KEPT_S, le=MAX_KEPT_S)]


class BatchRequest(BaseModel):
    """A batch, as a caller describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Annotated[str, Field(pattern=r"^([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h$")] = Field(
        description="hours, up to 168h; what isn't answered by then expires", examples=["24h"]
    )
    metadata: Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = Field(None, description="30 days unless given")

    @property
    def window_s(self) -> int:
        """How long the batch may take, in seconds."""
        return 3600 * int(self.completion_window.removesuffix("h"))
