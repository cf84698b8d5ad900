"""Reads the body of ``POST /v1/tasks``: JSON, or multipart with the JSON beside the pictures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, TypeVar

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from api_gateway.errors import Refused
from api_gateway.json_bodies import content_type, parse_json
from api_gateway.requests import TaskRequest
from contract.errors import InvalidRequest, UnsupportedMedia
from contract.task import MAX_IMAGES, dumps

#: Longest ``task`` part of a multipart body, in bytes; pictures come as ``file`` parts.
_MAX_TASK_PART_BYTES = 1024 * 1024

T = TypeVar("T", bound=BaseModel)

#: Where the caller names no type of a picture's bytes.
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class InlineFile:
    """A picture's bytes, as they came with the request."""

    data: bytes
    media_type: str

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes, in hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class SpooledFile:
    """A picture that came as a part of a multipart body: a file, in memory while it is short.

    Attributes:
        data: Stands at its beginning; closed at the end of the request.
        sha256: Hash of the bytes, in hexadecimal digits.
    """

    data: BinaryIO
    media_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class TaskBody:
    """A request's body, read.

    Attributes:
        request: The JSON.
        uploads: The pictures of a multipart body, in order.
        decoded: The pictures of the JSON's base64 inputs, by their pointer.
    """

    request: TaskRequest
    uploads: tuple[SpooledFile, ...]
    decoded: dict[str, InlineFile]

    def hash(self) -> str:
        """Tells two bodies apart: over the JSON as given, in canonical form, and the hashes of all bytes."""
        said = self.request.model_dump(
            mode="json", exclude_unset=True, exclude={"input": {"base64"}, "inputs": {"__all__": {"base64"}}}
        )
        files: list[InlineFile | SpooledFile] = [*self.decoded.values(), *self.uploads]
        came = [[file.media_type, file.sha256] for file in files]
        return hashlib.sha256(dumps([_sorted(said), came]).encode()).hexdigest()


class ReadBody:
    """A request's body, whichever of the two types it has, as an async context: its files are open for as long.

    Entering it raises:
        UnsupportedMedia: It has another type.
        MalformedRequest: It isn't JSON, or isn't multipart.
        Refused: A value isn't allowed.
        TooLarge: It is over the limit.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._form: FormData | None = None

    async def __aenter__(self) -> TaskBody:
        """Read it."""
        media_type = content_type(self._request)
        if media_type == "application/json":
            return _from_json(await self._request.body(), ())
        if media_type != "multipart/form-data":
            raise UnsupportedMedia("the body must be application/json or multipart/form-data")
        form_limits = {"max_files": 2 * MAX_IMAGES, "max_fields": 8, "max_part_size": _MAX_TASK_PART_BYTES}
        self._form = await self._request.form(**form_limits)
        try:
            return await _from_form(self._form)
        except BaseException:
            await self._form.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Close its files."""
        if self._form is not None:
            await self._form.close()


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
        uploads.append(await asyncio.to_thread(_spooled, part))
    if not all(file.size_bytes for file in uploads):
        raise InvalidRequest("a part named file is empty")
    return _from_json(text, tuple(uploads))


def _spooled(part: UploadFile) -> SpooledFile:
    """Hash a file part; may read from disk."""
    sha256 = hashlib.file_digest(part.file, "sha256").hexdigest()  # type: ignore[arg-type] # SpooledTemporaryFile
    size_bytes = part.file.tell()
    part.file.seek(0)
    return SpooledFile(part.file, _media_type(part.content_type), size_bytes, sha256)


def _from_json(text: bytes, uploads: tuple[SpooledFile, ...]) -> TaskBody:
    request = parse_json(text, TaskRequest)
    return TaskBody(request, uploads, inline_files(request))


def inline_files(request: TaskRequest) -> dict[str, InlineFile]:
    """The bytes of the request's base64 inputs, by their pointer.

    Raises:
        Refused: They aren't base64.
    """
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
