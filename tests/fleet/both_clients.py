"""Either client behind one face, so that both run the same tests."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from ovis_fleet import AsyncClient, Client

#: Opens a client of a gateway; the tests call it as if it were ``Client``.
Open = Callable[..., Any]


class Blocked:
    """An AsyncClient whose event loop runs in another thread."""

    def __init__(self, client: AsyncClient, portal: BlockingPortal) -> None:
        self._client = client
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def blocked(*args: Any, **kwargs: Any) -> Any:
            made = method(*args, **kwargs)
            if inspect.isasyncgen(made):
                return self._items(made)

            async def awaited() -> Any:
                return await made

            return self._portal.call(awaited)

        return blocked

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        end = object()

        async def following() -> Any:
            return await anext(items, end)

        while (item := self._portal.call(following)) is not end:
            yield item


@contextmanager
def open_client(kind: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Opens a ``Client``, or an ``AsyncClient`` that is called as one."""
    if kind == "blocking":
        with Client(*args, **kwargs) as client:
            yield client
        return
    with start_blocking_portal() as portal:
        blocked = Blocked(AsyncClient(*args, **kwargs), portal)
        yield blocked
        blocked.close()
