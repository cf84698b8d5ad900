"""The busiest route without the framework's routing, which takes as long as all that the route does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api_gateway.problems import HANDLERS


class ShortWay:
    """ASGI middleware, the innermost: calls an endpoint by itself and leaves all other requests to the application.

    Args:
        app: The rest of the application.
        method: The endpoint's.
        path: The endpoint's, without parameters.
        endpoint: Takes a request and gives the response. It has no dependencies and no parameters.
        route: The framework's own for it, which documents it and names it in logs and metrics.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        method: str,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        route: BaseRoute,
    ) -> None:
        self._app = app
        self._method = method
        self._path = path
        self._endpoint = endpoint
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        ours = scope["type"] == "http" and scope["method"] == self._method and scope["path"] == self._path
        if not ours:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        request = Request(scope, receive, send)
        try:
            response = await self._endpoint(request)
        except tuple(HANDLERS) as exc:
            handler = next(HANDLERS[kind] for kind in type(exc).__mro__ if kind in HANDLERS)
            response = await handler(request, exc)
        await response(scope, receive, send)
