"""Hands tasks to Redis many at a time: what comes in while one script runs goes into the next.

A call of Redis costs the gateway more than anything else that it does for a task. A task that comes alone is sent at
once, so nobody waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque

import redis.asyncio

from api_gateway.store_calls import store_call
from contract import submissions
from contract.errors import FleetError, InternalError, StoreUnavailable
from contract.redis_io import run_async

#: Tasks of one script: it takes some 60 microseconds for each, and Redis does nothing else meanwhile.
_MOST_TASKS = 8

#: Scripts on their way at once: one runs while the next one is written.
_MOST_SCRIPTS = 2

_Waiting = tuple[submissions.Submission, "asyncio.Future[submissions.Submitted]"]


class SubmissionBatches:
    """Sends submissions. Used from the event loop's thread only.

    Args:
        client: Its connections are shared.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: deque[_Waiting] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def send(self, submission: submissions.Submission) -> submissions.Submitted:
        """Run the script for ``submission``; its reply says what became of it.

        Raises:
            StoreFull: Redis is out of memory; nothing was accepted.
            StoreUnavailable: Redis is away; the task may or may not have been accepted.
            InternalError: The script failed.
        """
        future: asyncio.Future[submissions.Submitted] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        if len(self._senders) < _MOST_SCRIPTS:
            sender = asyncio.create_task(self._send_all())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        submitted = await future
        submitted.check()
        return submitted

    async def _send_all(self) -> None:
        """Send until nobody waits."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_MOST_TASKS, len(self._waiting)))]
            try:
                async with store_call():
                    replies = await run_async(self._client, submissions.submit_all([item for item, _ in batch]))
            except StoreUnavailable as exc:
                # Who came meanwhile has waited, too, and would wait as long again.
                batch.extend(self._waiting)
                self._waiting.clear()
                _refuse(batch, exc)
            except InternalError as exc:
                _refuse(batch, exc)
            except BaseException:
                _refuse([*batch, *self._waiting], StoreUnavailable("the gateway is stopping; try again later"))
                self._waiting.clear()
                raise
            else:
                for (_, future), reply in zip(batch, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)


def _refuse(batch: list[_Waiting], error: FleetError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(type(error)(str(error)))
