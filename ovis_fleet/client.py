"""The Python client of a fleet's gateway."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, overload
from urllib.parse import quote

import httpx

from ovis_fleet.errors import ProtocolError, TaskTimeoutError
from ovis_fleet.records import DeadLetter, DeadLetterPage, Model, Task, TaskPage
from ovis_fleet.sources import Source, Submission
from ovis_fleet.transport import Transport, read_json

#: How long one request asks the gateway to wait for a task's end.
_LONG_POLL_S = 30.0

_DEAD_LETTERS = "/v1/dead-letters"

#: The least time between two requests for one task: a gateway that doesn't wait must not be flooded.
_LEAST_POLL_INTERVAL_S = 0.2


class Client:
    """Talks to one gateway as one tenant; a context manager. Any thread may call any method.

    All methods raise ``ApiError`` when the gateway refuses and ``UnreachableError`` when it doesn't answer. Broken
    connections and answers with ``Retry-After`` are tried again a few times first; submissions carry an idempotency
    key, so that trying again never makes a second task.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        """Opens nothing yet.

        Args:
            base_url: the gateway's address, such as ``http://127.0.0.1:8080``.
            api_key: ``sk-...``; sent to that address only.
            timeout_s: for connecting, and for each silence beyond a wait that was asked for.
        """
        self._transport = Transport(base_url, api_key, timeout_s)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Returns the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        self.close()

    def submit(
        self,
        source: Source | Sequence[Source] | None = None,
        *,
        kind: str = "image",
        model: str,
        operation: str | None = None,
        prompt: str | None = None,
        options: Mapping[str, Any] | None = None,
        deadline_s: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        wait_s: float | None = None,
    ) -> Task:
        """Hands in a task.

        Args:
            source: a file, an address (http, https, s3), bytes, or several of one sort; None for kind ``text``.
            kind: image, video, document or text.
            model: which model does it.
            operation: ocr, caption, markdown, table, chart, extract or ask.
            prompt: overrides the operation's own.
            options: of the model and of the reading.
            deadline_s: how long the task may take before it expires.
            metadata: the caller's own; tasks can be listed by it.
            idempotency_key: calls with the same key make one task; a new one by default.
            wait_s: how long to wait for the end.

        Returns:
            the task as accepted, or as ended when that came within ``wait_s``.

        Raises:
            SourceError: for a file that isn't there, an unknown scheme, or files mixed with addresses.
        """
        fields: dict[str, Any] = {"kind": kind, "model": model, "operation": operation, "prompt": prompt}
        fields |= {"options": options, "deadline_s": deadline_s, "metadata": metadata}
        submission = Submission.of({key: value for key, value in fields.items() if value is not None}, source)
        return self._hand_in(submission, idempotency_key or str(uuid.uuid4()), wait_s or 0.0)

    def _hand_in(self, submission: Submission, idempotency_key: str, wait_s: float) -> Task:
        headers = {"Idempotency-Key": idempotency_key}
        if wait_s:
            headers["Prefer"] = f"wait={_seconds(wait_s)}"
        send = self._transport.send
        return _task(send("POST", "/v1/tasks", headers=headers, content=submission.open, wait_s=wait_s))

    def get(self, task_id: str, *, wait_s: float | None = None) -> Task:
        """Reads a task.

        Args:
            task_id: which.
            wait_s: how long the gateway may wait for its end before it answers.
        """
        params = {"wait": _seconds(wait_s) if wait_s else None}
        return _task(self._transport.send("GET", f"{_path(task_id)}", params=params, wait_s=wait_s or 0.0))

    def wait(self, task_id: str, timeout_s: float) -> Task:
        """Waits for a task's end.

        Returns:
            the ended task, whatever its status.

        Raises:
            TaskTimeoutError: when it hasn't ended after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            asked = time.monotonic()
            task = self.get(task_id, wait_s=min(_LONG_POLL_S, max(0.0, deadline - asked)))
            if task.is_ended:
                return task
            if time.monotonic() >= deadline:
                raise TaskTimeoutError(f"task {task_id} is still {task.status} after {timeout_s:.0f} s")
            time.sleep(max(0.0, asked + _LEAST_POLL_INTERVAL_S - time.monotonic()))

    @overload
    def result(self, task_id: str, format: Literal["json"] = "json") -> dict[str, Any]: ...
    @overload
    def result(self, task_id: str, format: Literal["text", "markdown"]) -> str: ...
    def result(
        self,
        task_id: str,
        format: Literal["json", "text", "markdown"] = "json",  # noqa: A002 - the gateway's word for it
    ) -> dict[str, Any] | str:
        """Reads a succeeded task's result, from the store when it is too large for the gateway.

        Args:
            task_id: which.
            format: ``json`` for the whole result, ``text`` or ``markdown`` for what was read.
        """
        response = self._transport.send("GET", f"{_path(task_id)}/result", params={"format": format})
        if response.is_redirect:
            response = self._transport.follow(response)
        return _object(response) if format == "json" else response.text

    def cancel(self, task_id: str) -> Task:
        """Asks for a task's end; it is ``canceling`` until its worker has let go of it."""
        return _task(self._transport.send("POST", f"{_path(task_id)}/cancel"))

    def retry(self, task_id: str) -> Task:
        """Runs a failed task again; one that hasn't failed is refused as ``wrong_status``.

        Where the connection broke after the gateway had done it, the repetition is refused too: read the task then.
        """
        return _task(self._transport.send("POST", f"{_path(task_id)}/retry"))

    def delete(self, task_id: str) -> None:
        """Purges an ended task with its inputs and results; one that hasn't ended is refused as ``wrong_status``."""
        self._transport.send("DELETE", _path(task_id))

    def list(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TaskPage:
        """Reads one page of the tenant's tasks.

        Args:
            status: only those.
            model: only its tasks.
            kind: only those.
            limit: how many on a page; the gateway's own number by default.
            cursor: an earlier page's ``next_cursor``.
        """
        params = {"status": status, "model": model, "kind": kind, "limit": limit, "cursor": cursor}
        document = _object(self._transport.send("GET", "/v1/tasks", params=params))
        return TaskPage(tuple(Task.from_json(item) for item in document["data"]), document.get("next_cursor"))

    def list_all(
        self, *, status: str | None = None, model: str | None = None, kind: str | None = None
    ) -> Iterator[Task]:
        """Reads all of the tenant's tasks, page by page as they are consumed."""
        page = self.list(status=status, model=model, kind=kind)
        yield from page.tasks
        while page.next_cursor is not None:
            page = self.list(status=status, model=model, kind=kind, cursor=page.next_cursor)
            yield from page.tasks

    def dead_letters(self, *, limit: int | None = None, cursor: str | None = None) -> DeadLetterPage:
        """Reads one page of the tenant's dead letters.

        Args:
            limit: how many on a page; the gateway's own number by default.
            cursor: an earlier page's ``next_cursor``.
        """
        params = {"limit": limit, "cursor": cursor}
        document = _object(self._transport.send("GET", _DEAD_LETTERS, params=params))
        letters = tuple(DeadLetter.from_json(item) for item in document["data"])
        return DeadLetterPage(letters, document.get("next_cursor"))

    def all_dead_letters(self) -> Iterator[DeadLetter]:
        """Reads all of the tenant's dead letters, page by page as they are consumed; they may be handled meanwhile."""
        page = self.dead_letters()
        yield from page.letters
        while page.next_cursor is not None:
            page = self.dead_letters(cursor=page.next_cursor)
            yield from page.letters

    def dead_letter(self, task_id: str) -> DeadLetter:
        """Reads a dead letter with the history of its attempts."""
        response = self._transport.send("GET", _path(task_id, _DEAD_LETTERS))
        try:
            return DeadLetter.from_json(_object(response))
        except TypeError as exc:
            raise ProtocolError(f"{response.url} did not answer with a dead letter") from exc

    def replay(self, task_id: str) -> Task:
        """Runs a dead letter again, with all its attempts before it."""
        return _task(self._transport.send("POST", f"{_path(task_id, _DEAD_LETTERS)}/replay"))

    def discard(self, task_id: str) -> None:
        """Takes a task off the dead letters; it stays failed until it is purged."""
        self._transport.send("DELETE", _path(task_id, _DEAD_LETTERS))

    def models(self) -> tuple[Model, ...]:
        """Reads which models the fleet knows, and how busy they are."""
        document = _object(self._transport.send("GET", "/v1/models"))
        return tuple(Model.from_json(item) for item in document["data"])


def _path(task_id: str, collection: str = "/v1/tasks") -> str:
    return f"{collection}/{quote(task_id, safe='')}"


def _seconds(wait_s: float) -> str:
    """Words a wait as whole seconds, at least one."""
    return str(max(1, round(wait_s)))


def _object(response: httpx.Response) -> dict[str, Any]:
    document = read_json(response)
    if not isinstance(document, dict):
        raise ProtocolError(f"{response.url} did not answer with an object")
    return document


def _task(response: httpx.Response) -> Task:
    try:
        return Task.from_json(_object(response))
    except TypeError as exc:
        raise ProtocolError(f"{response.url} did not answer with a task") from exc
