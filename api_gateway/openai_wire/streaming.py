"""A chat completion as it is written: chunks made of a task's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from sse_starlette import ServerSentEvent

from api_gateway.blob_calls import BlobCalls
from api_gateway.event_hub import EventHub
from api_gateway.openai_wire.errors import openai_error
from api_gateway.openai_wire.texts import read_answer
from api_gateway.records import Records
from contract.errors import DeadlineExceeded, FleetError, GatewayStopping, Gone, InternalError
from contract.events import EventBody, TaskEvent
from contract.openai_wire.answers import Chunk, ChunkChoice, Piece, TokenUsage, completion_id, finish_of
from contract.record import TaskRecord

#: Between two looks at a task whose events ended early, in seconds.
_AGAIN_S = 0.5


@dataclass
class Transcript:
    """What a task has written, put together from its deltas, and what of it was sent.

    A later attempt begins anew. What was sent can't be taken back: it has to write the same again.
    """

    attempt: int = 0
    written: str = ""
    sent: str = ""

    def take(self, delta: EventBody) -> str:
        """Take a piece; reply what is to be sent, "" where there is nothing new.

        Raises:
            InternalError: The attempt writes something else than what was sent.
        """
        attempt, offset = delta.attempt or 0, delta.offset or 0
        if attempt > self.attempt:
            self.attempt, self.written = attempt, ""
        if attempt < self.attempt or offset > len(self.written):
            return ""  # a gap is closed by the result
        self.written = self.written[:offset] + (delta.text or "")
        return "" if self.sent.startswith(self.written) else self.complete(self.written)

    def complete(self, text: str) -> str:
        """Reply what is to be sent of a text that is longer than what was sent, or as long. Raises as ``take``."""
        if not text.startswith(self.sent):
            raise InternalError("the answer was begun anew and came out differently; ask again")
        piece, self.sent = text[len(self.sent) :], text
        return piece


@dataclass
class ChatStream:
    """Writes one answer.

    Attributes:
        record: The task as it was accepted; later as it was last read.
        model: As it was asked for.
        includes_usage: Whether a last chunk says what the request took.
        wait_s: Longest that the answer may take, in seconds.
    """

    record: TaskRecord
    model: str
    includes_usage: bool
    wait_s: float
    events: EventHub
    records: Records
    blobs: BlobCalls
    _transcript: Transcript = field(default_factory=Transcript)
    _last_id: str | None = None

    async def chunks(self) -> AsyncIterator[ServerSentEvent]:
        """The answer's chunks, then "[DONE]"; an error ends them early."""
        yield self._chunk(ChunkChoice(delta=Piece(role="assistant", content="")))
        try:
            async for text in self._texts():
                yield self._chunk(ChunkChoice(delta=Piece(content=text)))
        except FleetError as exc:
            yield _sent(openai_error(exc.info()).model_dump_json())
            return
        yield self._chunk(ChunkChoice(delta=Piece(), finish_reason=finish_of(self.record)))
        if self.includes_usage:
            yield self._chunk(usage=TokenUsage.of(self.record.usage))
        yield _sent("[DONE]")

    async def _texts(self) -> AsyncIterator[str]:
        deadline = asyncio.get_running_loop().time() + self.wait_s
        while not self.record.status.ended:
            async for event in self._events(deadline):
                self._last_id = event.id
                piece = self._transcript.take(event.body) if event.body.kind == "delta" else ""
                if piece:
                    yield piece
            record = await self.records.read(self.record.id)
            if record is None:
                raise Gone("the task of this completion was purged")
            self.record = record
            if not record.status.ended:
                if self.events.stopping:
                    raise GatewayStopping("the gateway is going away; ask again")
                await asyncio.sleep(_AGAIN_S)
        rest = self._transcript.complete((await read_answer(self.record, self.blobs)).text)
        if rest:
            yield rest

    async def _events(self, deadline: float) -> AsyncIterator[TaskEvent]:
        """The task's events, until its end or the deadline by the loop's clock."""
        loop = asyncio.get_running_loop()
        async with aclosing(self.events.follow(self.record, self._last_id)) as events:
            while True:
                try:
                    yield await asyncio.wait_for(anext(events), max(0.0, deadline - loop.time()))
                except StopAsyncIteration:
                    return
                except TimeoutError as exc:
                    raise DeadlineExceeded(f"the answer wasn't there after {self.wait_s:g} s") from exc

    def _chunk(self, *choices: ChunkChoice, usage: TokenUsage | None = None) -> ServerSentEvent:
        chunk = Chunk(
            id=completion_id(self.record),
            created=self.record.created_ms // 1000,
            model=self.model,
            choices=choices,
            usage=usage,
        )
        left_out = {"usage"} if usage is None else None
        text = chunk.model_dump_json(exclude=left_out, exclude_none=False)
        return _sent(text)


def _sent(data: str) -> ServerSentEvent:
    return ServerSentEvent(data, sep="\n")
