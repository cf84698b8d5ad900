"""Hands what happens to tasks to those who follow them: one subscription and one reader for the whole process.

A follower reads the past itself, once. From then on the hub reads each followed task's stream when its channel says
that there is news, once for all who follow it. A lost message costs time, not events: streams are read again when the
subscription stands anew, and every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio

from api_gateway.store_calls import store_call
from contract.errors import StoreUnavailable
from contract.events import EventBody, TaskEvent, event_order, events_key
from contract.logs import get_logger
from contract.record import TaskRecord

log = get_logger(__name__)

#: Events that wait for a follower who reads slowly; beyond them its stream ends, and it may resume.
_MAX_BEHIND = 1000

#: Between attempts to subscribe, in seconds.
_RECONNECT_S = 0.5

#: How long one read of the subscription waits, in seconds; under the client's own timeout.
_READ_S = 1.0

#: Reads after which every followed stream is read, news or not.
_REREAD_AFTER = 5

#: Keeps the subscription open while nobody follows anything.
_IDLE_CHANNEL = "ovis:events:"


@dataclass(eq=False)
class _Follower:
    """One listener: what it has yet to send, and whether no more will come."""

    waiting: asyncio.Queue[TaskEvent | None] = field(default_factory=asyncio.Queue)

    def push(self, event: TaskEvent | None) -> bool:
        """Hand over an event, None for the end; reply whether the follower keeps up."""
        late = self.waiting.qsize() >= _MAX_BEHIND
        self.waiting.put_nowait(None if late else event)
        return not late


@dataclass(eq=False)
class _Topic:
    """A followed task: the last event that was handed out, and to whom."""

    last_id: str
    followers: set[_Follower] = field(default_factory=set)


class EventHub:
    """Used from the event loop's thread only."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies
        self._topics: dict[str, _Topic] = {}
        self._pubsub: Any = None
        self._stopping = False

    async def run(self) -> None:
        """Listen until canceled; subscribes again whenever the connection is lost."""
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(_IDLE_CHANNEL, *map(events_key, self._topics))
                    self._pubsub = pubsub
                    await self._listen(pubsub)
            except Exception as exc:  # noqa: BLE001 - whatever a broken connection makes the driver raise
                log.warning("events_unheard", reason=type(exc).__name__)
            self._pubsub = None
            await asyncio.sleep(_RECONNECT_S)

    @property
    def stopping(self) -> bool:
        """Whether every stream is being ended."""
        return self._stopping

    def stop(self) -> None:
        """End every stream, now and from now on; a follower may resume elsewhere."""
        self._stopping = True
        for topic in self._topics.values():
            for follower in topic.followers:
                follower.waiting.put_nowait(None)

    async def past(self, task_id: str, after: str | None) -> list[TaskEvent]:
        """The task's events after an id, or all that are kept.

        Raises:
            StoreUnavailable: Redis is away.
        """
        async with store_call():
            entries = await self._client.xrange(events_key(task_id), min=f"({after}" if after else "-")
        return [_event(entry) for entry in entries]

    async def follow(self, record: TaskRecord, after: str | None) -> AsyncGenerator[TaskEvent]:
        """The task's events after an id, or all of them, until its run has ended.

        Goes on when Redis is back. Also ends at a stop, and for a follower who doesn't keep up: it may go on after the
        last event that it got.
        """
        while not self._stopping:
            try:
                async with contextlib.aclosing(self._follow_once(record, after)) as events:
                    async for event in events:
                        after = event.id
                        yield event
                return
            except StoreUnavailable:
                await asyncio.sleep(_RECONNECT_S)

    async def _follow_once(self, record: TaskRecord, after: str | None) -> AsyncGenerator[TaskEvent]:
        """As `follow`; raises ``StoreUnavailable`` where Redis is away at the beginning."""
        sent = event_order(after) if after else (0, 0)
        async with self._following(record.id) as follower:
            for event in await self.past(record.id, after):
                yield event
                sent = event.order
                if event.final and event.body.run >= record.run:
                    return
            if record.status.ended:
                return
            while not self._stopping:
                news = await follower.waiting.get()
                if news is None:
                    return
                if news.order <= sent:
                    continue
                yield news
                sent = news.order
                if news.final and news.body.run >= record.run:
                    return

    @contextlib.asynccontextmanager
    async def _following(self, task_id: str) -> AsyncIterator[_Follower]:
        if task_id not in self._topics:
            # What came before this is in the past that every follower reads; what comes after it is handed out.
            last_id = await self._last_id(task_id)
            self._topics.setdefault(task_id, _Topic(last_id))
        topic = self._topics[task_id]
        follower = _Follower()
        topic.followers.add(follower)
        try:
            if len(topic.followers) == 1:
                await self._tell_redis("subscribe", task_id)
            yield follower
        finally:
            topic.followers.discard(follower)
            if not topic.followers and self._topics.get(task_id) is topic:
                del self._topics[task_id]
                await self._tell_redis("unsubscribe", task_id)

    async def _tell_redis(self, verb: str, task_id: str) -> None:
        """Change the subscription; where it is down, it will be made of all topics anyway."""
        if self._pubsub is not None:
            with contextlib.suppress(Exception):
                await getattr(self._pubsub, verb)(events_key(task_id))

    async def _last_id(self, task_id: str) -> str:
        async with store_call():
            last = await self._client.xrevrange(events_key(task_id), count=1)
        return str(last[0][0]) if last else "0-0"

    async def _listen(self, pubsub: Any) -> None:
        quiet = _REREAD_AFTER
        while True:
            news = set()
            message = await pubsub.get_message(timeout=_READ_S)
            while message is not None:
                # A confirmed subscription is news too: something may have happened just before it stood.
                if message["type"] in ("message", "subscribe"):
                    news.add(str(message["channel"]).removeprefix(_IDLE_CHANNEL))
                message = await pubsub.get_message(timeout=0)
            quiet = quiet + 1 if not news else quiet
            if quiet >= _REREAD_AFTER:
                quiet = 0
                news = set(self._topics)
            await self._hand_out(news & self._topics.keys())

    async def _hand_out(self, task_ids: Iterable[str]) -> None:
        """Read what is new on these streams, once each, and give it to their followers."""
        topics = [(task_id, self._topics[task_id]) for task_id in task_ids]
        if not topics:
            return
        async with self._client.pipeline(transaction=False) as pipe:
            for task_id, topic in topics:
                pipe.xrange(events_key(task_id), min=f"({topic.last_id}")
            async with store_call():
                found = await pipe.execute()
        for (_, topic), entries in zip(topics, found, strict=True):
            for event in map(_event, entries):
                topic.last_id = event.id
                topic.followers -= {follower for follower in topic.followers if not follower.push(event)}


def _event(entry: tuple[str, dict[str, str]]) -> TaskEvent:
    event_id, fields = entry
    return TaskEvent(event_id, EventBody.model_validate_json(fields["event"]))
