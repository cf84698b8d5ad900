"""The header ``Idempotency-Key``: what makes a request safe to repeat."""

from __future__ import annotations

import re

from fastapi import Request

from api_gateway.errors import Refused
from contract.errors import InvalidRequest

#: Visible ASCII, as the key becomes part of a Redis key.
PATTERN = r"[!-~]{1,255}"

_KEY = re.compile(PATTERN)


def idempotency_key(request: Request) -> str:
    """The request's key, "" where it has none.

    Raises:
        Refused: It isn't 1 to 255 visible ASCII characters.
    """
    if "idempotency-key" not in request.headers:
        return ""
    key = request.headers["idempotency-key"].strip()
    if not _KEY.fullmatch(key):
        raise Refused.parameter("Idempotency-Key", InvalidRequest("the key has 1 to 255 visible ASCII characters"))
    return key
