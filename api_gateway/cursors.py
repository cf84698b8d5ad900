"""Cursors: what a list gives out to go on from, opaque to callers."""

from __future__ import annotations

import base64
import binascii
import re

from api_gateway.errors import Refused
from contract.errors import InvalidRequest


def write_cursor(mark: str) -> str:
    """The cursor that leads on from ``mark``."""
    return base64.urlsafe_b64encode(mark.encode()).decode().rstrip("=")


def read_cursor(cursor: str, pattern: re.Pattern[str]) -> re.Match[str]:
    """The mark that a cursor was made of.

    Args:
        cursor: As a caller gave it.
        pattern: What every mark of the list matches.

    Raises:
        Refused: No list has given this cursor.
    """
    try:
        mark = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        mark = ""
    match = pattern.fullmatch(mark)
    if match is None:
        raise Refused.parameter("cursor", InvalidRequest("this isn't a cursor that a list has given"))
    return match
