"""What every request leaves behind: an id, a step of a trace, a count, a time and one line in the log."""

from __future__ import annotations

import os
import random
import re
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.problems import problem_response
from contract.errors import InternalError
from contract.logs import get_logger
from contract.metrics import GatewayMetrics
from contract.spans import Spans, Step
from contract.tracing import TraceContext

log = get_logger(__name__)

#: Ids that callers may choose; anything else is replaced.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

#: Asked every few seconds by machines: not worth a line each.
_QUIET_ROUTES = {"/livez", "/readyz", "/metrics"}

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

#: Logged where the caller went away before its request was read (nginx's number); nobody receives it.
_CLIENT_GONE = 499


class Observation:
    """ASGI middleware, the outermost of ours: request ids, metrics, the access log, and the last answer to a fault."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, spans: Spans, trace_share: float) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans
        self._trace_share = trace_share
        self._known_meters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        trace = TraceContext.begin(
            headers.get("traceparent"),
            headers.get("tracestate"),
            recorded=random.random() < self._trace_share,  # noqa: S311 - not a secret
        )
        answered: dict[str, str] = {"x-request-id": request_id, "traceresponse": str(trace)}
        scope.setdefault("state", {}).update(request_id=request_id, trace=trace, response_headers=answered)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name.encode(), value.encode()) for name, value in answered.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        start = time.monotonic()
        # Each request is an asyncio task with a context of its own, so that nothing need be unbound.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=trace.trace_id)
        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:
            log.exception("request_broke")
            if status is None:
                error = InternalError("the request failed for a reason of ours; the request id helps to find it")
                await problem_response(scope, error)(scope, receive, send_with_id)
        finally:
            self._record(scope, status or _CLIENT_GONE, time.monotonic() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        count, times = self._meters(route, method, status)
        count.inc()
        times.observe(seconds)
        fields = {"task_id": scope.get("path_params", {}).get("task_id"), "tenant": scope["state"].get("tenant")}
        known = {name: value for name, value in fields.items() if value is not None}
        write = log.debug if route in _QUIET_ROUTES else log.info
        write("request", method=method, route=route, status=status, seconds=round(seconds, 4), **known)
        self._tell(scope, method, route, status, seconds)

    def _tell(self, scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
        trace: TraceContext = scope["state"]["trace"]
        if not trace.recorded or route in _QUIET_ROUTES:
            return
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
        end_ns = time.time_ns()
        start_ns = end_ns - round(seconds * 1e9)
        self._spans.tell(Step(trace, f"{method} {route}", "server", start_ns, end_ns, attributes, status >= 500))

    def _meters(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """What counts such answers; looked up once, as they are few."""
        kind = (route, method, status)
        if kind not in self._known_meters:
            count = self._metrics.requests.labels(route, method, str(status))
            self._known_meters[kind] = count, self._metrics.request_seconds.labels(route)
        return self._known_meters[kind]
