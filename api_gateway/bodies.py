"""Reads the body of ``POST /v1/tasks``: JSON, or multipart with the JSON beside the pictures."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from api_gateway.errors import Refused
from api_gateway.problems import invalid_body
from api_gateway.requests import TaskRequest
from contract.errors import InvalidRequest, MalformedRequest, UnsupportedMedia
from contract.task import MAX_IMAGES, dumps

#: Longest ``task`` part of a multipart body, in bytes; pictures come as ``file`` parts.
_MAX_TASK_PART_BYTES = 1024 * 1024

#: Where the caller names no type of a picture's bytes.
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class InlineFile:
    """A picture's bytes, as they came with the request."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class TaskBody:
    """A request's body, read.

    Attributes:
        request: The JSON.
        uploads: The pictures of a multipart body, in order.
        decoded: The pictures of the JSON's base64 inputs, by their pointer.
    """

    request: TaskRequest
    uploads: tuple[InlineFile, ...]
    decoded: dict[str, InlineFile]

    def hash(self) -> str:
        """Tells two bodies apart: over the JSON as given, in canonical form, and the hashes of all bytes."""
        said = self.request.model_dump(
            mode="json", exclude_unset=True, exclude={"input": {"base64"}, "inputs": {"__all__": {"base64"}}}
        )
        files = [*self.decoded.values(), *self.uploads]
        came = [[file.media_type, hashlib.sha256(file.data).hexdigest()] for file in files]
        return hashlib.sha256(dumps([_sorted(said), came]).encode()).hexdigest()


async def read_body(request: Request) -> TaskBody:
    """Read the body, whichever of the two types it has.

    Raises:
        UnsupportedMedia: It has another type.
        MalformedRequest: It isn't JSON, or isn't multipart.
        Refused: A value isn't allowed.
        TooLarge: It is over the limit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        form_limits = {"max_files": 2 * MAX_IMAGES, "max_fields": 8, "max_part_size": _MAX_TASK_PART_BYTES}
        async with request.form(**form_limits) as form:
            return await _from_form(form)
    if media_type == "application/json":
        return _from_json(await request.body(), ())
    raise UnsupportedMedia("the body must be application/json or multipart/form-data")


async def _from_form(form: FormData) -> TaskBody:
    if unknown := set(form.keys()) - {"task", "file"}:
        raise InvalidRequest(f"multipart parts are named task and file, not {min(unknown)[:64]!r}")
    tasks = form.getlist("task")
    if len(tasks) != 1:
        raise InvalidRequest(f"a multipart body has one part named task, with the JSON; here are {len(tasks)}")
    text = await tasks[0].read() if isinstance(tasks[0], UploadFile) else tasks[0].encode()
    uploads = []
    for part in form.getlist("file"):
        if not isinstance(part, UploadFile):
            raise InvalidRequest("a part named file needs a file name in its Content-Disposition")
        uploads.append(InlineFile(await part.read(), _media_type(part.content_type)))
    if not all(file.data for file in uploads):
        raise InvalidRequest("a part named file is empty")
    return _from_json(text, tuple(uploads))


def _from_json(text: bytes, uploads: tuple[InlineFile, ...]) -> TaskBody:
    try:
        request = TaskRequest.model_validate_json(text, strict=True)
    except ValidationError as exc:
        if any(item["type"] == "json_invalid" for item in exc.errors(include_input=False, include_context=False)):
            raise MalformedRequest("the body isn't valid JSON") from exc
        raise invalid_body(exc) from exc
    return TaskBody(request, uploads, _decode_inputs(request))


def _decode_inputs(request: TaskRequest) -> dict[str, InlineFile]:
    decoded = {}
    for pointer, item in request.located_inputs():
        if item.base64 is None:
            continue
        try:
            data = base64.b64decode(item.base64, validate=True)
        except ValueError as exc:
            raise Refused.at(f"{pointer}/base64", InvalidRequest("this isn't base64, strictly read")) from exc
        if not data:
            raise Refused.at(f"{pointer}/base64", InvalidRequest("there are no bytes"))
        decoded[pointer] = InlineFile(data, item.media_type or _UNKNOWN_TYPE)
    return decoded


def _media_type(value: str | None) -> str:
    plain = (value or "").partition(";")[0].strip()
    return plain if plain.isascii() and plain.isprintable() and 0 < len(plain) <= 128 else _UNKNOWN_TYPE


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
