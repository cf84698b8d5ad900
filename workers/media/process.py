"""A media process as its worker holds it: started with nothing but what it needs, killed with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import Pipe

from workers.media.office import remove_leftovers

#: All that a media process gets of our environment. No credentials, no addresses.
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: The one variable that is passed on: where conversions lie, which the worker removes when it kills their process.
_PLACE = "TMPDIR"


class MediaProcess:
    """One child process, with the connection to it. The thread that has it may use it; ``end`` any."""

    def __init__(self, memory_bytes: int, file_bytes: int) -> None:
        """Start it; ``file_bytes`` is the longest file that it may write."""
        self.connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            argv = [sys.executable, "-I", "-m", "workers.media.child", *map(str, (fd, memory_bytes, file_bytes))]
            environment = {**_ENVIRONMENT, _PLACE: tempfile.gettempdir()}
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                argv, env=environment, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.jobs = 0

    def kill(self) -> int:
        """End it and what it started at once; reply its exit code, negative for a signal."""
        self.connection.close()
        return self.end()

    def end(self) -> int:
        """Kill its process group, which is its own, and remove its files; reply its exit code.

        The id of a process that was waited for may be another's by now.
        """
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        remove_leftovers(self.process.pid)
        return code
