"""Sending requests to the gateway: the key stays with it, and what may be repeated is tried again."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from importlib import metadata
from ipaddress import ip_address
from json import JSONDecodeError
from typing import Any

import httpx

from ovis_fleet.errors import ApiError, ProtocolError, UnreachableError
from ovis_fleet.records import Problem

#: How often a call is tried in all.
_ATTEMPTS = 4

#: The pause before the first repetition when the gateway names none; doubled each time.
_FIRST_PAUSE_S = 0.2

#: A gateway that asks for a longer pause is not waited for: the caller learns of it instead.
_LONGEST_PAUSE_S = 30.0

#: With ``Retry-After``: the key's first request still runs, too many requests, no room or no Redis.
_WORTH_RETRYING = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

#: Makes httpx's arguments anew for each attempt; files that it opens are closed after the attempt.
Content = Callable[[ExitStack], dict[str, Any]]


class Transport:
    """A connection pool to one gateway. Any thread may use it."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float) -> None:
        """Opens nothing yet.

        Args:
            base_url: the gateway's address.
            api_key: sent to that address only.
            timeout_s: for each connection, and for each silence of the gateway.
        """
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            base_url=base_url,
            headers={
                "Authorization": f"Bearer {api_key}",
                "User-Agent": f"ovis-fleet/{metadata.version('ovis-fleet')}",
            },
            timeout=timeout_s,
            trust_env=not _is_loopback(httpx.URL(base_url).host),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        content: Content = lambda _stack: {},
        wait_s: float = 0.0,
    ) -> httpx.Response:
        """Sends a request that may be repeated, a bounded number of times.

        Args:
            method: HTTP's.
            path: below the gateway's address.
            params: of the query; those that are None are left out.
            headers: besides the client's own.
            content: makes the body, once for each attempt.
            wait_s: how long the gateway was asked to wait; its silence is allowed to last that much longer.

        Raises:
            ApiError: for a problem that remains.
            UnreachableError: when no attempt got an answer.
        """
        query = {key: value for key, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s)
        request = partial(self._client.request, method, path, params=query, headers=headers, timeout=timeout)
        pause_s = _FIRST_PAUSE_S
        for remaining in reversed(range(_ATTEMPTS)):
            response = self._attempt(request, content, is_last=remaining == 0)
            if response is not None:
                asked_s = _retry_after_s(response)
                if remaining == 0 or asked_s is None or asked_s > _LONGEST_PAUSE_S:
                    return _checked(response)
                pause_s = max(pause_s, asked_s)
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _attempt(
        self, request: Callable[..., httpx.Response], content: Content, *, is_last: bool
    ) -> httpx.Response | None:
        """Sends once; None when the connection broke and another attempt may follow."""
        try:
            with ExitStack() as stack:
                return request(**content(stack))
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout) as exc:
            if is_last:
                raise UnreachableError(f"cannot reach {self._client.base_url}: {exc}") from exc
            return None
        except httpx.HTTPError as exc:
            raise UnreachableError(f"no answer from {self._client.base_url}: {exc}") from exc

    def follow(self, response: httpx.Response) -> httpx.Response:
        """Fetches what a redirect points at, without the key: the address is another host's.

        Raises:
            ApiError: when that host refuses.
            UnreachableError: when it doesn't answer.
        """
        target = response.url.join(response.headers["Location"])
        try:
            found = httpx.get(target, timeout=self._timeout_s, trust_env=not _is_loopback(target.host))
        except httpx.HTTPError as exc:
            raise UnreachableError(f"cannot reach {target.host}: {exc}") from exc
        return _checked(found)


def read_json(response: httpx.Response) -> Any:
    """Returns the JSON document of an answer.

    Raises:
        ProtocolError: when it isn't JSON.
    """
    try:
        return response.json()
    except (JSONDecodeError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"{response.url} did not answer with JSON") from exc


def _checked(response: httpx.Response) -> httpx.Response:
    """Returns the answer, or raises it as an ApiError."""
    if not response.is_error:
        return response
    document: dict[str, Any] = {}
    if "json" in response.headers.get("Content-Type", ""):
        read = read_json(response)
        document = read if isinstance(read, dict) else {}
    title = HTTPStatus(response.status_code).phrase if response.status_code in list(HTTPStatus) else ""
    problem = Problem.from_json({"title": title, **document, "status": response.status_code})
    raise ApiError(problem)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Returns the pause that the gateway asks for before a repetition, or None when none makes sense."""
    value = response.headers.get("Retry-After", "")
    if response.status_code not in _WORTH_RETRYING or not value.isdigit():
        return None
    return float(value)


def _is_loopback(host: str) -> bool:
    """Tells whether the host is this machine, which no proxy should be asked for."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
