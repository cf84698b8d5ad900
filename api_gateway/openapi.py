"""The description of the interface: what FastAPI derives from the routes, and what holds for all of them alike."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api_gateway.openai_wire.errors import speaks_openai
from api_gateway.routes.documentation import openai_problem, problem

#: FastAPI's own form of a 422, which no route of ours answers with.
_FOREIGN_SCHEMAS = ("HTTPValidationError", "ValidationError")

#: Asked by machines, without a key.
_OPEN_PATHS = {"/livez", "/readyz", "/metrics"}

_KEY_SCHEME = {"type": "http", "scheme": "bearer", "description": "A tenant's key, `sk-...`"}

#: What any route that takes a key may answer.
_WITH_KEY = (401, 403, 429, 503)

_TEXT = {"schema": {"type": "string"}}

#: Which answers give ids, under which parameter they are used elsewhere.
_SOURCES = (
    ("/v1/tasks", "202", "task_id"),
    ("/v1/uploads", "201", "upload_id"),
    ("/v1/files", "200", "file_id"),
    ("/v1/batches", "200", "batch_id"),
)

#: Headers of every answer.
_EVERYWHERE = {
    "X-Request-Id": {"description": "the request's own, or a new one", **_TEXT},
    "traceresponse": {"description": "W3C trace context of this request", **_TEXT},
}

#: Headers of every answer to a tenant that has a limit of requests per second.
_LIMITED = {
    "RateLimit-Policy": {"description": "quota and window in seconds", **_TEXT, "example": '"requests";q=50;w=1'},
    "RateLimit": {"description": "what is left, and for how long", **_TEXT, "example": '"requests";r=49;t=1'},
}

_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}

#: Statuses that say when to ask again.
_ASK_AGAIN = {"202", "429", "503"}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, path)
        document["components"]["securitySchemes"] = {"key": _KEY_SCHEME}
        for source in _SOURCES:
            _link(document, *source)
        for name in _FOREIGN_SCHEMAS:
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema


def _link(document: dict[str, Any], path: str, status: str, parameter: str) -> None:
    """Say at what gives an id which operations take it."""
    takers = {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {parameter: "$response.body#/id"},
        }
        for taker, operations in document["paths"].items()
        for operation in operations.values()
        if f"{{{parameter}}}" in taker
    }
    document["paths"][path]["post"]["responses"][status]["links"] = takers


def _complete(operation: dict[str, Any], path: str) -> None:
    """Add what holds for all routes: the errors of keys and faults, and the headers."""
    with_key = path not in _OPEN_PATHS
    described = openai_problem if speaks_openai(path) else problem
    responses: dict[str, Any] = operation["responses"]
    if with_key:
        operation["security"] = [{"key": []}]
    if "HTTPValidationError" in str(responses.get("422", {}).get("content")):
        del responses["422"]  # a path's text is never of a wrong form: it is found, or 404
    for status in (*(_WITH_KEY if with_key else ()), 500):
        responses.setdefault(str(status), described(status))
    for status, response in responses.items():
        headers = {**_EVERYWHERE, **(_LIMITED if with_key and status != "401" else {})}
        if status in _ASK_AGAIN:
            headers |= _RETRY_AFTER
        response["headers"] = {**headers, **response.get("headers", {})}
    operation["responses"] = dict(sorted(responses.items()))
