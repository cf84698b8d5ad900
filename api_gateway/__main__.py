"""``python -m api_gateway``: serves the HTTP face until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from api_gateway.app import create_app
from api_gateway.services import Services
from api_gateway.settings import GatewaySettings
from contract.logs import configure_logs
from contract.prompt_book import PromptFileError
from contract.settings import explain

#: Seconds for which an idle connection is kept; longer than a load balancer's own, so that it is the one to close.
_KEEP_ALIVE_S = 75


class GatewayServer(uvicorn.Server):
    """uvicorn, but a stop first lets those go who only wait."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what is held, end."""
        self._on_stop()
        await super().shutdown(sockets)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m api_gateway", description="The HTTP face of Ovis Fleet.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        settings = GatewaySettings()
    except ValidationError as exc:
        return _refuse(f"OVIS_{name.upper()}: {message}" for name, message in explain(exc))
    configure_logs("gateway", settings.log_level)
    try:
        app = create_app(settings)
    except PromptFileError as exc:
        return _refuse([f"OVIS_PROMPTS_DIR: {exc}"])
    except OSError as exc:
        return _refuse([f"OVIS_TENANTS_FILE: {settings.tenants_file}: {exc.strerror}"])
    except ValidationError as exc:
        return _refuse(f"{settings.tenants_file}: {name}: {message}" for name, message in explain(exc))
    return _serve(app, settings, args.host, args.port)


def _serve(app: FastAPI, settings: GatewaySettings, host: str, port: int) -> int:
    services: Services = app.state.services
    # What is there now stays for good: without it a full collection takes less than a tenth of the time.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    # uvicorn raises the signal again once it has stopped; that end is a success.
    signal.signal(signal.SIGTERM, _exit)
    try:
        GatewayServer(config, services.stop_waiting).run()
    except KeyboardInterrupt:
        return 130
    return 0


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _refuse(lines: Iterable[str]) -> int:
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - logs may not be set up yet
    return 2


if __name__ == "__main__":
    sys.exit(main())
