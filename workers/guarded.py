"""Connections to strangers' servers: only to addresses that the egress policy allows, and only until a moment.

The host is resolved once, every address behind it is checked, and the connection goes to a checked one. Proxies from
the environment play no part (httpcore knows none).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from contract.egress import EgressPolicy


class GuardedBackend(httpcore.SyncBackend):
    """Connects only to what the policy allows; every stream ends at the deadline, however slowly it is fed.

    Args:
        policy: What may be reached.
        deadline: By ``time.monotonic``.
    """

    def __init__(self, policy: EgressPolicy, deadline: float) -> None:
        self._policy = policy
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first checked address that answers.

        Raises:
            UrlNotAllowed: An address of the host isn't allowed.
            InputUnavailable: The host doesn't resolve.
        """
        addresses = self._policy.resolve(host, port)
        for index, address in enumerate(addresses):
            try:
                left_s = _left_s(self._deadline, timeout, httpcore.ConnectTimeout)
                stream = super().connect_tcp(str(address), port, left_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if index == len(addresses) - 1:
                    raise
            else:
                return _TimedStream(stream, self._deadline)
        raise httpcore.ConnectError(f"no address for the host of port {port}")


class _TimedStream(httpcore.NetworkStream):
    """A stream none of whose steps outlasts the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(self._deadline, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(self._deadline, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(self._deadline, timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(deadline: float, timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
    """Seconds that a step may take.

    Raises:
        httpcore.TimeoutException: None are left.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise late("the time for the whole exchange is over")
    return left_s if timeout is None else min(left_s, timeout)
