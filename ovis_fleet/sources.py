"""What a task reads, as the gateway takes it: addresses in the JSON body, files as multipart."""

import json
import mimetypes
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from ovis_fleet.tenant_records import Upload

#: A file (``Path``, or ``str`` without a scheme), an address (``http``, ``https``, ``s3``), bytes or an upload.
Source: TypeAlias = Path | str | bytes | Upload

#: How the JSON body names an address of each scheme.
_INPUT_KEYS = {"http": "url", "https": "url", "s3": "s3"}

#: Kinds of task by what a file's name ends in; every other file is a picture.
_KINDS = {
    **dict.fromkeys(
        ("pdf", "zip", "doc", "docx", "odt", "rtf", "ppt", "pptx", "odp", "xls", "xlsx", "ods"), "document"
    ),
    **dict.fromkeys(("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts"), "video"),
}


def kind_of(source: Path | str) -> str:
    """Returns the kind of task that a file or an address is meant for, by its name alone."""
    name = str(source).partition("?")[0] if "://" in str(source) else str(source)
    return _KINDS.get(name.rpartition(".")[2].lower(), "image")


def kind_of_all(source: Source | Sequence[Source] | None) -> str:
    """Returns the kind of task that sources are meant for, by the first one's name; text without a source."""
    if source is None:
        return "text"
    first = source if isinstance(source, Path | str | bytes | Upload) else next(iter(source), b"")
    return kind_of(first) if isinstance(first, Path | str) else "image"


class SourceError(ValueError):
    """A source that can't be handed in."""


@dataclass(frozen=True)
class Submission:
    """A task's body and the files that go with it.

    Attributes:
        body: the JSON object.
        files: uploaded with it, in order.
    """

    body: dict[str, Any]
    files: tuple[Path | bytes, ...]

    @classmethod
    def of(cls, body: dict[str, Any], source: Source | Sequence[Source] | None) -> "Submission":
        """Sorts the sources into addresses and files.

        Args:
            body: the task without its inputs.
            source: one source, several in order, or None for a task without.

        Raises:
            SourceError: for a file that isn't there, an unknown scheme, or files mixed with addresses.
        """
        if source is None:
            return cls(body, ())
        sources = [source] if isinstance(source, Path | str | bytes | Upload) else list(source)
        inputs = [_address(item) for item in sources]
        addresses = [item for item in inputs if item is not None]
        if not addresses:
            return cls(body, tuple(existing_file(item) for item in sources if not isinstance(item, Upload)))
        if len(addresses) < len(sources):
            raise SourceError("files and addresses can't be mixed in one task")
        named = {"input": addresses[0]} if len(addresses) == 1 else {"inputs": addresses}
        return cls({**body, **named}, ())

    def open(self, stack: ExitStack) -> dict[str, Any]:
        """Returns httpx's arguments for one sending; the stack closes the files after it."""
        if not self.files:
            return {"json": self.body}
        task = ("task", (None, json.dumps(self.body).encode(), "application/json"))
        return {"files": [task, *(("file", opened(file, stack)) for file in self.files)]}


def _address(source: Source) -> dict[str, str] | None:
    """Returns the input object of an address, or None for a file."""
    if isinstance(source, Upload):
        return {"upload": source.id}
    if not isinstance(source, str) or "://" not in source:
        return None
    scheme = source.partition("://")[0].lower()
    if scheme not in _INPUT_KEYS:
        raise SourceError(f"{scheme}:// is not an input that the fleet reads: use http, https or s3")
    return {_INPUT_KEYS[scheme]: source}


def existing_file(source: Path | str | bytes) -> Path | bytes:
    """Returns the file that is meant; bytes are one.

    Raises:
        SourceError: when it isn't there.
    """
    if isinstance(source, bytes):
        return source
    path = Path(source)
    if not path.is_file():
        raise SourceError(f"no such file: {path}")
    return path


def size_of(file: Path | bytes) -> int:
    """Returns how many bytes a file has."""
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def media_type_of(file: Path | bytes) -> str:
    """Returns a file's media type, by its name alone."""
    guessed = None if isinstance(file, bytes) else mimetypes.guess_type(file.name)[0]
    return guessed or "application/octet-stream"


def opened(file: Path | bytes, stack: ExitStack) -> tuple[str, bytes | IO[bytes], str]:
    """Returns a file as httpx takes it in a form; the stack closes it."""
    if isinstance(file, bytes):
        return "upload", file, media_type_of(file)
    return file.name, stack.enter_context(file.open("rb")), media_type_of(file)
