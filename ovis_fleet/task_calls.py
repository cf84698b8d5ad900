"""Operations on tasks, as flows that both clients run."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypeAlias, TypedDict, Unpack

import httpx

from ovis_fleet.errors import ApiError, TaskTimeoutError, UnreachableError
from ovis_fleet.part_records import Estimate, Part
from ovis_fleet.records import Page, Task
from ovis_fleet.sources import Source, Submission, kind_of_all
from ovis_fleet.uploading import without_large_files
from ovis_fleet.wire import Ask, Flow, Pause, ask, path_of, read_page, read_record, send, whole_seconds

_TASKS = "/v1/tasks"

#: How long one request asks the gateway to wait for a task's end.
_LONG_POLL_S = 30.0

#: The least time between two requests for one task: a gateway that doesn't wait must not be flooded.
_LEAST_POLL_INTERVAL_S = 0.2

TextFormat: TypeAlias = Literal["text", "markdown", "vtt"]
ResultFormat: TypeAlias = Literal["json"] | TextFormat


class TaskFields(TypedDict, total=False):
    """What a task is, besides what it reads. What is None or left out is the gateway's choice.

    Attributes:
        model: which model does it.
        kind: image, video, document or text; by default as the first source's name ends, text without a source.
        operation: ocr, caption, markdown, table, chart, extract or ask.
        prompt: overrides the operation's own.
        system: replaces the model's default.
        options: of the model and of the reading.
        webhook: who is told, as ``{"url": ..., "events": [...]}``.
        priority: high, normal or low, among the tenant's own tasks.
        deadline_s: how long a run may take before it expires.
        retention_s: how long the ended task is kept.
        metadata: the caller's own; tasks can be listed by it.
    """

    model: Required[str]
    kind: str | None
    operation: str | None
    prompt: str | None
    system: str | None
    options: Mapping[str, Any] | None
    webhook: Mapping[str, Any] | None
    priority: str | None
    deadline_s: int | None
    retention_s: int | None
    metadata: Mapping[str, str] | None


def submit(
    source: Source | Sequence[Source] | None = None,
    *,
    idempotency_key: str | None = None,
    wait_s: float | None = None,
    **fields: Unpack[TaskFields],
) -> Flow[Task]:
    """Hands in a task. Trying again never makes a second one.

    Args:
        source: a file, an address (http, https, s3), bytes, an ``Upload``, or several of them in order; files can't
            be mixed with others. None for kind ``text``. Large files go to the fleet's store directly.
        idempotency_key: calls with the same key and body make one task; a new one by default. A large file is
            another upload each time: with a key of yours, ``upload`` it yourself and give the ``Upload``.
        wait_s: how long to wait for the end.
        fields: see ``TaskFields``.

    Returns:
        the task as accepted, or as ended when that came within ``wait_s``.

    Raises:
        SourceError: for a file that isn't there, an unknown scheme, or files mixed with addresses.
    """
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    if wait_s:
        headers["Prefer"] = f"wait={whole_seconds(wait_s)}"
    submission = yield from without_large_files(_submission(source, fields))
    request = Ask("POST", _TASKS, headers=headers, content=submission.open, wait_s=wait_s or 0.0)
    return read_record((yield from send(request)), Task)


def estimate(source: Source | Sequence[Source] | None = None, **fields: Unpack[TaskFields]) -> Flow[Estimate]:
    """Tells what a task would take; nothing is run. Takes what ``submit`` takes."""
    submission = yield from without_large_files(_submission(source, fields))
    request = Ask("POST", f"{_TASKS}:estimate", content=submission.open)
    return read_record((yield from send(request)), Estimate)


def get(task_id: str, *, wait_s: float | None = None) -> Flow[Task]:
    """Reads a task.

    Args:
        task_id: which.
        wait_s: how long the gateway may wait for its end before it answers.
    """
    params = {"wait": whole_seconds(wait_s) if wait_s else None}
    request = Ask("GET", path_of(_TASKS, task_id), params, wait_s=wait_s or 0.0)
    return read_record((yield from send(request)), Task)


def wait(task_id: str, timeout_s: float) -> Flow[Task]:
    """Waits for a task's end, also while the gateway that has answered once is away.

    Returns:
        the ended task, whatever its status.

    Raises:
        TaskTimeoutError: when it hasn't ended after ``timeout_s``.
    """
    deadline, seen = time.monotonic() + timeout_s, None
    while True:
        asked = time.monotonic()
        # The first answer comes at once: from then on the task is known to be there, and an outage can be sat out.
        patience_s = min(_LONG_POLL_S, max(0.0, deadline - asked)) if seen else None
        try:
            seen = yield from get(task_id, wait_s=patience_s)
        except (UnreachableError, ApiError) as exc:
            if seen is None or not _may_pass(exc) or time.monotonic() >= deadline:
                raise
        if seen is not None and seen.is_ended:
            return seen
        if seen is not None and time.monotonic() >= deadline:
            raise TaskTimeoutError(f"task {task_id} is still {seen.status} after {timeout_s:.0f} s")
        yield Pause(max(0.0, asked + _LEAST_POLL_INTERVAL_S - time.monotonic()))


def result(task_id: str, form: ResultFormat, part: int | None) -> Flow[httpx.Response]:
    """Reads what a task or one part of it gave, from the store when it is too large for the gateway."""
    path = path_of(_TASKS, task_id, *(("result",) if part is None else ("parts", str(part))))
    response = yield from ask("GET", path, params={"format": form})
    if response.is_redirect:
        target = str(response.url.join(response.headers["Location"]))
        response = yield from send(Ask("GET", target, is_foreign=True))
    return response


def cancel(task_id: str) -> Flow[Task]:
    """Asks for a task's end; it is ``canceling`` until its worker has let go of it."""
    return read_record((yield from ask("POST", path_of(_TASKS, task_id, "cancel"))), Task)


