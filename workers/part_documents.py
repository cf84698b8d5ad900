"""Reads back what the parts of a planned task gave: for its assembly, and for the summary of its clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import redis
from redis.exceptions import RedisError

from contract.blobs import BlobStore
from contract.errors import InputUnavailable, InternalError, StoreUnavailable
from contract.planned import PartRecord, part_fields, read_part
from contract.rendering import PartDocument
from contract.store import task_key

#: Parts that are read together: so many results are held at once.
_BATCH = 64

#: Results that are fetched at once.
_THREADS = 8


@dataclass(frozen=True)
class PartDocuments:
    """Reads through clients that may be shared by threads."""

    client: redis.Redis
    blobs: BlobStore

    def read(self, task_id: str, num_parts: int) -> Iterator[PartDocument]:
        """The first ``num_parts`` parts, in order; a bounded number is held at once.

        Raises:
            StoreUnavailable: Redis is away.
            BlobsUnavailable: S3 is away.
            InternalError: A committed result isn't in the blob store.
        """
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="parts") as threads:
            for first in range(0, num_parts, _BATCH):
                records = self._records(task_id, range(first, min(first + _BATCH, num_parts)))
                yield from list(threads.map(self._document, records))

    def num_parts(self, task_id: str) -> int:
        """How many parts the task has by now.

        Raises:
            StoreUnavailable: Redis is away.
        """
        try:
            return int(self.client.hget(task_key(task_id), "parts_total") or 0)
        except RedisError as exc:
            raise StoreUnavailable("the queue can't be reached; try again later") from exc

    def _records(self, task_id: str, parts: Sequence[int]) -> list[PartRecord]:
        names = [name for part in parts for name in part_fields(part)]
        try:
            values = cast(list[str | None], self.client.hmget(task_key(task_id), names))
        except RedisError as exc:
            raise StoreUnavailable("the queue can't be reached; try again later") from exc
        size = len(names) // len(parts)
        records = [read_part(part, values[size * n : size * (n + 1)]) for n, part in enumerate(parts)]
        return [record for record in records if record is not None]

    def _document(self, record: PartRecord) -> PartDocument:
        known = {"part": record.part, "unit": record.unit, "error": record.error}
        if record.result is None:
            return PartDocument.model_validate(known)
        try:
            stored = json.loads(self.blobs.get(record.result.blob_key))
        except InputUnavailable as exc:
            raise InternalError(f"the result of part {record.part} isn't in the object store") from exc
        return PartDocument.model_validate({**stored, "text": stored["text"] or "", **known})
