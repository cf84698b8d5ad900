"""What the OpenAPI document says of errors and of bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api_gateway.errors import Problem
from api_gateway.requests import TaskRequest

_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}

_MEANINGS = {
    400: "The body can't be read",
    401: "No key, or one that nobody holds",
    403: "The tenant may not read that object",
    404: "No such task of this tenant",
    409: "The task is in a status that doesn't allow it",
    410: "The task was purged",
    413: "The body is too long",
    415: "The body has a type that isn't read here",
    422: "A value isn't allowed",
    429: "Too many of the tenant's tasks, or too many bytes of them, wait",
    503: "The queue is full, or Redis or S3 is away",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these errors."""
    return {status: {**_PROBLEM, "description": _MEANINGS[status]} for status in statuses}


def task_body() -> dict[str, Any]:
    """The ``requestBody`` of ``POST /v1/tasks``."""
    flat = _flat(TaskRequest)
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    multipart = {"type": "object", "required": ["task"], "properties": {"task": flat, "file": files}}
    content = {
        "application/json": {"schema": flat},
        "multipart/form-data": {"schema": multipart, "encoding": {"task": {"contentType": "application/json"}}},
    }
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The ``requestBody`` of a route that reads its JSON by hand."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _flat(model)}}}}


def _flat(model: type[BaseModel]) -> Any:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return _inlined(schema, schema.pop("$defs", {}))


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references replaced by what they lead to; ours don't recur."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}
