"""Operations as methods: one definition serves the blocking client and the one for an event loop."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from ovis_fleet.records import Page
from ovis_fleet.transport import AsyncTransport, Transport
from ovis_fleet.wire import Flow

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """A client whose methods return when they are done."""

    _transport: Transport


class Awaited:
    """A client whose methods are awaited."""

    _transport: AsyncTransport


class Call(Generic[P, T]):
    """An operation, as a method of either client."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        """Takes the operation's parameters and words over.

        Args:
            flow: makes it.
        """
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaited, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Blocking | Awaited | None, owner: type) -> Any:
        """Returns the method: it returns the result, or a coroutine of it."""
        if client is None:
            return self
        transport = client._transport

        @wraps(self._flow)
        def method(*args: P.args, **kwargs: P.kwargs) -> T | Coroutine[Any, Any, T]:
            return transport.run(self._flow(*args, **kwargs))

        return method


class Listing(Generic[P, T]):
    """All of a list, as a method of either client: an iterator that reads page after page as it is consumed."""

    def __init__(self, flow: Callable[Concatenate[str | None, P], Flow[Page[T]]]) -> None:
        """Takes the operation's parameters and words over, but for the cursor.

        Args:
            flow: makes the operation that reads one page.
        """
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: Awaited, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: Blocking | Awaited | None, owner: type) -> Any:
        """Returns the method: it returns an iterator, or an asynchronous one."""
        if client is None:
            return self
        pages = _pages_now if isinstance(client, Blocking) else _pages_later

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return pages(client._transport, lambda cursor: self._flow(cursor, *args, **kwargs))  # type: ignore[arg-type] # the client's kind is its transport's

        method.__doc__ = self.__doc__
        return method


def _pages_now(transport: Transport, page_at: Callable[[str | None], Flow[Page[T]]]) -> Iterator[T]:
    page = transport.run(page_at(None))
    yield from page.items
    while page.next_cursor is not None:
        page = transport.run(page_at(page.next_cursor))
        yield from page.items


async def _pages_later(transport: AsyncTransport, page_at: Callable[[str | None], Flow[Page[T]]]) -> AsyncIterator[T]:
    page = await transport.run(page_at(None))
    for item in page.items:
        yield item
    while page.next_cursor is not None:
        page = await transport.run(page_at(page.next_cursor))
        for item in page.items:
            yield item
