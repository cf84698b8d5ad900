"""Reads the body of ``POST /v1/tasks``: JSON, or multipart with the JSON beside the pictures."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TypeVar

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from api_gateway.json_bodies import content_type
from contract.errors import InvalidRequest, UnsupportedMedia
from contract.refusals import parse_json
from contract.requests import TaskRequest
from contract.task import MAX_IMAGES
from contract.task_bodies import UNKNOWN_TYPE, SpooledFile, TaskBody, inline_files

#: Longest ``task`` part of a multipart body, in bytes; pictures come as ``file`` parts.
_MAX_TASK_PART_BYTES = 1024 * 1024

T = TypeVar("T", bound=BaseModel)


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
        uploads.append(await asyncio.to_thread(spooled_file, part))
    if not all(file.size_bytes for file in uploads):
        raise InvalidRequest("a part named file is empty")
    return _from_json(text, tuple(uploads))


def spooled_file(part: UploadFile) -> SpooledFile:
    """A file part with its hash and length; may read from disk."""
    sha256 = hashlib.file_digest(part.file, "sha256").hexdigest()  # type: ignore[arg-type] # SpooledTemporaryFile
    size_bytes = part.file.tell()
    part.file.seek(0)
    return SpooledFile(part.file, _media_type(part.content_type), size_bytes, sha256)


def _from_json(text: bytes, uploads: tuple[SpooledFile, ...]) -> TaskBody:
    request = parse_json(text, TaskRequest)
    return TaskBody(request, uploads, inline_files(request))


def _media_type(value: str | None) -> str:
    plain = (value or "").partition(";")[0].strip()
    return plain if plain.isascii() and plain.isprintable() and 0 < len(plain) <= 128 else UNKNOWN_TYPE
