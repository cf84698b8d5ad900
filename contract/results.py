"""What a part gave and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    from contract.task import TaskSpec

FinishReason = Literal["stop", "length", "repetition"]

#: Where a part's text is from: the model, the document's own text, nowhere as the page is blank, or an earlier answer
#: to the same question.
Source = Literal["model", "text_layer", "blank", "cache"]


class LikelyToken(BaseModel):
    """A token and how likely it was for the model, before penalties, temperature, filters and schemas."""

    model_config = ConfigDict(frozen=True)
    token: str = Field(description="its text; U+FFFD where it is a piece of a character")
    logprob: float = Field(description="natural logarithm of its probability, at most 0")


class TokenLogprob(LikelyToken):
    """A token of an answer."""

    top: tuple[LikelyToken, ...] = Field(description="the most likely ones at this place, most likely first")


class Usage(BaseModel):
    """What a part or a task consumed. A second run of a part counts as much as the first."""

    model_config = ConfigDict(frozen=True)
    images: int = 0
    pages: int = 0
    frames: int = 0
    tiles: int = 0
    prompt_tokens: int = 0
    visual_tokens: int = 0
    output_tokens: int = 0
    gpu_seconds: float = Field(0.0, description="seconds in the engine, waiting for a row included")

    @property
    def cost(self) -> int:
        """Visual plus output tokens: the unit of fair shares."""
        return self.visual_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        sums = {name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields}
        return Usage(**{**sums, "gpu_seconds": round(sums["gpu_seconds"], 4)})


class PartResult(BaseModel):
    """What one part gave; small results sit in the record, all of them in the blob store."""

    model_config = ConfigDict(frozen=True)
    text: str | None = Field(description="None where the result is too long to sit in the record")
    finish_reason: FinishReason | None = Field(description="None where no model ran")
    blob_key: str
    usage: Usage
    data: JsonValue = Field(None, description="extract, chart and table: the answer as JSON")
    warnings: tuple[str, ...] = Field((), description="what is doubtful about the answer, in the words of docs/api.md")
    source: Source = "model"
    start_s: float | None = Field(None, description="videos and clips: the stretch that was looked at")
    end_s: float | None = None

    @property
    def inline_size_bytes(self) -> int:
        """Bytes that text and data would take in the record."""
        return len((self.text or "").encode()) + (
            0 if self.data is None else len(self.model_dump_json(include={"data"}))
        )

    def document(self, task_id: str, part: int, spec: TaskSpec) -> dict[str, object]:
        """The result as it lies in the blob store and as callers read it."""
        times = {} if self.start_s is None else {"start_s": self.start_s, "end_s": self.end_s}
        return {
            "task_id": task_id,
            "part": part,
            "model": spec.model,
            "operation": spec.operation,
            "text": self.text,
            "data": self.data,
            "finish_reason": self.finish_reason,
            "source": self.source,
            "warnings": list(self.warnings),
            **times,
            "usage": self.usage.model_dump(),
        }
