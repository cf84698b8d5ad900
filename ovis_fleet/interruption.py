"""Ctrl-C and SIGTERM: the first asks for a stop, the second for a quick one."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

#: The terminal's Ctrl-C, a service manager's stop, a closed terminal.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """How a signal is taken at the moment."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        """Takes the first signal as a KeyboardInterrupt.

        Args:
            hurry: called by each further signal, within the signal handler.
        """
        self._hurry = hurry
        self._is_stopping = False

    def stop_begins(self) -> None:
        """From now on a signal only hurries the stop."""
        self._is_stopping = True

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Is the signal handler."""
        if self._is_stopping:
            self._hurry()
            return
        self._is_stopping = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible(hurry: Callable[[], None]) -> Iterator[Interruption]:
    """Takes over the signals; gives them back at the end. For the main thread.

    Args:
        hurry: called when a signal comes while the stop is under way.
    """
    interruption = Interruption(hurry)
    before = {number: signal.signal(number, interruption.handle) for number in _SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
