"""A real receiver of webhooks: an HTTP server in the test's process that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """What the receiver's library makes of it; raises where a signature is wrong."""
        return Webhook(secret).verify(self.body, self.headers)


#: What a receiver does: a status with headers, or None for no answer at all.
Behaviour = Callable[[int], tuple[int, dict[str, str]] | None]


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets. ``answer`` is asked with the number of the request, from 1."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Behaviour = lambda _number: (204, {})
        self.released = threading.Event()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def keep(self, request: Received) -> int:
        with self._lock:
            self.received.append(request)
            return len(self.received)

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        number = self.server.keep(Received(self.path, headers, body))
        told = self.server.answer(number)
        if told is None:
            self.server.released.wait(30)
            return
        status, more = told
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.keep(Received(self.path, {}, b""))
        self.send_error(500)

    def log_message(self, *args: Any) -> None:
        pass
