"""The Python clients of a fleet's gateway: blocking, and for an event loop."""

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Literal, Self, overload

import stamina

from ovis_fleet import task_calls, tenant_calls, uploading, webhook_calls
from ovis_fleet.binding import Awaited, Blocking, Call, Listing
from ovis_fleet.events import EventReading
from ovis_fleet.part_records import Event
from ovis_fleet.repeating import endless_repetition
from ovis_fleet.task_calls import ResultFormat, TextFormat
from ovis_fleet.transport import AsyncTransport, Transport
from ovis_fleet.wire import read_object

#: How long a gateway may be away before a reader of events gives up: a restart takes seconds.
_OUTAGE_S = 30.0


class Operations:
    """What a tenant can do. Each is described where it is made: ``task_calls``, ``tenant_calls``, ``webhook_calls``.

    ``list``, ``dead_letters``, ``parts_page`` and ``deliveries_page`` read one page; those called ``list_all``,
    ``all_dead_letters``, ``parts`` and ``deliveries`` iterate over all.
    """

    submit = Call(task_calls.submit)
    estimate = Call(task_calls.estimate)
    get = Call(task_calls.get)
    wait = Call(task_calls.wait)
    cancel = Call(task_calls.cancel)
    retry = Call(task_calls.retry)
    delete = Call(task_calls.delete)
    list = Call(task_calls.page)
    list_all = Listing(task_calls.page)
    parts_page = Call(task_calls.part_page)
    upload = Call(uploading.upload)

    dead_letters = Call(tenant_calls.dead_letter_page)
    all_dead_letters = Listing(tenant_calls.dead_letter_page)
    dead_letter = Call(tenant_calls.dead_letter)
    replay = Call(tenant_calls.replay)
    discard = Call(tenant_calls.discard)
    models = Call(tenant_calls.models)
    usage = Call(tenant_calls.usage)
    limits = Call(tenant_calls.limits)

    create_endpoint = Call(webhook_calls.create_endpoint)
    endpoints = Call(webhook_calls.endpoints)
    endpoint = Call(webhook_calls.endpoint)
    change_endpoint = Call(webhook_calls.change_endpoint)
    delete_endpoint = Call(webhook_calls.delete_endpoint)
    test_endpoint = Call(webhook_calls.test_endpoint)
    rotate_endpoint_secret = Call(webhook_calls.rotate_endpoint_secret)
    rotate_webhook_secret = Call(webhook_calls.rotate_webhook_secret)
    deliveries_page = Call(webhook_calls.delivery_page)
    deliveries = Listing(webhook_calls.delivery_page)
    delivery = Call(webhook_calls.delivery)
    replay_delivery = Call(webhook_calls.replay_delivery)

    parts = Listing(task_calls.part_page)


class Client(Operations, Blocking):
    """Talks to one gateway as one tenant; a context manager. Any thread may call any method.

    All methods raise ``ApiError`` when the gateway refuses and ``UnreachableError`` when it doesn't answer. Broken
    connections and answers with ``Retry-After`` are tried again a few times first; submissions and retries carry an
    idempotency key, so that trying again never makes a second task.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        """Opens nothing yet.

        Args:
            base_url: the gateway's address, such as ``http://127.0.0.1:8080``.
            api_key: ``sk-...``; sent to that address only.
            timeout_s: for connecting, and for each silence beyond a wait that was asked for.
        """
        self._transport = Transport(base_url, api_key, timeout_s)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        self.close()

    @overload
    def result(self, task_id: str, format: Literal["json"] = "json", *, part: int | None = None) -> dict[str, Any]: ...
    @overload
    def result(self, task_id: str, format: TextFormat, *, part: int | None = None) -> str: ...
    def result(
        self,
        task_id: str,
        format: ResultFormat = "json",  # noqa: A002 - the gateway's word for it
        *,
        part: int | None = None,
    ) -> dict[str, Any] | str:
        """Reads a succeeded task's result, from the store when it is too large for the gateway.

        Args:
            task_id: which.
            format: ``json`` for the whole result; ``text``, ``markdown`` or ``vtt`` for what was read.
            part: one page's or clip's number, from 0, which may be read while the others still run; None for all.
        """
        response = self._transport.run(task_calls.result(task_id, format, part))
        return read_object(response) if format == "json" else response.text

    def events(self, task_id: str, *, after: str | None = None) -> Iterator[Event]:
        """Follows a task until its run has ended. A connection that breaks is made again, and no event is lost.

        Args:
            task_id: which.
            after: an event's id, to go on after it; from the task's beginning by default.
        """
        reading = EventReading(task_id, after)
        while not reading.is_over:
            for attempt in stamina.retry_context(**endless_repetition(_OUTAGE_S)):
                with attempt, reading.connection(), self._transport.stream(reading.ask()) as source:
                    if reading.begins(source.response):
                        for sent in source.iter_sse():
                            if (event := reading.take(sent)) is not None:
                                yield event


class AsyncClient(Operations, Awaited):
    """``Client`` for one event loop: its methods are awaited, its iterators asynchronous."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        """Opens nothing yet; see ``Client``."""
        self._transport = AsyncTransport(base_url, api_key, timeout_s)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        """Returns the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        await self.close()

    @overload
    async def result(
        self, task_id: str, format: Literal["json"] = "json", *, part: int | None = None
    ) -> dict[str, Any]: ...
    @overload
    async def result(self, task_id: str, format: TextFormat, *, part: int | None = None) -> str: ...
    async def result(
        self,
        task_id: str,
        format: ResultFormat = "json",  # noqa: A002 - the gateway's word for it
        *,
        part: int | None = None,
    ) -> dict[str, Any] | str:
        """Reads a succeeded task's result; see ``Client.result``."""
        response = await self._transport.run(task_calls.result(task_id, format, part))
        return read_object(response) if format == "json" else response.text

    async def events(self, task_id: str, *, after: str | None = None) -> AsyncIterator[Event]:
        """Follows a task until its run has ended; see ``Client.events``."""
        reading = EventReading(task_id, after)
        while not reading.is_over:
            async for attempt in stamina.retry_context(**endless_repetition(_OUTAGE_S)):
                with attempt, reading.connection():
                    async with self._transport.stream(reading.ask()) as source:
                        if reading.begins(source.response):
                            async for sent in source.aiter_sse():
                                if (event := reading.take(sent)) is not None:
                                    yield event
