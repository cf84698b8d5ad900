"""From the parts' results to what people read: plain text, Markdown, one JSON document, WebVTT.

Pure functions. Each takes the parts in order and gives pieces of text, so that a long document is never held whole.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from contract.error_info import ErrorInfo
from contract.results import FinishReason, Source, Usage
from contract.task import dumps
from contract.units import ClipUnit, PageUnit, SummaryUnit, Unit

#: Between the pages of a plain text, as ``pdftotext`` writes it.
PAGE_BREAK = "\f"


class PartDocument(BaseModel):
    """One part: what it covers and what it gave, or why it gave nothing."""

    model_config = ConfigDict(frozen=True)
    part: int
    unit: Unit | None = None
    text: str = ""
    data: JsonValue = None
    finish_reason: FinishReason | None = None
    source: Source = "model"
    warnings: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None

    @property
    def times_s(self) -> tuple[float, float] | None:
        """The stretch of the video in seconds; None where the part has no times."""
        if isinstance(self.unit, ClipUnit):
            return self.unit.start_s, self.unit.end_s
        if self.start_s is None or self.end_s is None:
            return None
        return self.start_s, self.end_s


def as_text(parts: Iterable[PartDocument]) -> Iterator[str]:
    """Pages with a form feed between them; clips line by line behind their times, the summary last.

    A page that failed is empty, so that the n-th page stays the n-th.
    """
    for index, part in enumerate(parts):
        if index:
            yield "\n" + PAGE_BREAK if isinstance(part.unit, PageUnit) else "\n"
        if isinstance(part.unit, SummaryUnit):
            yield "\n"
        yield f"[{_span(part)}] {part.text.strip()}" if isinstance(part.unit, ClipUnit) else part.text
    yield "\n"


def as_markdown(parts: Iterable[PartDocument]) -> Iterator[str]:
    """Pages under a comment with their number and rules between them; clips under headings with their times."""
    for index, part in enumerate(parts):
        if index:
            yield "\n\n---\n\n" if isinstance(part.unit, PageUnit) else "\n\n"
        yield from _heading(part)
        yield part.text
    yield "\n"


def as_vtt(parts: Iterable[PartDocument]) -> Iterator[str]:
    """WebVTT with a cue for every part that has times and text."""
    yield "WEBVTT\n"
    for part in parts:
        times = part.times_s
        if times is None or not part.text.strip():
            continue
        # A blank line would end the cue, an arrow begin another.
        words = "\n".join(line.strip() for line in part.text.splitlines() if line.strip())
        yield f"\n{_timestamp(times[0])} --> {_timestamp(times[1])}\n{html.escape(words, quote=False)}\n"


def as_json(head: dict[str, Any], parts: Iterable[PartDocument]) -> Iterator[str]:
    """One object: what ``head`` says of the task, and the parts."""
    yield dumps({**head, "parts": []})[:-2]
    for index, part in enumerate(parts):
        yield ("," if index else "") + dumps(part.model_dump(mode="json"))
    yield "]}"


def _heading(part: PartDocument) -> Iterator[str]:
    failed = f" failed: {part.error.code}" if part.error else ""
    if isinstance(part.unit, PageUnit):
        yield f"<!-- page {part.unit.page}{failed} -->\n\n"
    elif isinstance(part.unit, SummaryUnit):
        yield f"## Summary{failed}\n\n"
    elif part.times_s is not None:
        yield f"## {_span(part)}{failed}\n\n"


def _span(part: PartDocument) -> str:
    start_s, end_s = part.times_s or (0.0, 0.0)
    return f"{_timestamp(start_s)} - {_timestamp(end_s)}"


def _timestamp(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds, as WebVTT writes them."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"
