"""Out of memory is met with fewer rows, not with another death.

An engine that ran out of memory can't be trusted to go on: its process ends. The next one on this host starts with half
the rows, for an hour; the note stands in Redis, since a container that starts anew has forgotten everything.
"""

from __future__ import annotations

import redis
import torch
from redis.exceptions import RedisError

from contract.logs import get_logger
from contract.store import rows_key

log = get_logger(__name__)

#: Seconds for which a lowered limit is remembered.
_REMEMBERED_S = 3600


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, is a want of host or device memory."""
    while error is not None:
        # torch's CPU allocator raises a plain RuntimeError.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def remembered_rows(client: redis.Redis, queue: str, host: str, wanted: int) -> int:
    """Rows to start with: ``wanted``, or fewer where this host ran out of memory lately.

    Raises:
        redis.RedisError: Redis is away.
    """
    noted = client.get(rows_key(queue, host))
    rows = min(wanted, int(noted)) if noted else wanted
    if rows < wanted:
        log.warning("rows_lowered", queue=queue, rows=rows, wanted=wanted)
    return rows


def note_out_of_memory(client: redis.Redis, queue: str, host: str, rows: int) -> None:
    """Remember that ``rows`` were too many. Never raises: the process is about to end."""
    try:
        client.set(rows_key(queue, host), max(1, rows // 2), ex=_REMEMBERED_S)
    except RedisError:
        log.warning("rows_not_noted", queue=queue)
