"""Becomes the program named on its command line, after asking to die with its parent.

Run by path as ``python -I -S exec_child.py PARENT_PID PROGRAM [ARG...]``; it imports nothing outside the
standard library, so that it costs some 15 ms. A ``preexec_fn`` would do the same inside the fork, where a
process with threads may deadlock.
"""

import ctypes
import os
import signal
import sys

#: From <linux/prctl.h>: the signal that this process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel for SIGKILL at the parent's end; does nothing where the kernel isn't Linux.

    Args:
        parent_pid: the process that started this one.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        # It died before the request was made: no signal will come.
        os._exit(1)


def main(argv: list[str]) -> None:
    """Replaces this process by the program; returns only by raising OSError when it can't be run."""
    parent_pid, program = int(argv[0]), argv[1:]
    die_with_parent(parent_pid)
    # Python ignores these for itself, and ignored signals survive an exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(program[0], program)  # noqa: S606 - no shell is meant
    except OSError as exc:
        sys.exit(f"cannot run {program[0]}: {exc.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
