"""The small HTTP server that every role runs beside its work: /metrics, /livez, /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Probes come every few seconds; they are not worth a line each."""


def serve_observability(
    registry: CollectorRegistry,
    *,
    host: str,
    port: int,
    ready: Callable[[], bool],
    alive: Callable[[], bool] = lambda: True,
) -> Callable[[], None]:
    """Serve until the returned function is called.

    Args:
        registry: What /metrics shows.
        port: 0 lets the system choose.
        ready: Whether /readyz is 200; called from the server's threads.
        alive: Whether /livez is 200. A role that ends itself when it stalls needs none.

    Raises:
        OSError: The port is taken.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            response: Iterable[bytes] = metrics(environ, start_response)
            return response
        probe = {"/livez": alive, "/readyz": ready}.get(str(path))
        status = "404 Not Found" if probe is None else "200 OK" if probe() else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain")])
        return [status.encode()]

    server = make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, name="observe", daemon=True)
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close