def retry(task_id: str, *, idempotency_key: str | None = None) -> Flow[Task]:
    """Runs again what failed: the task, or pages of it. Any other status is refused as ``wrong_status``.

    Args:
        task_id: which.
        idempotency_key: calls with the same key make one run; a new one by default.
    """
    return (yield from run_again(path_of(_TASKS, task_id, "retry"), idempotency_key))


def run_again(path: str, idempotency_key: str | None) -> Flow[Task]:
    """Asks for a new run of a task, once however often the request is sent."""
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return read_record((yield from ask("POST", path, headers=headers)), Task)


def delete(task_id: str) -> Flow[None]:
    """Purges an ended task with its inputs and results; one that hasn't ended is refused as ``wrong_status``."""
    yield from ask("DELETE", path_of(_TASKS, task_id))


def page(
    cursor: str | None = None,
    *,
    status: str | None = None,
    model: str | None = None,
    kind: str | None = None,
    metadata: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Flow[Page[Task]]:
    """Reads the tenant's tasks, the newest first.

    Args:
        cursor: an earlier page's ``next_cursor``.
        status: only those.
        model: only its tasks.
        kind: only those.
        metadata: only tasks that have all of it.
        limit: how many on a page, up to 100; the gateway's own number by default.
    """
    params = {"status": status, "model": model, "kind": kind, "limit": limit, "cursor": cursor}
    params |= {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
    return read_page((yield from ask("GET", _TASKS, params=params)), Task)


def part_page(
    cursor: str | None = None, *, task_id: str, state: str | None = None, limit: int | None = None
) -> Flow[Page[Part]]:
    """Reads a task's pages or clips, in order.

    Args:
        cursor: an earlier page's ``next_cursor``.
        task_id: whose.
        state: only those.
        limit: how many on a page; the gateway's own number by default.
    """
    params = {"state": state, "limit": limit, "cursor": cursor}
    return read_page((yield from ask("GET", path_of(_TASKS, task_id, "parts"), params=params)), Part)


def _may_pass(error: UnreachableError | ApiError) -> bool:
    return isinstance(error, UnreachableError) or error.retryable


def _submission(source: Source | Sequence[Source] | None, fields: TaskFields) -> Submission:
    body = {key: value for key, value in fields.items() if value is not None}
    return Submission.of({"kind": kind_of_all(source), **body}, source)
