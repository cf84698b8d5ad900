"""Finished steps of traces, told to nobody or to an OpenTelemetry collector.

The steps' ids are our own (``contract.tracing``): they are in records and headers before anybody knows whether a step
will be told. Only steps of traces that are recorded (the lowest flag of ``traceparent``) are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from contract.tracing import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

StepKind = Literal["server", "consumer", "client"]


@dataclass(frozen=True)
class Step:
    """One finished step.

    Attributes:
        name: What was done; one of few.
        start_ns, end_ns: Unix times.
        attributes: What is known of it; never prompts, media, results or keys.
        failed: Whether it ended with an error.
    """

    trace: TraceContext
    name: str
    kind: StepKind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int]
    failed: bool = False


class Spans(Protocol):
    """Where steps are told. Any thread; never blocks and never raises."""

    def tell(self, step: Step) -> None:
        """Tell of a finished step."""
        ...

    def close(self) -> None:
        """Tell what is still held back, for a few seconds at most."""
        ...


class NoSpans:
    """Tells nobody."""

    def tell(self, step: Step) -> None:
        """Forget the step."""

    def close(self) -> None:
        """There is nothing to do."""


class OtelSpans:
    """Tells an OpenTelemetry collector over OTLP/HTTP, from a thread of its own; what it can't take in time is dropped.

    Args:
        endpoint: The collector's address, as ``http://collector:4318``.
        service: Name of the role.

    Raises:
        ImportError: The extra ``otel`` isn't installed.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._resource = Resource({"service.name": service})
        self._processor = BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5))

    def tell(self, step: Step) -> None:
        """Queue a step of a recorded trace."""
        if step.trace.recorded:
            self._processor.on_end(self._span(step))

    def close(self) -> None:
        """Send what is queued."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _span(self, step: Step) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

        def context(span_id: str, *, is_remote: bool) -> SpanContext:
            return SpanContext(
                int(step.trace.trace_id, 16),
                int(span_id, 16),
                is_remote=is_remote,
                trace_flags=TraceFlags(int(step.trace.flags, 16)),
                trace_state=TraceState.from_header([step.trace.state]) if step.trace.state else None,
            )

        parent_id = step.trace.parent_id
        return ReadableSpan(
            step.name,
            context=context(step.trace.span_id, is_remote=False),
            parent=context(parent_id, is_remote=True) if parent_id else None,
            resource=self._resource,
            attributes=dict(step.attributes),
            kind=SpanKind[step.kind.upper()],
            status=Status(StatusCode.ERROR if step.failed else StatusCode.UNSET),
            start_time=step.start_ns,
            end_time=step.end_ns,
            instrumentation_scope=InstrumentationScope("ovis-fleet"),
        )


def can_tell() -> bool:
    """Whether the extra ``otel`` is installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        return False
    return True


def open_spans(endpoint: str | None, service: str) -> Spans:
    """Where a role's steps are told: nobody unless there is an ``endpoint``.

    Settings with an endpoint are refused where the extra isn't installed.
    """
    return OtelSpans(endpoint, service) if endpoint else NoSpans()


@dataclass
class OpenStep:
    """A step that goes on; what is put into ``attributes`` is told at its end."""

    attributes: dict[str, str | int] = field(default_factory=dict)
    failed: bool = False


@contextmanager
def step(spans: Spans, trace: TraceContext, name: str, kind: StepKind) -> Iterator[OpenStep]:
    """Tell of what happens inside as one step; an exception fails it."""
    begun, start_ns = OpenStep(), time.time_ns()
    try:
        yield begun
    except BaseException:
        begun.failed = True
        raise
    finally:
        spans.tell(Step(trace, name, kind, start_ns, time.time_ns(), begun.attributes, begun.failed))
