"""The two ways to the gateway: blocking, and for an event loop. The key goes to the gateway alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import metadata
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx
import stamina
from httpx_sse import EventSource

from ovis_fleet.errors import ClientError
from ovis_fleet.repeating import repetition, worded
from ovis_fleet.wire import Ask, Flow, Pause, Running, Step, checked

T = TypeVar("T")


class Transport:
    """A pool of connections for blocking calls. Any thread may use it."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float) -> None:
        """Opens nothing yet.

        Args:
            base_url: the gateway's address.
            api_key: sent to that address only.
            timeout_s: for each connection, and for each silence of the gateway.
        """
        self._timeout_s = timeout_s
        options = _options(base_url)
        self._gateway = httpx.Client(base_url=base_url, headers=_headers(api_key), **options)
        self._elsewhere = httpx.Client(**options)

    def close(self) -> None:
        """Closes the connections."""
        self._gateway.close()
        self._elsewhere.close()

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end.

        Raises:
            ClientError: what the flow doesn't handle.
        """
        running = Running(flow)
        while (step := running.step) is not None:
            running.feed(self._outcome(step))
        return running.result

    @contextmanager
    def stream(self, request: Ask) -> Iterator[EventSource]:
        """Opens an answer that is read as it comes. Not repeated.

        Raises:
            ApiError: when the gateway refuses.
            UnreachableError: when the connection can't be made, or breaks within the context.
        """
        with worded(self._gateway.base_url), ExitStack() as stack:
            arguments = request.arguments(stack, self._timeout_s)
            with self._gateway.stream(**arguments) as response:
                if response.is_error:
                    response.read()
                yield EventSource(checked(response))

    def _outcome(self, step: Step) -> httpx.Response | ClientError | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        client = self._elsewhere if step.is_foreign else self._gateway
        try:
            for attempt in stamina.retry_context(**repetition(step)):
                with attempt, worded(_place(client, step)), ExitStack() as stack:
                    return checked(client.request(**step.arguments(stack, self._timeout_s)))
        except ClientError as exc:
            return exc
        raise AssertionError("the last attempt returns or raises")


class AsyncTransport:
    """A pool of connections for one event loop."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float) -> None:
        """Opens nothing yet; see ``Transport``."""
        self._timeout_s = timeout_s
        options = _options(base_url)
        self._gateway = httpx.AsyncClient(base_url=base_url, headers=_headers(api_key), **options)
        self._elsewhere = httpx.AsyncClient(**options)

    async def close(self) -> None:
        """Closes the connections."""
        await self._gateway.aclose()
        await self._elsewhere.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end; see ``Transport.run``."""
        running = Running(flow)
        while (step := running.step) is not None:
            running.feed(await self._outcome(step))
        return running.result

    @asynccontextmanager
    async def stream(self, request: Ask) -> AsyncIterator[EventSource]:
        """Opens an answer that is read as it comes; see ``Transport.stream``."""
        with worded(self._gateway.base_url), ExitStack() as stack:
            arguments = request.arguments(stack, self._timeout_s)
            async with self._gateway.stream(**arguments) as response:
                if response.is_error:
                    await response.aread()
                yield EventSource(checked(response))

    async def _outcome(self, step: Step) -> httpx.Response | ClientError | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        client = self._elsewhere if step.is_foreign else self._gateway
        try:
            async for attempt in stamina.retry_context(**repetition(step)):
                with attempt, worded(_place(client, step)), ExitStack() as stack:
                    return checked(await client.request(**step.arguments(stack, self._timeout_s)))
        except ClientError as exc:
            return exc
        raise AssertionError("the last attempt returns or raises")


def _headers(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}", "User-Agent": f"ovis-fleet/{metadata.version('ovis-fleet')}"}


def _options(base_url: str) -> dict[str, Any]:
    """Returns what both pools are made with; no proxy is asked for this machine."""
    return {"verify": httpx.create_ssl_context(), "trust_env": not _is_loopback(httpx.URL(base_url).host)}


def _place(client: httpx.Client | httpx.AsyncClient, request: Ask) -> httpx.URL:
    """Returns whom a failure is to be put down to; a presigned address is a secret, so the host alone."""
    if not request.is_foreign:
        return client.base_url
    url = httpx.URL(request.target)
    return httpx.URL(scheme=url.scheme, host=url.host, port=url.port)


def _is_loopback(host: str) -> bool:
    """Tells whether the host is this machine, which no proxy should be asked for."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
