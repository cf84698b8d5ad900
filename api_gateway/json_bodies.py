"""Reads a small JSON body into a model, with our errors."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api_gateway.problems import invalid_body
from contract.errors import MalformedRequest, UnsupportedMedia

T = TypeVar("T", bound=BaseModel)


async def read_json(request: Request, model: type[T], *, optional: bool = False) -> T:
    """The body as ``model``; where it is ``optional``, none at all means every default.

    Raises:
        UnsupportedMedia: It isn't announced as JSON.
        MalformedRequest: It isn't JSON.
        Refused: A value isn't allowed.
    """
    text = await request.body()
    if optional and not text:
        return model()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMedia("the body must be application/json")
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as exc:
        if any(item["type"] == "json_invalid" for item in exc.errors(include_input=False, include_context=False)):
            raise MalformedRequest("the body isn't valid JSON") from exc
        raise invalid_body(exc) from exc
