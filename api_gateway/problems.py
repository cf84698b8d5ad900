"""Turns whatever a request raised into an ``application/problem+json`` response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from api_gateway.errors import RETRY_AFTER_S, FieldError, MethodNotAllowed, Problem, Refused, openai_status
from api_gateway.openai_wire.errors import openai_error, speaks_openai
from contract.errors import (
    FleetError,
    InternalError,
    InvalidRequest,
    MalformedRequest,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from contract.refusals import MAX_FIELD_ERRORS, field_message


def problem_response(
    scope: Scope,
    error: FleetError,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that tells the caller of ``error``."""
    response = _openai(error, errors) if speaks_openai(scope["path"]) else _problem(scope, error, errors)
    response.headers.update(headers or {})
    if error.code in RETRY_AFTER_S:
        response.headers["Retry-After"] = str(RETRY_AFTER_S[error.code])
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = 'Bearer realm="ovis-fleet"'
    return response


def _problem(scope: Scope, error: FleetError, errors: Sequence[FieldError]) -> Response:
    request_id = scope.get("state", {}).get("request_id")
    problem = Problem.of(error.info(), request_id=request_id, errors=tuple(errors))
    text = problem.model_dump_json(exclude_none=True)
    return Response(text, status_code=problem.status, media_type="application/problem+json")


def _openai(error: FleetError, errors: Sequence[FieldError]) -> Response:
    info = error.info()
    pointer = (errors[0].pointer or errors[0].parameter) if errors else info.pointer
    text = openai_error(info, pointer).model_dump_json()
    return Response(text, status_code=openai_status(error.code), media_type="application/json")


def install_handlers(app: FastAPI) -> None:
    """Make every error that a route raises a problem."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def _on_fleet_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, FleetError)
    return problem_response(request.scope, exc)


async def _on_refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    return problem_response(request.scope, exc.error, exc.errors)


async def _on_parameters(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    items: Sequence[Any] = exc.errors()
    errors = tuple(
        FieldError(detail=field_message(item["type"], item["msg"]), parameter=str(item["loc"][-1]))
        for item in items[:MAX_FIELD_ERRORS]
    )
    return problem_response(request.scope, InvalidRequest("a parameter has a value that isn't allowed"), errors)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    if exc.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem_response(request.scope, _from_http(exc), headers=headers)


def _methods(request: Request) -> set[str]:
    """What the path takes, over all its routes; the framework names the first one's methods only."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


def _from_http(exc: HTTPException) -> FleetError:
    """The framework's own errors in our words."""
    if exc.status_code == 404:
        return NotFound("there is nothing at this path")
    if exc.status_code == 405:
        return MethodNotAllowed("this path doesn't take this method")
    if exc.status_code == 413:
        return TooLarge(str(exc.detail))
    if 400 <= exc.status_code < 500:
        return MalformedRequest(str(exc.detail))
    return InternalError("the request failed for a reason of ours")


Handler = Callable[[Request, Exception], Awaitable[Response]]

#: What answers the errors that routes raise; others are faults.
HANDLERS: Mapping[type[Exception], Handler] = {
    FleetError: _on_fleet_error,
    Refused: _on_refused,
    RequestValidationError: _on_parameters,
    HTTPException: _on_http_exception,
}
