"""A web server for inputs of media tests: bodies with entity tags, redirects, errors, and bodies that never end."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What is served under which name. A query is no part of the name.
BODIES: dict[str, bytes] = {}

#: How often each body was sent whole.
SENT: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """Serves ``BODIES``; what begins with ``untagged`` without a tag."""

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name.startswith("to/"):
            self.send_response(302)
            self.send_header("Location", name.removeprefix("to/"))
            self.end_headers()
        elif name.partition("?")[0] in BODIES:
            self.send_body(name.partition("?")[0])
        elif name == "silent":
            self.connection.recv(1)  # answers nothing until the client is gone
        elif name == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        else:
            self.send_error(404)

    def send_body(self, name: str) -> None:
        body = BODIES[name]
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            return
        SENT[name] += 1
        self.send_response(200)
        if not name.startswith("untagged"):
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the client may hang up when it has had enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[str]:
    """Serve on a free port of the loopback interface; gives the URL without a slash at its end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
