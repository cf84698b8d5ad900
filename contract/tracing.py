"""W3C trace context: who a piece of work belongs to, from the caller's request to logs and webhooks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

#: https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True)
class TraceContext:
    """One span of a trace.

    Attributes:
        trace_id: 32 hexadecimal digits, shared by all that belongs together.
        span_id: 16 hexadecimal digits, this step's own.
        flags: Two hexadecimal digits; the lowest bit says that the trace is recorded.
    """

    trace_id: str
    span_id: str
    flags: str = "00"

    @classmethod
    def begin(cls, traceparent: str | None) -> TraceContext:
        """A step of the trace that ``traceparent`` tells of, or of a new trace where it is missing or wrong."""
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match:
            version, trace_id, parent_id, flags, more = match.groups()
            readable = version != "ff" and not (version == "00" and more)
            if readable and trace_id != _NO_TRACE and parent_id != _NO_SPAN:
                return cls(trace_id, os.urandom(8).hex(), flags)
        ids = os.urandom(24).hex()
        return cls(ids[:32], ids[32:])

    def __str__(self) -> str:
        """The value of ``traceparent`` for what this step calls, and of ``traceresponse`` for what called it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"
