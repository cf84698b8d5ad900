"""Times as callers read them: RFC 3339, UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import PlainSerializer


def _rfc3339(when: datetime) -> str:
    utc = when if when.tzinfo is UTC else when.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


#: The type of a view's times.
Moment = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str)]


def moment(milliseconds: int) -> datetime:
    """A time by the clock of Redis, as views carry it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
