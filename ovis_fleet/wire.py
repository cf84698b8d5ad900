"""What an operation asks of the wire, and how an answer is read: all of the client that does no I/O.

An operation is a generator (``Flow``): it yields what is to be done next, gets the answer sent in, and returns its
result. Both clients run the same flows; neither knows what they are about.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from ovis_fleet.errors import ApiError, ClientError, ProtocolError
from ovis_fleet.records import Page, Problem, Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)

#: Makes httpx's arguments anew for each attempt; files that it opens are closed after the attempt.
Content = Callable[[ExitStack], dict[str, Any]]


@dataclass(frozen=True)
class Ask:
    """One request, sent until it is answered or given up.

    Attributes:
        method: HTTP's.
        target: a path below the gateway's address, or a whole address where it is foreign.
        params: of the query; those that are None are left out.
        headers: besides the client's own.
        content: makes the body, once for each attempt.
        wait_s: how long the gateway was asked to wait; its silence is allowed to last that much longer.
        is_foreign: for another host than the gateway: the key stays here.
        is_repeatable: whether doing it twice is doing it once; if not, a connection that broke ends it.
    """

    method: str
    target: str
    params: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = lambda _stack: {}
    wait_s: float = 0.0
    is_foreign: bool = False
    is_repeatable: bool = True

    def arguments(self, stack: ExitStack, timeout_s: float) -> dict[str, Any]:
        """Returns httpx's arguments for one attempt; the stack closes what they opened."""
        return {
            "method": self.method,
            "url": self.target,
            "params": {key: value for key, value in self.params.items() if value is not None} or None,
            "headers": self.headers,
            "timeout": httpx.Timeout(timeout_s, read=timeout_s + self.wait_s),
            **self.content(stack),
        }


@dataclass(frozen=True)
class Pause:
    """Nothing is done for so many seconds."""

    seconds: float


Step: TypeAlias = Ask | Pause
Flow: TypeAlias = Generator[Step, httpx.Response | None, T]


class Running(Generic[T]):
    """A flow on its way.

    Attributes:
        step: what is to be done next; None once there is a result.
        result: of the flow; only there then.
    """

    result: T

    def __init__(self, flow: Flow[T]) -> None:
        """Runs the flow up to its first step."""
        self.step: Step | None = None
        self._flow = flow
        self.feed(None)

    def feed(self, outcome: httpx.Response | ClientError | None) -> None:
        """Tells the flow what became of its step: an answer, an error, or None after a pause.

        Raises:
            Exception: what the flow raises.
        """
        try:
            if isinstance(outcome, ClientError):
                self.step = self._flow.throw(outcome)
            else:
                self.step = self._flow.send(outcome)
        except StopIteration as end:
            self.step, self.result = None, end.value


def ask(
    method: str,
    target: str,
    *,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    json: Any = None,
    is_repeatable: bool = True,
) -> Flow[httpx.Response]:
    """Sends a request with a JSON body or none, and returns the answer; see ``Ask``."""
    content = {} if json is None else {"json": json}
    return (
        yield from send(
            Ask(method, target, params or {}, headers or {}, lambda _stack: content, is_repeatable=is_repeatable)
        )
    )


def send(request: Ask) -> Flow[httpx.Response]:
    """Sends a request and returns the answer."""
    response = yield request
    assert response is not None, "an ask is answered or raised"
    return response


def path_of(collection: str, name: str, *rest: str) -> str:
    """Returns the path of a thing, whatever stands in its name."""
    return "/".join((collection, quote(name, safe=""), *rest))


def whole_seconds(wait_s: float) -> str:
    """Words a wait as whole seconds, at least one."""
    return str(max(1, round(wait_s)))


def read_json(response: httpx.Response) -> Any:
    """Returns the JSON document of an answer.

    Raises:
        ProtocolError: when it isn't JSON.
    """
    try:
        return response.json()
    except (JSONDecodeError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"{response.url} did not answer with JSON") from exc


def read_object(response: httpx.Response) -> dict[str, Any]:
    """Returns the JSON object of an answer.

    Raises:
        ProtocolError: when it is something else.
    """
    document = read_json(response)
    if not isinstance(document, dict):
        raise ProtocolError(f"{response.url} did not answer with an object")
    return document


def read_record(response: httpx.Response, kind: type[R]) -> R:
    """Returns the record that an answer holds.

    Raises:
        ProtocolError: when it holds another one.
    """
    return _record(response, kind, read_object(response))


def read_page(response: httpx.Response, kind: type[R]) -> Page[R]:
    """Returns one page of a list; a list without pages is one.

    Raises:
        ProtocolError: when it is a list of something else, or none.
    """
    document = read_object(response)
    if not isinstance(document.get("data"), list):
        raise ProtocolError(f"{response.url} did not answer with a list")
    items = tuple(_record(response, kind, item) for item in document["data"])
    return Page(items, document.get("next_cursor"))


def checked(response: httpx.Response) -> httpx.Response:
    """Returns the answer, or raises it as an ApiError. Its body has been read."""
    if not response.is_error:
        return response
    document: dict[str, Any] = {}
    if "json" in response.headers.get("Content-Type", ""):
        read = read_json(response)
        document = read if isinstance(read, dict) else {}
    title = HTTPStatus(response.status_code).phrase if response.status_code in list(HTTPStatus) else ""
    problem = Problem.from_json({"title": title, **document, "status": response.status_code})
    pause = response.headers.get("Retry-After", "")
    raise ApiError(problem, float(pause) if pause.isdigit() else None)


def _record(response: httpx.Response, kind: type[R], document: Any) -> R:
    try:
        return kind.from_json(document)
    except (AttributeError, TypeError, ValueError) as exc:
        raise ProtocolError(f"{response.url} did not answer with a {kind.said}") from exc
