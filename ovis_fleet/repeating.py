"""Which failures a request is repeated after, and when."""

import contextlib
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx

from ovis_fleet.errors import ApiError, UnreachableError
from ovis_fleet.wire import Ask

#: How often a request is sent in all.
_ATTEMPTS = 4

#: The pause before the first repetition when the gateway names none; doubled each time.
_FIRST_PAUSE_S = 0.2

#: A gateway that asks for a longer pause is not waited for: the caller learns of it instead.
_LONGEST_PAUSE_S = 30.0

#: With ``Retry-After``: the key's first request still runs, too many requests, no room or no Redis.
_WORTH_REPEATING = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

#: The request never left.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)

#: The connection could not be made, or broke off.
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


def repetition(request: Ask) -> dict[str, Any]:
    """Returns stamina's arguments for a request."""
    return {
        "on": partial(_pause_after, is_repeatable=request.is_repeatable),
        "attempts": _ATTEMPTS,
        "timeout": None,
        "wait_initial": _FIRST_PAUSE_S,
        "wait_jitter": _FIRST_PAUSE_S,
    }


def endless_repetition(outage_s: float) -> dict[str, Any]:
    """Returns stamina's arguments for a stream that may be opened again for so long."""
    hook = partial(_pause_after, is_repeatable=True)
    pauses = {"wait_initial": _FIRST_PAUSE_S, "wait_max": 2.0, "wait_jitter": _FIRST_PAUSE_S}
    return {"on": hook, "attempts": None, "timeout": outage_s, **pauses}


@contextlib.contextmanager
def worded(address: httpx.URL) -> Iterator[None]:
    """Turns what httpx raises into ``UnreachableError``."""
    try:
        yield
    except _BROKEN as exc:
        raise UnreachableError(f"cannot reach {address}: {exc}") from exc
    except httpx.HTTPError as exc:
        raise UnreachableError(f"no answer from {address}: {exc}") from exc
    except httpx.InvalidURL as exc:
        raise UnreachableError(f"{address} is no address: {exc}") from exc


def is_broken(error: UnreachableError) -> bool:
    """Tells whether a connection failed, and not just an answer."""
    return isinstance(error.__cause__, _BROKEN)


def _pause_after(error: Exception, *, is_repeatable: bool) -> bool | float:
    """Is stamina's hook: seconds until the repetition, True for its own choice, False for none."""
    if isinstance(error, UnreachableError):
        return isinstance(error.__cause__, _BROKEN if is_repeatable else _UNSENT)
    if not isinstance(error, ApiError) or error.status not in _WORTH_REPEATING:
        return False
    pause_s = error.retry_after_s
    if pause_s is None or pause_s > _LONGEST_PAUSE_S:
        return False
    return max(_FIRST_PAUSE_S, pause_s)
