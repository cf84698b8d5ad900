"""W3C trace context: who a piece of work belongs to, from the caller's request to logs and webhooks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

#: https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

#: https://www.w3.org/TR/trace-context/#tracestate-header: it is others', so it is passed on as it came.
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True)
class TraceContext:
    """One span of a trace.

    Attributes:
        trace_id: 32 hexadecimal digits, shared by all that belongs together.
        span_id: 16 hexadecimal digits, this step's own.
        flags: Two hexadecimal digits; the lowest bit says that the trace is recorded.
        state: What tracing systems on the way have to say (``tracestate``); None where they say nothing.
        parent_id: The step that this one follows from; None for the first.
    """

    trace_id: str
    span_id: str
    flags: str = "00"
    state: str | None = None
    parent_id: str | None = None

    @classmethod
    def begin(cls, traceparent: str | None, tracestate: str | None = None, *, recorded: bool = False) -> TraceContext:
        """A step of the trace that ``traceparent`` tells of, or of a new trace where it is missing or wrong.

        ``tracestate`` goes with a trace that goes on; one that is too long or no plain text is dropped. A new
        trace is ``recorded`` or not.
        """
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match:
            version, trace_id, parent_id, flags, more = match.groups()
            readable = version != "ff" and not (version == "00" and more)
            if readable and trace_id != _NO_TRACE and parent_id != _NO_SPAN:
                state = tracestate if _TRACESTATE.fullmatch(tracestate or "") else None
                return cls(trace_id, os.urandom(8).hex(), flags, state, parent_id)
        ids = os.urandom(24).hex()
        return cls(ids[:32], ids[32:], "01" if recorded else "00")

    @property
    def recorded(self) -> bool:
        """Whether the trace's steps are to be told to a tracing system."""
        return bool(int(self.flags, 16) & 1)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What tells somebody who is called of this step."""
        return [("traceparent", str(self)), *([("tracestate", self.state)] if self.state else ())]

    def __str__(self) -> str:
        """The value of ``traceparent`` for what this step calls, and of ``traceresponse`` for what called it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"
