"""Tells those who follow a task what its attempt writes, piece by piece, without holding the engine up.

The engine calls on its own thread, which must not wait for Redis: pieces go through a queue, and a thread of the
attempt's own sends what has gathered in one go.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import redis

from contract.errors import StoreUnavailable
from contract.events import append_delta
from contract.redis_io import run
from ovis_engine import Delta

#: Seconds for which pieces gather; a reader sees no difference, and Redis gets a fraction of the calls.
_GATHER_S = 0.05


class DeltaWriter:
    """Give it to ``Engine.submit`` as ``on_delta``; leave it before the attempt is committed.

    While Redis is away pieces gather; they go out in order when it is back. An attempt that has lost its lease tells
    nothing more.

    Args:
        client: Thread-safe.
        token: The attempt's.
    """

    def __init__(self, client: redis.Redis, token: str) -> None:
        self._client = client
        self._token = token
        self._pieces: SimpleQueue[Delta | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="deltas", daemon=True)

    def __call__(self, delta: Delta) -> None:
        """Take a piece; returns at once."""
        self._pieces.put(delta)

    def __enter__(self) -> Self:
        """Begin to write."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, once, and end."""
        self._pieces.put(None)
        self._thread.join()

    def _write(self) -> None:
        unsent: list[Delta] = []
        open_, told = True, True
        while open_:
            open_ = self._gather(unsent)
            if not unsent or not told:
                unsent.clear()
                continue
            text = "".join(piece.text for piece in unsent)
            try:
                told = run(self._client, append_delta(self._token, unsent[0].offset, text))
            except StoreUnavailable:
                continue
            unsent.clear()

    def _gather(self, unsent: list[Delta]) -> bool:
        """Wait for a piece, then a moment for more; reply whether others may come."""
        piece = self._pieces.get()
        deadline = time.monotonic() + _GATHER_S
        while piece is not None:
            unsent.append(piece)
            try:
                piece = self._pieces.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return True
        return False
