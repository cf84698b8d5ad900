"""Waiting for a task's end within one request: ``?wait=`` and ``Prefer: wait=``."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.requests import Request

from api_gateway.endings import Endings
from api_gateway.records import Records
from contract.errors import StoreUnavailable
from contract.record import TaskRecord

#: A record is read again this often while somebody waits, as the news of its end may get lost. Seconds.
_REREAD_S = 2.0

#: Records that all who wait read again in a second, at most: with many of them each reads less often.
_REREADS_PER_S = 500


def preferred_wait_s(headers: Headers) -> float:
    """The seconds of ``Prefer: wait=N`` (RFC 7240); 0 where there is none. A malformed preference is ignored."""
    for preference in ",".join(headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            value = value.strip().strip('"')
            return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0.0
    return 0.0


async def wait_for_end(
    record: TaskRecord, wait_s: float, *, records: Records, endings: Endings, request: Request
) -> TaskRecord:
    """The task once it has ended, or as it stands after ``wait_s``, at a stop, or when the caller has gone.

    Never raises for Redis: a caller who was promised a task gets what was last known of it.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    with endings.listen(record.id) as event:
        while True:
            with contextlib.suppress(StoreUnavailable):
                record = await records.read(record.id) or record
            left_s = deadline - loop.time()
            if record.status.ended or left_s <= 0 or endings.stopping or await request.is_disconnected():
                return record
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), min(left_s, max(_REREAD_S, endings.num_tasks / _REREADS_PER_S)))
            event.clear()
