"""Which pages of a file a caller wants: "1-20", "1,3,5-"."""

from __future__ import annotations

import re

from contract.errors import InvalidRequest, PageOutOfRange

_RANGE = r" *[1-9][0-9]{0,5} *(?:- *(?:[1-9][0-9]{0,5} *)?)?"

#: Page numbers from 1 and ranges of them; a range without an end goes to the last page.
_PAGES = re.compile(rf"{_RANGE}(?:,{_RANGE})*")

_POINTER = "/options/pages"


def check_pages(wanted: str) -> None:
    """Check what can be told without the file.

    Raises:
        InvalidRequest: These are no page numbers and ranges, or a range runs backwards.
    """
    if not _PAGES.fullmatch(wanted):
        raise InvalidRequest(f"{wanted!r} isn't like 1-20 or 1,3,5-: page numbers from 1 and ranges of them", _POINTER)
    for first, last in _ranges(wanted):
        if last is not None and last < first:
            raise InvalidRequest(f"the range {first}-{last} runs backwards", _POINTER)


def select_pages(wanted: str | None, num_pages: int) -> tuple[int, ...]:
    """The wanted pages of a file, from 1, ascending, each once.

    Args:
        wanted: What the caller wrote, as ``check_pages`` takes it; None for all pages.
        num_pages: Pages of the file.

    Raises:
        PageOutOfRange: A page beyond the last.
        InvalidRequest: No page at all.
    """
    if num_pages < 1:
        raise InvalidRequest("the file has no pages")
    if wanted is None:
        return tuple(range(1, num_pages + 1))
    chosen: set[int] = set()
    for first, last in _ranges(wanted):
        highest = first if last is None else max(first, last)
        if highest > num_pages:
            raise PageOutOfRange(f"page {highest} is beyond the end: the file has {num_pages} pages")
        chosen.update(range(first, (num_pages if last is None else last) + 1))
    if not chosen:
        raise InvalidRequest("no page is selected", _POINTER)
    return tuple(sorted(chosen))


def _ranges(wanted: str) -> list[tuple[int, int | None]]:
    """First and last page of each range; None for one without an end."""
    found: list[tuple[int, int | None]] = []
    for item in wanted.split(","):
        first, dash, last = (piece.strip() for piece in item.partition("-"))
        found.append((int(first), int(last) if last else None if dash else int(first)))
    return found
