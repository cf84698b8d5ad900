"""A listener of event streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    kind: str
    id: str | None
    data: Any


def parse(block: str) -> Event | None:
    """One event of a stream; None for a comment."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
    return Event(fields["event"], fields.get("id"), json.loads(fields["data"])) if fields else None


@contextmanager
def following(api: httpx.Client, task_id: str) -> Iterator[Queue[Event | None]]:
    """A listener in a thread of its own; None is the end of its stream."""
    got: Queue[Event | None] = Queue()

    def listen() -> None:
        with (
            httpx.Client(base_url=api.base_url, headers=api.headers, timeout=30) as client,
            client.stream("GET", f"/v1/tasks/{task_id}/events") as answer,
        ):
            block = ""
            for line in answer.iter_lines():
                block += line + "\n"
                if not line:
                    if event := parse(block):
                        got.put(event)
                    block = ""
        got.put(None)

    thread = threading.Thread(target=listen)
    thread.start()
    yield got
    thread.join(30)
    assert not thread.is_alive()


def seen(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.data.get("status") or event.data.get("state") or event.data["text"]) for event in events]


WHOLE = [("status", "running"), ("part", "succeeded"), ("status", "succeeded")]
