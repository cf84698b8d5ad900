"""When a part counts as ready, and waiting for it."""

import socket
import time
from collections.abc import Callable

import httpx

from ovis_fleet.ports import HOST
from ovis_fleet.process import ManagedProcess

#: Tells whether a part is ready to work; never raises for a part that isn't there yet.
Probe = Callable[[], bool]

#: How long one probe may take: all parts are on this machine, but it may be busy.
_PROBE_TIMEOUT_S = 2.0

#: Between two probes of one part.
_PROBE_INTERVAL_S = 0.05


class PartError(Exception):
    """A part ended before it was ready, or wasn't ready in time. The message ends with its log's last lines."""


def http_status(url: str) -> int | None:
    """Returns the status that a GET answers, or None when nobody answers."""
    try:
        # A proxy from the environment has no business between parts of one machine.
        return httpx.get(url, timeout=_PROBE_TIMEOUT_S, trust_env=False).status_code
    except httpx.TransportError:
        return None


def answers_200(url: str) -> Probe:
    """Returns a probe that holds when a GET of the address answers 200."""
    return lambda: http_status(url) == httpx.codes.OK


def answers_ping(port: int) -> Probe:
    """Returns a probe that holds when a Redis or Valkey answers PING; one that still loads its data doesn't."""

    def probe() -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=_PROBE_TIMEOUT_S) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    return probe


class Start:
    """The start of one process, until it is ready."""

    def __init__(self, process: ManagedProcess, probe: Probe, timeout_s: float) -> None:
        """Begins the time that the start may take.

        Args:
            process: the part that the probe asks.
            probe: what tells that it is ready.
            timeout_s: how long it may take.
        """
        self._process = process
        self._probe = probe
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def is_ready(self) -> bool:
        """Asks the probe once.

        Raises:
            PartError: when the process has ended, or at the timeout.
        """
        status = self._process.poll()
        if status is not None:
            raise PartError(_explain(self._process, f"ended with status {status} before it was ready"))
        if self._probe():
            return True
        if time.monotonic() > self._deadline:
            raise PartError(_explain(self._process, f"was not ready after {self._timeout_s:.0f} s"))
        return False

    def wait(self) -> None:
        """Waits until the process is ready.

        Raises:
            PartError: as soon as it ends, or at the timeout.
        """
        while not self.is_ready():
            self.pause()

    def pause(self) -> None:
        """Waits for the time of the next look, or for the process's end if that comes first."""
        self._process.wait(_PROBE_INTERVAL_S)


def _explain(process: ManagedProcess, what: str) -> str:
    tail = process.log_tail()
    return f"{process.name} {what}; " + (f"its log ends:\n{tail}" if tail else "its log is empty")
