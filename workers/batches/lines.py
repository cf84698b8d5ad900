"""Reads a file of lines in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class LineTooLong(Exception):
    """A line is longer than one may be.

    Args:
        number: Of the line, counted from where reading began, 1 for the first.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is too long")
        self.number = number


@dataclass(frozen=True)
class Line:
    """A line that isn't blank.

    Attributes:
        text: Without its end.
        number: Among all lines, blank ones included, 1 for the first.
        end: Byte after it, its end included.
    """

    text: bytes
    number: int
    end: int


def read_lines(chunks: Iterable[bytes], max_bytes: int, *, offset: int = 0) -> Iterator[Line]:
    """The lines that are not blank, the last one with or without an end.

    Args:
        chunks: The file from byte ``offset`` on, where a line begins.
        max_bytes: Longest line.
        offset: Where ``chunks`` begins.

    Raises:
        LineTooLong: A line is longer; no more than it and one chunk was read.
    """
    rest, number, end = b"", 0, offset
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        for text in whole:
            number, end = number + 1, end + len(text) + 1
            yield from _line(text, number, end, max_bytes)
        if len(rest) > max_bytes:
            raise LineTooLong(number + 1)
    yield from _line(rest, number + 1, end + len(rest), max_bytes)


def _line(text: bytes, number: int, end: int, max_bytes: int) -> Iterator[Line]:
    if len(text) > max_bytes:
        raise LineTooLong(number)
    stripped = text.strip()
    if stripped:
        yield Line(stripped, number, end)
