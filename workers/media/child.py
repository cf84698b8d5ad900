"""A media process: takes jobs from a pipe until the worker is gone.

``python -I -m workers.media.child FD MEMORY_BYTES``. Its environment holds no credentials, its address space and CPU
time are limited, and it imports no model library. It is killed from outside when a job takes too long.
"""

from __future__ import annotations

import ipaddress
import resource
import signal
import sys
from multiprocessing.connection import Connection

from contract.egress import EgressPolicy
from contract.errors import FleetError, LimitExceeded
from ovis_engine.tiling import TiledImage, tile_image
from workers.media.answers import DocumentFormat, DocumentProbe, PageSize
from workers.media.decode import count_frames, decode_image
from workers.media.fetch import fetch
from workers.media.protocol import MediaJob, receive_job, send_error, send_probe, send_tiles


def perform(job: MediaJob) -> TiledImage | DocumentProbe:
    """Fetch, then decode and tile, or look how many pages there are.

    Raises:
        FleetError: What was wrong with the input, or the object store.
    """
    networks = tuple(ipaddress.ip_network(network) for network in job.allow_networks)
    policy = None if job.trusted else EgressPolicy(allow_http=job.allow_http, allow_networks=networks)
    limits = job.limits
    data = fetch(job.url, policy=policy, max_bytes=limits.max_input_bytes, timeout_s=limits.timeout_s)
    if job.what == "probe":
        format_name, sizes = count_frames(data)
        known: dict[str, DocumentFormat] = {"TIFF": "tiff", "GIF": "gif", "WEBP": "webp"}
        return DocumentProbe(known.get(format_name, "picture"), tuple(PageSize(*size) for size in sizes))
    image = decode_image(data, max_pixels=limits.max_pixels, frame=(job.page or 1) - 1)
    try:
        return tile_image(image, side=job.side, max_partition=job.max_partition)
    except MemoryError as exc:
        raise LimitExceeded("cutting the picture needs more memory than allowed") from exc


def serve(connection: Connection) -> None:
    """Answer jobs until the other end closes."""
    while True:
        try:
            job = receive_job(connection)
        except EOFError:
            return
        _limit_cpu(job.limits.cpu_s)
        try:
            answer = perform(job)
        except FleetError as exc:
            send_error(connection, exc.code, str(exc))
        except MemoryError:
            send_error(connection, LimitExceeded.code, "the input needs more memory than allowed")
        else:
            send_probe(connection, answer) if isinstance(answer, DocumentProbe) else send_tiles(connection, answer)


def _limit_cpu(seconds: int) -> None:
    """Move the limit: it counts from the process's start, jobs have theirs each."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def main(argv: list[str]) -> None:
    """Set the limits, then serve."""
    fd, memory_bytes = int(argv[0]), int(argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(fd) as connection:
        serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
