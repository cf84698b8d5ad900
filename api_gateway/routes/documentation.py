"""What the OpenAPI document says of errors and of bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api_gateway.errors import HTTP_STATUS, Problem, openai_status
from api_gateway.idempotency import PATTERN
from api_gateway.openai_wire.errors import openai_error
from contract.catalogue import CATALOGUE
from contract.error_info import ErrorInfo
from contract.errors import all_errors
from contract.openai_wire.errors import OpenAIError
from contract.requests import TaskRequest

#: The header that makes a request safe to repeat.
IDEMPOTENCY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": f"^{PATTERN}$"},
}

_PROBLEM_TYPE = "application/problem+json"

#: Errors that a task ends with, and no request is refused with.
_ONLY_OF_TASKS = {
    "attempts_exhausted",
    "deadline_exceeded",
    "engine_died",
    "limit_exceeded",
    "media_process_died",
    "not_an_image",
    "rejected_by_engine",
    "truncated_image",
}

#: Errors of the OpenAI wire format alone.
_ONLY_OF_CHAT = {"gateway_stopping", "unsupported_parameter"}

_MEANINGS = {
    400: "The body can't be read",
    401: "No key, or one that nobody holds",
    403: "The key or the tenant may not do this, or not read that object",
    404: "No such thing of this tenant",
    405: "The path is there, the method isn't",
    409: "The task is in a status that doesn't allow it",
    410: "The task was purged",
    413: "The body is too long",
    415: "The body has a type that isn't read here",
    422: "A value isn't allowed",
    429: "Too many requests in this second, or too many of the tenant's tasks, or bytes of them, wait",
    500: "A fault of ours",
    503: "The queue is full, or Redis or S3 is away",
    504: "The answer wasn't there in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these errors."""
    return {status: problem(status) for status in statuses}


def problem(status: int) -> dict[str, Any]:
    """One such response, with an example of every error that it may tell of."""
    elsewhere = _ONLY_OF_TASKS | _ONLY_OF_CHAT
    codes = [code for code, known in HTTP_STATUS.items() if known == status and code not in elsewhere]
    examples = {code: {"value": _example(code)} for code in codes}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    return {"description": _MEANINGS[status], "content": {_PROBLEM_TYPE: content}}


def openai_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route whose errors have OpenAI's form."""
    return {status: openai_problem(status) for status in statuses}


def openai_problem(status: int) -> dict[str, Any]:
    """One such response, with an example of every error that it may tell of."""
    codes = [code for code in HTTP_STATUS if openai_status(code) == status]
    examples = {code: {"value": openai_error(_info(code)).model_dump(mode="json")} for code in codes}
    content = {"schema": OpenAIError.model_json_schema(), "examples": examples}
    content["schema"] = _inlined(content["schema"], content["schema"].pop("$defs", {}))
    return {"description": _MEANINGS[status], "content": {"application/json": content}}


def _example(code: str) -> dict[str, Any]:
    """A problem as a caller reads it; its detail is what the error means in general."""
    shown = Problem.of(_info(code), request_id="9f86d081884c4d659a2feaa0c55ad015")
    return shown.model_dump(mode="json", exclude_none=True)


def _info(code: str) -> ErrorInfo:
    meaning = (all_errors()[code].__doc__ or "").partition("\n")[0].rstrip(".")
    return ErrorInfo(code=code, detail=meaning, retryable=all_errors()[code].retryable)


def task_body() -> dict[str, Any]:
    """The ``requestBody`` of ``POST /v1/tasks``."""
    flat = _flat(TaskRequest)
    flat["properties"]["model"]["enum"] = list(CATALOGUE)
    text = {"kind": "text", "model": "ovis2-reader", "prompt": "Say hello."}
    picture = {"kind": "image", "model": "ovis2-4b", "input": {"url": "https://example.com/a.png"}, "operation": "ocr"}
    examples = {"text": {"value": text}, "picture": {"value": picture}}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    multipart = {"type": "object", "required": ["task"], "properties": {"task": flat, "file": files}}
    content = {
        "application/json": {"schema": flat, "examples": examples},
        "multipart/form-data": {"schema": multipart, "encoding": {"task": {"contentType": "application/json"}}},
    }
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The ``requestBody`` of a route that reads its JSON by hand."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _flat(model)}}}}


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
    # A discriminator says no more than the values of the field that it names, and leads to the definitions.
    kept = {key: value for key, value in schema.items() if not (key == "discriminator" and "mapping" in value)}
    return {key: _inlined(value, definitions) for key, value in kept.items()}
