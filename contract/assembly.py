"""What a planned task gave as a whole: one object in the blob store for each form it is read in."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: The forms of a result. ``vtt`` is for parts that have times only.
ResultFormat = Literal["json", "text", "markdown", "vtt"]

MEDIA_TYPES: dict[ResultFormat, str] = {
    "json": "application/json",
    "text": "text/plain",
    "markdown": "text/markdown",
    "vtt": "text/vtt",
}

#: What the objects' names end in.
SUFFIXES: dict[ResultFormat, str] = {"json": "json", "text": "txt", "markdown": "md", "vtt": "vtt"}


class AssembledFile(BaseModel):
    """One form of the result."""

    model_config = ConfigDict(frozen=True)
    key: str
    size_bytes: int


class Assembly(BaseModel):
    """The whole result, as the record points to it."""

    model_config = ConfigDict(frozen=True)
    files: dict[ResultFormat, AssembledFile]
    text: str | None = Field(None, description="None where the text is too long to sit in the record")


def assembly_key(tenant: str, task_id: str, claim: int, form: ResultFormat) -> str:
    """Where one attempt of an assembly stores one form.

    Args:
        claim: How often the assembly had been claimed, this attempt included: it never repeats.
    """
    return f"results/{tenant}/{task_id}/assembly-{claim}/document.{SUFFIXES[form]}"
