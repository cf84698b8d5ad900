"""Objects that nothing leads to.

Inputs whose gateway died before the record, results of tasks purged meanwhile, kept answers and uploads that have had
their time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import redis

from contract.blobs import UPLOAD_KEPT_S, BlobStore, StoredTask
from contract.files import file_key
from contract.logs import get_logger
from contract.store import cached_key, task_key

log = get_logger(__name__)


def sweep_orphans(
    client: redis.Redis,
    blobs: BlobStore,
    *,
    min_age_s: float,
    upload_age_s: float = UPLOAD_KEPT_S,
    step: Callable[[], None] = lambda: None,
) -> int:
    """Delete stored tasks and files without a record, and kept answers without a pointer, whose newest object is at
    least ``min_age_s`` old, and uploads that are ``upload_age_s`` old; reply how many.

    The age keeps uploads that are under way: their record or pointer comes after them. ``step`` is called before each
    stored task; what it raises ends the sweep.

    Raises:
        BlobsUnavailable: S3 is away.
        redis.RedisError: Redis is away.
    """
    swept = 0
    for room in ("inputs", "results", "cache", "files"):
        for stored in blobs.list_tasks(room):
            step()
            young = datetime.now(UTC) - stored.newest < timedelta(seconds=min_age_s)
            if young or client.exists(_owner_key(room, stored)):
                continue
            blobs.delete_prefix(f"{room}/{stored.tenant}/{stored.task_id}/")
            log.info("orphan_swept", task_id=stored.task_id, room=room)
            swept += 1
    return swept + _sweep_uploads(blobs, upload_age_s, step)


def _owner_key(room: str, stored: StoredTask) -> str:
    """Key of what leads to the object."""
    if room == "cache":
        return cached_key(stored.tenant, stored.task_id)
    return file_key(stored.task_id) if room == "files" else task_key(stored.task_id)


def _sweep_uploads(blobs: BlobStore, age_s: float, step: Callable[[], None]) -> int:
    """Delete uploads that came longer ago than they are kept; tasks that named one have a copy."""
    swept = 0
    for stored in blobs.list_tasks("incoming"):
        step()
        if datetime.now(UTC) - stored.newest >= timedelta(seconds=age_s):
            blobs.delete_prefix(f"incoming/{stored.tenant}/{stored.task_id}/")
            log.info("upload_swept", upload_id=stored.task_id)
            swept += 1
    return swept
