"""The blob store for async code: calls run in a bounded number of threads and never longer than they may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from contract.blobs import BlobStore, ObjectFacts
from contract.errors import BlobsUnavailable
from contract.logs import get_logger
from contract.task_bodies import SpooledFile

T = TypeVar("T")

log = get_logger(__name__)

#: Bytes a second that the object store takes of a long file at the least.
_LEAST_BYTES_PER_S = 2 * 1024**2


@dataclass(frozen=True)
class Blob:
    """Bytes, or a file, to be stored."""

    key: str
    data: bytes | BinaryIO
    media_type: str
    size_bytes: int


@dataclass(frozen=True)
class BlobCopy:
    """An object to be stored that lies in the bucket under another key."""

    key: str
    source_key: str
    size_bytes: int


class BlobCalls:
    """A ``BlobStore`` behind ``await``.

    A call that takes too long is given up by its caller but goes on in its thread; further calls wait for a free
    one, so that an object store that hangs can't take all memory.
    """

    def __init__(self, store: BlobStore, *, threads: int, timeout_s: float) -> None:
        self.store = store
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="blobs")

    def close(self) -> None:
        """Take no more calls. Doesn't wait for those under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def put_all(self, prefix: str, blobs: Sequence[Blob | BlobCopy]) -> None:
        """Store ``blobs``, all under ``prefix``: all of them, or in the end none.

        Raises:
            BlobsUnavailable: The object store is away or too slow.
        """
        future = self._threads.submit(self._put_all, blobs)
        try:
            await self._result(future)
        except BaseException:
            # Even a put that was given up may still succeed: what is there is deleted after it.
            future.add_done_callback(lambda _: self._delete_later(prefix))
            raise

    async def put_file(self, prefix: str, key: str, file: SpooledFile) -> None:
        """Store one long file, which is all there is under ``prefix``: it, or in the end nothing.

        Raises:
            BlobsUnavailable: The object store is away or too slow.
        """
        future = self._threads.submit(self._put_file, key, file)
        try:
            await self._result(future, self._timeout_s + file.size_bytes / _LEAST_BYTES_PER_S)
        except BaseException:
            future.add_done_callback(lambda _: self._delete_later(prefix))
            raise

    async def get(self, key: str) -> bytes:
        """Read an object of our own bucket.

        Raises:
            BlobsUnavailable: The object store is away or too slow.
            InputUnavailable: The object isn't there.
        """
        return await self._call(lambda: self.store.get(key))

    async def facts(self, key: str) -> ObjectFacts:
        """What S3 tells of an object of our own bucket.

        Raises:
            BlobsUnavailable: The object store is away or too slow.
            InputUnavailable: The object isn't there.
        """
        return await self._call(lambda: self.store.facts(key))

    async def delete(self, prefixes: Sequence[str]) -> None:
        """Delete what is under each of ``prefixes``.

        Raises:
            BlobsUnavailable: The object store is away or too slow; some of it may be there still.
        """
        await self._call(lambda: self._delete_all(prefixes))

    async def delete_leftovers(self, prefix: str) -> None:
        """Delete what is under ``prefix``; where that fails it is logged and stays."""
        deletion = asyncio.wrap_future(self._threads.submit(self._delete, prefix))
        await asyncio.wait({deletion}, timeout=self._timeout_s)

    async def check(self) -> None:
        """Raise ``BlobsUnavailable`` unless the bucket answers."""
        await self._call(self.store.check)

    async def _call(self, call: Callable[[], T]) -> T:
        return await self._result(self._threads.submit(call))

    async def _result(self, future: Future[T], timeout_s: float | None = None) -> T:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s or self._timeout_s)
        except TimeoutError as exc:
            raise BlobsUnavailable("the object store is too slow; try again later") from exc

    def _put_all(self, blobs: Sequence[Blob | BlobCopy]) -> None:
        for blob in blobs:
            if isinstance(blob, BlobCopy):
                self.store.copy(blob.source_key, blob.key)
            else:
                self.store.put(blob.key, blob.data, blob.media_type)

    def _put_file(self, key: str, file: SpooledFile) -> None:
        # In one piece: parts side by side would be in memory each.
        self.store.put(key, file.data, file.media_type)

    def _delete_all(self, prefixes: Sequence[str]) -> None:
        for prefix in prefixes:
            self.store.delete_prefix(prefix)

    def _delete_later(self, prefix: str) -> None:
        try:
            self._threads.submit(self._delete, prefix)
        except RuntimeError:  # the process is about to end
            log.warning("inputs_left_over", prefix=prefix)

    def _delete(self, prefix: str) -> None:
        try:
            self._delete_all([prefix])
        except BlobsUnavailable:
            log.warning("inputs_left_over", prefix=prefix)
