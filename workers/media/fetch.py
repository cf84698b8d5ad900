"""Fetch the bytes behind a URL under the egress policy. Runs in media processes only.

The host is resolved once, every address is checked and the connection goes to a checked address; redirects are
followed by us, checked again each; proxies from the environment play no part (httpcore knows none).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urljoin

import httpcore

from contract.egress import MAX_REDIRECTS, EgressPolicy
from contract.errors import BlobsUnavailable, FleetError, InputUnavailable, LimitExceeded, UrlNotAllowed

#: Seconds for one connect, read or write.
_STEP_S = 10.0

#: Characters of an entity tag beyond which it is not kept.
_LONGEST_TAG = 256

_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Fetched:
    """A body, None where it still is the known one; and its strong entity tag, if the server gives one."""

    body: bytes | None
    tag: str | None


class _GuardedBackend(httpcore.SyncBackend):
    """Connects only to addresses that the policy allows."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._policy.resolve(host, port)
        for index, address in enumerate(addresses):
            try:
                return super().connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                if index == len(addresses) - 1:
                    raise
        raise httpcore.ConnectError(f"no address for the host of port {port}")


def fetch(
    url: str, *, policy: EgressPolicy | None, max_bytes: int, timeout_s: float, known: str | None = None
) -> Fetched:
    """Read the body behind ``url``.

    Args:
        url: http or https.
        policy: The egress policy for a caller's URL; None for one that the worker presigned itself.
        max_bytes: Most bytes of the body.
        timeout_s: Seconds for everything, redirects included.
        known: Entity tag of the body that is at hand; it is not sent again.

    Raises:
        UrlNotAllowed: The URL, a redirect or an address is forbidden.
        InputUnavailable: It can't be reached or answers with an error.
        BlobsUnavailable: The object store behind a presigned URL fails.
        LimitExceeded: Too many bytes or seconds.
    """
    deadline = time.monotonic() + timeout_s
    backend = _GuardedBackend(policy) if policy else httpcore.SyncBackend()
    with httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=backend) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            if policy:
                policy.check_url(url)
            try:
                answer = _get(pool, url, max_bytes, deadline, timeout_s, known)
            except FleetError:
                raise
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
                raise _unreachable(policy) from exc
            except (httpcore.UnsupportedProtocol, ValueError) as exc:
                raise UrlNotAllowed("the URL can't be requested") from exc
            if answer.status not in _REDIRECTS or answer.location is None:
                return _checked(answer, policy, known)
            url = urljoin(url, answer.location)
    raise InputUnavailable(f"more than {MAX_REDIRECTS} redirects")


@dataclass(frozen=True)
class _Answer:
    status: int
    location: str | None
    tag: str | None
    body: bytes = b""


def _get(
    pool: httpcore.ConnectionPool, url: str, max_bytes: int, deadline: float, timeout_s: float, known: str | None
) -> _Answer:
    steps = dict.fromkeys(("connect", "read", "write", "pool"), _STEP_S)
    headers = [("User-Agent", "ovis-fleet"), ("Accept", "image/*,*/*;q=0.5")]
    if known is not None:
        headers.append(("If-None-Match", known))
    with pool.stream("GET", url, headers=headers, extensions={"timeout": steps}) as response:
        found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        location, tag = found.get(b"location"), found.get(b"etag")
        if tag is None or not tag.startswith('"') or len(tag) > _LONGEST_TAG or not tag.isascii():
            tag = None
        if response.status != 200:
            return _Answer(response.status, location, tag)
        chunks, size = [], 0
        for chunk in response.iter_stream():
            size += len(chunk)
            if size > max_bytes:
                raise LimitExceeded(f"the input has more than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise LimitExceeded(f"fetching the input took more than {timeout_s:g} seconds")
            chunks.append(chunk)
        return _Answer(200, None, tag, b"".join(chunks))


def _checked(answer: _Answer, policy: EgressPolicy | None, known: str | None) -> Fetched:
    if answer.status == 200:
        return Fetched(answer.body, answer.tag)
    if answer.status == 304 and known is not None:
        return Fetched(None, known)
    if policy is None and answer.status >= 500:
        raise BlobsUnavailable("the object store failed; try again later")
    raise InputUnavailable(f"the input's server answered {answer.status}")


def _unreachable(policy: EgressPolicy | None) -> FleetError:
    if policy is None:
        return BlobsUnavailable("the object store can't be reached; try again later")
    return InputUnavailable("the input's server can't be reached")
