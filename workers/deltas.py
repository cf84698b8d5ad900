"""Tells those who follow a task what its attempt writes, piece by piece, without holding the engine up.

The engine calls on its own thread, which must not wait for Redis: pieces go through a queue, and a thread of the
attempt's own sends what has gathered in one go.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import redis

from contract.errors import FleetError
from contract.events import append_delta
from contract.logs import get_logger
from contract.redis_io import run
from ovis_engine import Delta

log = get_logger(__name__)

#: Seconds for which pieces gather once the first is out; a reader sees no difference, and Redis gets a fraction of the
#: calls. Each call takes the interpreter from the engine's thread for a while, and every row makes them.
_GATHER_S = 0.1


class DeltaWriter:
    """Give it to ``Engine.submit`` as ``on_delta``; leave it before the attempt is committed.

    While Redis is away or fails, pieces gather; they go out in order when it is back. An attempt that has lost its
    lease tells nothing more.

    Args:
        client: Thread-safe.
        token: The attempt's.
    """

    def __init__(self, client: redis.Redis, token: str) -> None:
        self._client = client
        self._token = token
        self._pieces: SimpleQueue[Delta | None] = SimpleQueue()
        self._ending = threading.Event()
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
        self._ending.set()
        self._thread.join()

    def _write(self) -> None:
        unsent: list[Delta] = []
        gather_s, open_, told, failing = 0.0, True, True, False
        while open_:
            open_ = self._gather(unsent, gather_s)
            gather_s = _GATHER_S
            if not unsent or not told:
                unsent.clear()
                continue
            text = "".join(piece.text for piece in unsent)
            try:
                told = run(self._client, append_delta(self._token, unsent[0].offset, text))
            except FleetError as exc:
                if not failing:  # not for each try, ten times a second
                    log.warning("deltas_failed", code=exc.code)
                failing = True
                continue
            failing = False
            unsent.clear()

    def _gather(self, unsent: list[Delta], gather_s: float) -> bool:
        """Wait for a piece, then a moment for more; reply whether others may come."""
        piece = self._pieces.get()
        # Not for each piece in turn: every waking holds the engine's thread up.
        self._ending.wait(gather_s)
        while piece is not None:
            unsent.append(piece)
            try:
                piece = self._pieces.get_nowait()
            except Empty:
                return True
        return False
