"""A road to a server that some requests don't survive: a TCP forwarder in the test's process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit


@contextmanager
def road_without(part: str, url: str) -> Iterator[str]:
    """The address of a road to ``url`` on which every request for a path with ``part`` in it finds the line cut."""
    target = urlsplit(url)

    class Road(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((target.hostname or "", target.port or 80)) as server:
                back = threading.Thread(target=_carry, args=(server, self.request))
                back.start()
                with suppress(OSError):
                    while (data := self.request.recv(65536)) and part.encode() not in data.split(b"\r\n", 1)[0]:
                        server.sendall(data)
                for end in (server, self.request):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    class Roads(ThreadingTCPServer):
        daemon_threads = True

    with Roads(("127.0.0.1", 0), Road) as roads:
        serving = threading.Thread(target=roads.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{roads.server_address[1]}"
        finally:
            roads.shutdown()
            serving.join()


def _carry(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
