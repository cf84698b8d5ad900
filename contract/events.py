"""What those who follow a task are told: status, ended parts, and what is being written.

The scripts that change a task append to the stream ``ovis:events:<id>`` and publish on the channel of that name. An
event's id is the stream's ("<ms>-<n>"): it grows, so a follower can go on after the last one it saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contract.scripting import Command, load_script
from contract.task import TaskStatus

#: What a stream gives out as an id.
EVENT_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")


def events_key(task_id: str) -> str:
    """Key of a task's stream, and its channel."""
    return f"ovis:events:{task_id}"


class EventBody(BaseModel):
    """One event without its id. Fields that a kind doesn't have are left out of its JSON.

    Attributes:
        run: Of the task.
        status: kind "status": the task's new one.
        part, state: kind "part": the part, and how it ended.
        attempt, offset, text: kind "delta": which claim of the part writes, and what stands at which character of its
            text. A later attempt begins at 0 again: it replaces what the one before wrote.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: Literal["status", "part", "delta"]
    run: int
    status: TaskStatus | None = None
    part: int | None = None
    state: Literal["succeeded", "failed", "canceled"] | None = None
    attempt: int | None = None
    offset: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class TaskEvent:
    """One event of a stream."""

    id: str
    body: EventBody

    @property
    def order(self) -> tuple[int, int]:
        """Grows along the stream."""
        return event_order(self.id)

    @property
    def final(self) -> bool:
        """Whether the run has ended with it."""
        return self.body.status is not None and self.body.status.ended


def event_order(event_id: str) -> tuple[int, int]:
    """What ids are compared by."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


def append_delta(token: str, offset: int, text: str) -> Command[bool]:
    """Tell followers what the attempt with this token has written; reply whether it still holds its lease.

    Args:
        token: The attempt's.
        offset: Characters of the part's text before this piece.
        text: The piece.
    """
    return Command(load_script("append_delta"), (token, offset, text), bool)
