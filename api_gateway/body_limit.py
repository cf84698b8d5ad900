"""Refuses bodies that are too long, before and while they arrive, without keeping them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.problems import problem_response
from contract.errors import TooLarge


class BodyLimit:
    """ASGI middleware: no request's body is longer than ``max_bytes``, or than what ``longer`` says for its path."""

    def __init__(self, app: ASGIApp, max_bytes: int, longer: Mapping[str, int] = MappingProxyType({})) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._longer = longer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 for a declared length over the limit; count what arrives otherwise."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._longer.get(scope["path"], self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
            error = TooLarge(f"the body has {declared} bytes; the limit is {max_bytes}")
            await problem_response(scope, error)(scope, receive, send)
            return
        num_received = 0

        async def counted() -> Message:
            nonlocal num_received
            message = await receive()
            num_received += len(message.get("body", b""))
            if num_received > max_bytes:
                raise TooLarge(f"the body has more than {max_bytes} bytes, which is the limit")
            return message

        await self._app(scope, counted, send)
