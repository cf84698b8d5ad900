"""A task's request with the bytes that came with it, however it was sent."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from contract.errors import InvalidRequest
from contract.refusals import Refused
from contract.requests import TaskRequest
from contract.task import dumps

#: Where the caller names no type of a picture's bytes.
UNKNOWN_TYPE = "application/octet-stream"


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
class UploadedInput:
    """An input that was uploaded, and where the request names it."""

    pointer: str
    upload_id: str


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
        decoded[pointer] = InlineFile(data, item.media_type or UNKNOWN_TYPE)
    return decoded


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
