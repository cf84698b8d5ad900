"""When a delivery that failed is tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Seconds from the end of a try to the next one. The first try is made at once.
DELAYS_S = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)

#: Tries of a delivery in all.
MAX_TRIES = len(DELAYS_S) + 1

#: A delay varies by this share in either direction, so that deliveries that failed together don't come back together.
_JITTER = 0.1

#: Longest wait that a receiver may ask for, in seconds.
MAX_RETRY_AFTER_S = 24 * 3600


def delay_s(tries: int, spread: float, retry_after: str | None, now: datetime | None = None) -> float | None:
    """Seconds until the next try; None where there is none.

    Args:
        tries: Made so far, at least 1.
        spread: A random number in [0, 1).
        retry_after: The receiver's header, in seconds or as a date; an unreadable one is ignored.
        now: What a date is compared with.
    """
    if tries >= MAX_TRIES:
        return None
    planned_s = DELAYS_S[tries - 1] * (1 + _JITTER * (2 * spread - 1))
    return max(planned_s, min(_asked_s(retry_after, now or datetime.now(UTC)), MAX_RETRY_AFTER_S))


def _asked_s(retry_after: str | None, now: datetime) -> float:
    value = (retry_after or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
