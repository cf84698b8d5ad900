"""Free TCP ports on the loopback interface."""

import random
import socket

HOST = "127.0.0.1"

#: Below the range that Linux hands to outgoing connections (from 32768), so that none of them takes a port
#: while its server is being restarted.
_CANDIDATES = range(15000, 32000)


class PortInUseError(Exception):
    """A port that was asked for is taken."""


def is_free(port: int) -> bool:
    """Tells whether a server could bind the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it too: connections of a stopped server that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class PortPicker:
    """Hands out free ports, each at most once."""

    def __init__(self) -> None:
        self._order = random.SystemRandom().sample(_CANDIDATES, k=len(_CANDIDATES))

    def pick(self) -> int:
        """Returns a free port.

        Raises:
            PortInUseError: when none is left.
        """
        while self._order:
            port = self._order.pop()
            if is_free(port):
                return port
        raise PortInUseError(f"no free port between {_CANDIDATES.start} and {_CANDIDATES.stop}")

    def claim(self, port: int | None) -> int:
        """Returns the port that was asked for, or a free one when none was.

        Raises:
            PortInUseError: when the port is taken.
        """
        if port is None:
            return self.pick()
        if not is_free(port):
            raise PortInUseError(f"port {port} is already in use")
        if port in self._order:
            self._order.remove(port)
        return port
