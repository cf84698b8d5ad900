"""Fetch the bytes behind a URL under the egress policy. Runs in media processes only.

The connection goes to a checked address (``workers.guarded``); redirects are followed by us, checked again each.
"""

from __future__ import annotations

import ssl
import time
from urllib.parse import quote, urljoin

import httpcore

from contract.egress import MAX_REDIRECTS, EgressPolicy
from contract.errors import BlobsUnavailable, FleetError, InputUnavailable, LimitExceeded, UrlNotAllowed
from workers.guarded import GuardedBackend

#: Seconds for one connect, read or write.
_STEP_S = 10.0

_REDIRECTS = {301, 302, 303, 307, 308}

#: What stays as it is in a URL; all else is written as %xx.
_PLAIN = "%/:=&?~#+!$,;'@()*[]"


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
    backend = GuardedBackend(policy, deadline) if policy else httpcore.SyncBackend()
    with httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=backend) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            if policy:
                policy.check_url(url)
            try:
                status, location, body = _get(pool, quote(url, safe=_PLAIN), max_bytes, deadline, timeout_s)
            except FleetError:
                raise
            except httpcore.TimeoutException as exc:
                if time.monotonic() >= deadline:
                    raise LimitExceeded(f"fetching the input took more than {timeout_s:g} seconds") from exc
                raise _unreachable(policy) from exc
            except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
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
            return response.status, quote(location, safe=_PLAIN) if location else None, b""
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
