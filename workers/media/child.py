"""A media process: takes jobs from a pipe until the worker is gone.

``python -I -m workers.media.child FD MEMORY_BYTES FILE_BYTES``. Its environment holds no credentials, its address
space and CPU time are limited, it writes no files (LibreOffice, where there is one, up to FILE_BYTES), and it imports
no model library. It is killed from outside when a job takes too long.
"""

from __future__ import annotations

import resource
import signal
import sys
from multiprocessing.connection import Connection

from contract.errors import FleetError, LimitExceeded
from workers.media.inputs import Inputs
from workers.media.jobs import perform
from workers.media.protocol import receive_job, send_answer, send_error


def serve(connection: Connection) -> None:
    """Answer jobs until the other end closes."""
    inputs = Inputs()
    while True:
        try:
            job = receive_job(connection)
        except EOFError:
            return
        _limit_cpu(job.limits.cpu_s)
        try:
            answer = perform(job, inputs)
        except FleetError as exc:
            send_error(connection, exc.code, str(exc))
        except MemoryError:
            send_error(connection, LimitExceeded.code, "the input needs more memory than allowed")
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
        serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
