"""Tells waiting requests that a task has ended: one subscription for the whole process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis.asyncio

from contract.logs import get_logger
from contract.store import ENDED_CHANNEL

log = get_logger(__name__)

#: Between attempts to subscribe, in seconds.
_RECONNECT_S = 0.5

#: How long one read of the subscription waits, in seconds; under the client's own timeout.
_READ_S = 1.0


class Endings:
    """Fans the channel of ended tasks out to those who wait for one of them.

    A message may be lost: whoever waits also looks at the record from time to time. Used from the event loop's
    thread only.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = cast(Any, client)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.stopping = False

    async def run(self) -> None:
        """Listen until canceled; subscribes again whenever the connection is lost."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(ENDED_CHANNEL)
                    self._wake_all()  # what ended before the subscription was not heard
                    while True:
                        message = await pubsub.get_message(timeout=_READ_S)
                        if message is not None and message["type"] == "message":
                            self._wake(message["data"])
            except Exception as exc:  # noqa: BLE001 - whatever a broken connection makes the driver raise
                log.warning("endings_unheard", reason=type(exc).__name__)
                await asyncio.sleep(_RECONNECT_S)

    def stop(self) -> None:
        """Let everybody who waits go on at once, now and from now on."""
        self.stopping = True
        self._wake_all()

    @property
    def num_tasks(self) -> int:
        """Tasks whose end somebody waits for."""
        return len(self._waiting)

    @contextmanager
    def listen(self, task_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the task may have ended."""
        event = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting[task_id]
            events.discard(event)
            if not events:
                del self._waiting[task_id]

    def _wake(self, task_id: str) -> None:
        for event in self._waiting.get(task_id, ()):
            event.set()

    def _wake_all(self) -> None:
        for task_id in self._waiting:
            self._wake(task_id)
