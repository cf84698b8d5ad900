"""The tenants file while the gateway runs: read again when it changes, kept as it was where the new one is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import ValidationError

from contract.logs import get_logger
from contract.metrics import GatewayMetrics
from contract.settings import explain
from contract.tenants import Tenants

log = get_logger(__name__)

#: How often the file's state is looked at, in seconds. Secrets that Kubernetes mounts tell no watcher of a change
#: in a way that holds on every file system; a look costs microseconds.
_LOOK_S = 0.5


class TenantsFile:
    """The tenants as the file said last. Used from the event loop's thread only.

    Raises:
        OSError: The file can't be read at the start.
        pydantic.ValidationError: The file is wrong at the start.
    """

    def __init__(self, path: Path, metrics: GatewayMetrics) -> None:
        self._path = path
        self._metrics = metrics
        self._seen = _state(path)
        self.current = Tenants.load(path)
        self.problem: str | None = None
        metrics.tenants_file_ok.set(1)

    async def watch(self) -> None:
        """Look at the file again and again until canceled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Read the file if it has changed since the last look."""
        state = _state(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self.current = await asyncio.to_thread(Tenants.load, self._path)
        except OSError as exc:
            self._keep(f"it can't be read: {exc.strerror}")
        except ValidationError as exc:
            name, message = explain(exc)[0]
            self._keep(f"{name or 'the file'}: {message}")
        else:
            self.problem = None
            self._metrics.tenants_file_ok.set(1)
            self._metrics.tenants_reloads.labels("loaded").inc()
            log.info("tenants_loaded", count=len(self.current.tenants))

    def _keep(self, problem: str) -> None:
        self.problem = problem
        self._metrics.tenants_file_ok.set(0)
        self._metrics.tenants_reloads.labels("refused").inc()
        log.error("tenants_file_refused", problem=problem)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file's content, through links too; None where it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
