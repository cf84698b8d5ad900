"""A completion as an iterator of its deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self

from ovis_engine.request import Completion, Request
from ovis_engine.text import Delta


class Submit(Protocol):
    """The engine's `submit`."""

    def __call__(self, request: Request, on_delta: Callable[[Delta], None]) -> Future[Completion]: ...


class CompletionStream(Iterator[Delta]):
    """Deltas of one request as they come; one thread may iterate, any may `cancel`.

    As a context manager it cancels what is unfinished on leaving.

    Attributes:
        future: Resolves to the completion, after the last delta.
    """

    def __init__(self, submit: Submit, cancel: Callable[[str], bool], request: Request) -> None:
        """Submits the request; raises what `submit` raises."""
        self._queue: SimpleQueue[Delta | None] = SimpleQueue()
        self._cancel, self._request_id = cancel, request.request_id
        self.future: Future[Completion] = submit(request, self._queue.put)
        self.future.add_done_callback(self._end)

    def __next__(self) -> Delta:
        """Waits for the next delta.

        Raises:
            StopIteration: After the last one.
            EngineError: What the request failed with, if it did.
        """
        delta = self._queue.get()
        if delta is not None:
            return delta
        self._queue.put(None)  # so that asking again does not wait for ever
        self.future.result()
        raise StopIteration

    def result(self, timeout_s: float | None = None) -> Completion:
        """Waits for the completion.

        Raises:
            TimeoutError: If timeout_s, in seconds, passes first.
            EngineError: What the request failed with, if it did.
        """
        return self.future.result(timeout_s)

    def cancel(self) -> bool:
        """Stops the request; its deltas end and the completion says ``canceled``. False if it had ended."""
        return self._cancel(self._request_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.future.done():
            self.cancel()

    def _end(self, _future: Future[Completion]) -> None:
        self._queue.put(None)
