"""A media process: takes jobs from a pipe until the worker is gone.

``python -I -m workers.media.child FD MEMORY_BYTES FILE_BYTES``. Its environment holds no credentials, its address
space and CPU time are limited, it writes no files (LibreOffice, where there is one, up to FILE_BYTES), and it imports
no model library. It is killed from outside when a job takes too long. Where a reader failed on a file in a way that
nobody foresaw, it says so and begins anew under the same process id: a job that was sent meanwhile waits in the pipe.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from contract.errors import FleetError, LimitExceeded
from workers.media.broken import ReaderBroke
from workers.media.inputs import Inputs
from workers.media.jobs import perform
from workers.media.protocol import receive_job, send_answer, send_error


def serve(connection: Connection) -> ReaderBroke | None:
    """Answer jobs until the other end closes, or a reader broke: this process must not read on then."""
    inputs = Inputs()
    while True:
        try:
            job = receive_job(connection)
        except EOFError:
            return None
        _limit_cpu(job.limits.cpu_s)
        try:
            answer = perform(job, inputs)
        except FleetError as exc:
            send_error(connection, exc.code, str(exc))
        except MemoryError:
            send_error(connection, LimitExceeded.code, "the input needs more memory than allowed")
        except ReaderBroke as exc:
            send_error(connection, exc.error.code, str(exc.error))
            return exc
        else:
            send_answer(connection, answer)


def _limit_cpu(seconds: int) -> None:
    """Move the limit: it counts from the process's start, jobs have theirs each."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def main(argv: list[str]) -> None:
    """Set the limits, then serve."""
    fd, memory_bytes, file_bytes = map(int, argv)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, file_bytes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(fd) as connection:
        broke = serve(connection)
        if broke is not None:
            _tell(broke)
            _begin_anew(argv)


def _tell(broke: ReaderBroke) -> None:
    """Log for the operator that a reader lacks a check."""
    from contract.logs import configure_logs, get_logger  # every media process would start later for it

    configure_logs("media")
    with suppress(OSError):  # where stderr is a plain file, this process may not write to it
        get_logger(__name__).error("media_reader_broke", error=type(broke.__cause__).__name__, where=broke.where)


def _begin_anew(argv: list[str]) -> None:
    """Replace this process by a fresh one, which has the same pipe and limits."""
    # What the broken job left of its CPU time is too little for a start; the next job moves the limit again.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    os.execv(sys.executable, [sys.executable, "-I", "-m", "workers.media.child", *argv])  # noqa: S606 - as the pool does


if __name__ == "__main__":
    main(sys.argv[1:])
