"""Fetch the bytes behind a URL under the egress policy. Runs in media processes only.

The host is resolved once, every address is checked and the connection goes to a checked address; redirects are
followed by us, checked again each; proxies from the environment play no part (httpcore knows none).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from urllib.parse import urljoin

import httpcore

from contract.egress import MAX_REDIRECTS, EgressPolicy
from contract.errors import BlobsUnavailable, FleetError, InputUnavailable, LimitExceeded, UrlNotAllowed

#: Seconds for one connect, read or write.
_STEP_S = 10.0

_REDIRECTS = {301, 302, 303, 307, 308}


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


def fetch(url: str, *, policy: EgressPolicy | None, max_bytes: int, timeout_s: float) -> bytes:
    """Read the body behind ``url``.

    Args:
        url: http or https.
        policy: The egress policy for a caller's URL; None for one that the worker presigned itself.
        max_bytes: Most bytes of the body.
        timeout_s: Seconds for everything, redirects included.

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
                status, location, body = _get(pool, url, max_bytes, deadline, timeout_s)
            except FleetError:
                raise
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
                raise _unreachable(policy) from exc
            except (httpcore.UnsupportedProtocol, ValueError) as exc:
                raise UrlNotAllowed("the URL can't be requested") from exc
            if status not in _REDIRECTS or location is None:
                return _checked(status, body, policy)
            url = urljoin(url, location)
    raise InputUnavailable(f"more than {MAX_REDIRECTS} redirects")


def _get(
    pool: httpcore.ConnectionPool, url: str, max_bytes: int, deadline: float, timeout_s: float
) -> tuple[int, str | None, bytes]:
    steps = dict.fromkeys(("connect", "read", "write", "pool"), _STEP_S)
    headers = [("User-Agent", "ovis-fleet"), ("Accept", "image/*,*/*;q=0.5")]
    with pool.stream("GET", url, headers=headers, extensions={"timeout": steps}) as response:
        location = next((value for name, value in response.headers if name.lower() == b"location"), None)
        if response.status != 200:
            return response.status, location.decode("latin-1") if location else None, b""
        chunks, size = [], 0
        for chunk in response.iter_stream():
            size += len(chunk)
            if size > max_bytes:
                raise LimitExceeded(f"the input has more than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise LimitExceeded(f"fetching the input took more than {timeout_s:g} seconds")
            chunks.append(chunk)
        return 200, None, b"".join(chunks)


def _checked(status: int, body: bytes, policy: EgressPolicy | None) -> bytes:
    if status == 200:
        return body
    if policy is None and status >= 500:
        raise BlobsUnavailable("the object store failed; try again later")
    raise InputUnavailable(f"the input's server answered {status}")


def _unreachable(policy: EgressPolicy | None) -> FleetError:
    if policy is None:
        return BlobsUnavailable("the object store can't be reached; try again later")
    return InputUnavailable("the input's server can't be reached")
