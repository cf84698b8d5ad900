"""One child process: started apart from the terminal, stopped with a grace, and never outliving its parent."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_EXEC_CHILD = Path(__file__).with_name("exec_child.py")

#: How much of a log's end is read for an error message, in bytes: some forty long lines.
_TAIL_SIZE_BYTES = 8192


class ManagedProcess:
    """A program that runs as a child, in its own session, with its output in a log file.

    Ctrl-C in the terminal reaches only the parent. On Linux the kernel kills the child when the parent dies,
    however it dies. Once the child has ended, what is left of its process group is killed too. Any thread may
    call any method.

    Attributes:
        name: what messages call it.
        argv: the program, as an absolute path, and its arguments; read at each start.
        env: its whole environment; read at each start.
        log_path: the file that its output is appended to.
        grace_s: how long it may take to end after SIGTERM.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        cwd: Path | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self.log_path = log_path
        self.cwd = cwd
        self.grace_s = grace_s
        self._popen: subprocess.Popen[bytes] | None = None
        self._swept = True
        self._lock = threading.RLock()
        # The kernel's "parent" is the thread that forked: the child would die with a short-lived caller.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"spawn-{name}")

    @property
    def pid(self) -> int | None:
        """The process id of the latest start; None before the first."""
        return self._popen.pid if self._popen else None

    @property
    def returncode(self) -> int | None:
        """The exit status of the latest start, negative for a signal; None while it runs or before it starts."""
        return self.poll()

    @property
    def is_running(self) -> bool:
        """Whether the child has been started and hasn't ended."""
        return self._popen is not None and self.poll() is None

    def start(self) -> None:
        """Starts the program; does nothing while it runs.

        Raises:
            OSError: if no process can be made. A program that can't be run ends at once, with the reason in
                its log.
        """
        with self._lock:
            if self.is_running:
                return
            self.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._popen = self._spawner.submit(self._spawn).result()
            self._swept = False

    def _spawn(self) -> subprocess.Popen[bytes]:
        wrapper = [sys.executable, "-I", "-S", str(_EXEC_CHILD), str(os.getpid())]
        descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603 - argv is the stack's own
                wrapper + self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    def poll(self) -> int | None:
        """Returns the exit status, or None while the child runs or before it was started."""
        if self._popen is None:
            return None
        status = self._popen.poll()
        if status is not None:
            self._sweep_group()
        return status

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the child's end and returns its exit status; None when it is still running at the timeout."""
        if self._popen is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout_s)
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Sends a signal to the child alone, not to its group; does nothing when it isn't running."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """Ends the child as ``kill -9`` does and waits until it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self, grace_s: float | None = None) -> None:
        """Sends SIGTERM, then SIGKILL after the grace; returns when the child is gone.

        Args:
            grace_s: instead of the process's own grace.
        """
        self.send_signal(signal.SIGTERM)
        if self.wait(self.grace_s if grace_s is None else grace_s) is None:
            self.kill()

    def restart(self) -> None:
        """Stops the child and starts it again."""
        with self._lock:
            self.stop()
            self.start()

    def log_tail(self, lines: int = 15) -> str:
        """Returns the last lines of the log, for error messages; empty when there is no log."""
        try:
            with self.log_path.open("rb") as log:
                size_bytes = log.seek(0, os.SEEK_END)
                log.seek(max(0, size_bytes - _TAIL_SIZE_BYTES))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _sweep_group(self) -> None:
        """Kills what the child left running in its group, once, while its id can't have been given away yet."""
        with self._lock:
            if self._swept or self._popen is None:
                return
            self._swept = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
