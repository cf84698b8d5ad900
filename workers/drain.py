"""How a model worker goes away: no new parts, a grace for running ones, then what is left is handed back."""

from __future__ import annotations

import threading

from contract.logs import get_logger
from workers.leases import LeaseKeeper, StopReason
from workers.media.pool import MediaPool

log = get_logger(__name__)


class Drain:
    """The first SIGTERM begins it, the second ends the grace. Thread-safe."""

    def __init__(self, grace_s: float, leases: LeaseKeeper, media: MediaPool) -> None:
        """``grace_s``: how long running parts may go on."""
        self._grace_s = grace_s
        self._leases = leases
        self._media = media
        self._begun = threading.Event()
        self._cut_short = threading.Event()

    @property
    def begun(self) -> bool:
        """Whether no new part may be claimed."""
        return self._begun.is_set()

    def run(self) -> None:
        """Begin, and hand back what still runs when the grace is over. Returns then; call from a thread of its own."""
        self._begun.set()
        self._cut_short.wait(self._grace_s)
        if len(self._leases):
            log.info("handing_back", held=len(self._leases))
        self._leases.stop_all(StopReason.DRAINED)
        self._media.close()

    def cut_short(self) -> None:
        """End the grace now: also when every part has ended by itself."""
        self._cut_short.set()
