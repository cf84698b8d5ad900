"""Attempts as steps of their tasks' traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from contract.spans import OpenStep, Spans, step
from contract.task import Claim
from contract.tracing import TraceContext

#: Ends of attempts that are nobody's fault.
_WELL = ("succeeded", "planned", "assembled", "stopped", "canceled", "lost", "stale")


@dataclass
class AttemptStep:
    """An attempt that goes on."""

    _open: OpenStep = field(default_factory=OpenStep)

    def end(self, outcome: str) -> None:
        """Say what came of the attempt."""
        self._open.attributes["ovis.outcome"] = outcome
        self._open.failed = outcome not in _WELL


@contextmanager
def told(spans: Spans, claim: Claim, name: str) -> Iterator[AttemptStep]:
    """Tell of what happens inside as an attempt; nothing is told of tasks without a recorded trace."""
    trace = TraceContext.begin(claim.spec.traceparent, claim.spec.tracestate)
    with step(spans, trace, name, "consumer") as begun:
        begun.attributes |= {
            "ovis.task": claim.task_id,
            "ovis.attempt": claim.number,
            "ovis.model": claim.spec.model,
            "ovis.queued_ms": claim.queued_ms,
        }
        yield AttemptStep(begun)
