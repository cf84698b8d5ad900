"""Following a task's events over connections that may break."""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from json import JSONDecodeError

import httpx
from httpx_sse import ServerSentEvent

from ovis_fleet.errors import ProtocolError, UnreachableError
from ovis_fleet.part_records import Event
from ovis_fleet.records import ENDED
from ovis_fleet.repeating import is_broken
from ovis_fleet.wire import Ask, path_of

#: The gateway keeps a quiet stream alive every 15 s unless it is told otherwise.
_SILENCE_S = 60.0


class EventReading:
    """Where a reader of a task's events stands. Does no I/O.

    Attributes:
        is_over: whether the run has ended and all its events were read.
    """

    def __init__(self, task_id: str, after: str | None) -> None:
        """Stands after an event, or at the beginning.

        Args:
            task_id: whose events.
            after: an event's id.
        """
        self.is_over = False
        self._path = path_of("/v1/tasks", task_id, "events")
        self._after = after
        self._has_ended = False
        self._is_fresh = True

    def ask(self) -> Ask:
        """Returns the request for what comes next."""
        self._is_fresh = True
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        headers |= {"Last-Event-ID": self._after} if self._after else {}
        return Ask("GET", self._path, headers=headers, wait_s=_SILENCE_S)

    def begins(self, response: httpx.Response) -> bool:
        """Takes note of an answer's head; tells whether events follow."""
        self.is_over = response.status_code == HTTPStatus.NO_CONTENT
        if not self.is_over and "text/event-stream" not in response.headers.get("Content-Type", ""):
            raise ProtocolError(f"{response.url} did not answer with events")
        return not self.is_over

    def take(self, sent: ServerSentEvent) -> Event | None:
        """Reads an event, and stands after it; None for what keeps the stream alive.

        Raises:
            ProtocolError: when it isn't one.
        """
        if not sent.data:
            # The decoder makes an event of a comment once an id has been sent.
            return None
        try:
            event = Event.from_json({**sent.json(), "id": sent.id})
        except (JSONDecodeError, AttributeError, TypeError) as exc:
            raise ProtocolError(f"{self._path} sent what is no event") from exc
        self._after = sent.id or self._after
        self._has_ended = event.kind == "status" and event.status in ENDED
        self._is_fresh = False
        return event

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """Is around one connection: one that gave events and broke is no failure, it is just resumed.

        Raises:
            UnreachableError: for one that gave nothing.
        """
        try:
            yield
        except UnreachableError as exc:
            if self._is_fresh or not is_broken(exc):
                raise
        else:
            self.is_over = self.is_over or self._has_ended
