"""Estimates: what a task would take, asked by the gateway and answered by an io worker through two Redis lists.

Nothing here needs to survive: a question that nobody answers in time is forgotten by both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.error_info import ErrorInfo
from contract.results import Usage
from contract.scripting import Command, load_script
from contract.task import TaskSpec

#: Questions that wait for an io worker.
QUESTIONS_KEY = "ovis:estimates"

#: Most of them, of all tenants.
MAX_QUESTIONS = 1000

#: What becomes of a question.
AskOutcome = Literal["asked", "tenant_full", "queue_full"]

#: How long an answer waits for the gateway that asked.
ANSWER_S = 60

#: Finished parts after which the sums of a queue's pace are halved, and how long they are remembered unused.
_PACE_PARTS = 500
_PACE_S = 7 * 86_400


class EstimateQuestion(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True)
    id: str
    spec: TaskSpec
    until_ms: int = Field(description="when the asker gives up, by the clock of Redis")


class Estimate(BaseModel):
    """What a task would take, each part run once."""

    model_config = ConfigDict(frozen=True)
    parts: int = Field(description="requests to the model; a summary of clips is one")
    images: int = 0
    pages: int = 0
    frames: int = 0
    tiles: int = 0
    visual_tokens: int = 0
    max_output_tokens: int = Field(description="no part can give more than its limit")
    expected_output_tokens: int | None = Field(description="as parts of this model gave lately; null where none did")
    expected_seconds: float | None = Field(
        description="seconds in the engine, as usage.gpu_seconds counts them; null where no part ran lately"
    )


class EstimateAnswer(BaseModel):
    """The answer: one of both."""

    model_config = ConfigDict(frozen=True)
    estimate: Estimate | None = None
    error: ErrorInfo | None = None


class Pace(BaseModel):
    """How fast a model's parts went lately: sums over them."""

    model_config = ConfigDict(frozen=True)
    parts: int = 0
    output_tokens: int = 0
    cost: int = 0
    seconds: float = 0.0

    def output_of(self, parts: int, most: int) -> int | None:
        """Output tokens that so many parts may be expected to give, at most ``most``."""
        return min(most, round(parts * self.output_tokens / self.parts)) if self.parts else None

    def seconds_of(self, cost: int | None) -> float | None:
        """Engine seconds that visual plus output tokens may be expected to take."""
        return None if cost is None or not self.cost else round(self.seconds * cost / self.cost, 3)


def ask(question: EstimateQuestion, tenant: str, tenant_limit: int) -> Command[AskOutcome]:
    """Put a question where io workers take it, unless too many wait."""
    args = (tenant, question.id, question.model_dump_json(), question.until_ms, tenant_limit, MAX_QUESTIONS)
    return Command(load_script("estimate_ask"), args, lambda reply: reply[0])


def asked_key(tenant: str) -> str:
    """A tenant's questions that wait for their answer, by when their askers give up."""
    return f"ovis:estimates:of:{tenant}"


def answer_key(question_id: str) -> str:
    """Where the answer to a question is pushed."""
    return f"ovis:estimate:{question_id}"


def pace_key(queue: str) -> str:
    """Key of a queue's pace."""
    return f"ovis:q:{queue}:pace"


def read_pace(fields: Mapping[Any, Any]) -> Pace:
    """Decode the hash at ``pace_key``."""
    return Pace.model_validate(dict(fields))


def note_pace(queue: str, usage: Usage) -> Command[None]:
    """Note what a finished part took."""
    args = (queue, usage.output_tokens, usage.cost, usage.gpu_seconds, _PACE_PARTS, _PACE_S)
    return Command(load_script("pace"), args, lambda _: None)
