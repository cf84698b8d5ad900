"""Reads a JSON body into a model, with our errors."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from contract.errors import UnsupportedMedia
from contract.refusals import parse_json

T = TypeVar("T", bound=BaseModel)


async def read_json(request: Request, model: type[T], *, optional: bool = False) -> T:
    """The body as ``model``; where it is ``optional``, none at all means every default.

    Raises:
        UnsupportedMedia: It isn't announced as JSON.
        MalformedRequest: It isn't JSON.
        Refused: A value isn't allowed.
        TooLarge: It is over the limit.
    """
    text = await request.body()
    if optional and not text:
        return model()
    if content_type(request) != "application/json":
        raise UnsupportedMedia("the body must be application/json")
    return parse_json(text, model)


def content_type(request: Request) -> str:
    """The body's media type, without parameters, in lower case; "" where it isn't announced."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
