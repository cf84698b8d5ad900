"""Checks a batch's file before any line of it runs: its form as a whole, line by line, without looking into bodies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from contract.batches import BatchError
from contract.blobs import BlobStore
from contract.openai_wire.batch_lines import read_line
from workers.batches.lines import LineTooLong, read_lines

#: Errors that are told of one file.
_MAX_ERRORS = 50


@dataclass(frozen=True)
class Checked:
    """What a look at the whole file gave: its number of lines, and why it can't be run, if it can't."""

    num_lines: int
    errors: tuple[BatchError, ...]


@dataclass(frozen=True)
class FileChecker:
    """Checks files. Holds one line at a time, and 16 bytes for each ``custom_id``. Thread-safe."""

    blobs: BlobStore
    max_lines: int
    max_line_bytes: int

    def check(self, blob_key: str, go_on: Callable[[], object]) -> Checked:
        """Look at every line.

        Args:
            blob_key: Where the file lies.
            go_on: Called between lines; raises to end the work.

        Raises:
            InputUnavailable: The file isn't there.
            BlobsUnavailable: S3 is away.
        """
        seen: dict[bytes, int] = {}
        errors: list[BatchError] = []
        with closing(self.blobs.chunks(blob_key)) as chunks:
            try:
                for line in read_lines(chunks, self.max_line_bytes):
                    go_on()
                    if len(seen) == self.max_lines:
                        message = f"the file has more than {self.max_lines} lines, which is the limit"
                        errors.append(BatchError(code="too_many_tasks", message=message, line=line.number))
                        break
                    found = _look(line.text, line.number, seen)
                    if found is not None:
                        errors.append(found)
                    if len(errors) == _MAX_ERRORS:
                        break
            except LineTooLong as exc:
                message = f"the line has more than {self.max_line_bytes} bytes, which is the limit"
                errors.append(BatchError(code="line_too_long", message=message, line=exc.number))
        if not seen and not errors:
            errors.append(BatchError(code="empty_file", message="the file has no lines"))
        return Checked(len(seen), tuple(errors))


def _look(text: bytes, number: int, seen: dict[bytes, int]) -> BatchError | None:
    """Look at one line and note its ``custom_id``."""
    found = read_line(text, number)
    if isinstance(found, BatchError):
        return found
    mark = hashlib.blake2b(found.custom_id.encode(errors="surrogatepass"), digest_size=16).digest()
    before = seen.setdefault(mark, number)
    if before == number:
        return None
    message = f"this custom_id stands in line {before}, too"
    return BatchError(code="duplicate_custom_id", message=message, line=number, param="custom_id")
