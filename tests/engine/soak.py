"""Memory over many short requests: ``python -m tests.engine.soak [REQUESTS]`` prints how the resident set grows.

One request in ten brings a picture that was never seen, so that slots, token ids and cache pages are used up and given
out again; others stream, sample, follow a pattern or are canceled.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import psutil

from ovis_engine import Completion, Engine, Regex, Request, Sampling, TiledImage
from tests.engine.conftest import SMALL, TINY

#: Requests between two samples of the resident set.
SAMPLE_EVERY = 200
#: Share of the run that fills caches and allocators and is left out.
WARM_UP = 0.5


@dataclass(frozen=True)
class SoakResult:
    """What a run measured.

    Attributes:
        num_requests: Requests run.
        seconds: Their duration.
        rss_mib: Resident set after each sample, in MiB.
        slope_bytes: Growth per request in bytes, least squares after the warm-up.
        objects: Python objects that the collector tracked at each sample: a leak that allocators cannot hide or feign.
    """

    num_requests: int
    seconds: float
    rss_mib: tuple[float, ...]
    slope_bytes: float
    objects: tuple[int, ...]

    @property
    def objects_per_request(self) -> float:
        """Growth of the number of objects per request after the warm-up, between its first and its last sample."""
        kept = self.objects[int(len(self.objects) * WARM_UP) :]
        return (kept[-1] - kept[0]) / (SAMPLE_EVERY * (len(kept) - 1))


def soak(num_requests: int) -> SoakResult:
    """Runs short requests through one engine, at most 64 at a time."""
    process = psutil.Process()
    samples: list[int] = []
    objects: list[int] = []
    left: deque[Future[Completion]] = deque()
    started = time.monotonic()
    with Engine.from_pretrained(TINY, SMALL) as engine:
        for index in range(num_requests):
            left.append(engine.submit(short_request(index), (lambda _: None) if index % 7 == 0 else None))
            if index % 20 == 0:
                engine.cancel(f"soak-{index}")
            if len(left) >= 64:
                left.popleft().result(120)
            if index % SAMPLE_EVERY == SAMPLE_EVERY - 1:
                while left:
                    left.popleft().result(120)
                gc.collect()
                objects.append(len(gc.get_objects()))
                samples.append(process.memory_info().rss)
        while left:
            left.popleft().result(120)
        stats = engine.stats()
        assert (stats.waiting, stats.running, stats.pool_rows_used, stats.cache_tokens_used) == (0, 0, 0, 0)
    kept = samples[int(len(samples) * WARM_UP) :]
    slope = float(np.polyfit(np.arange(len(kept)) * SAMPLE_EVERY, kept, 1)[0])
    return SoakResult(
        num_requests,
        time.monotonic() - started,
        tuple(round(rss / 2**20, 1) for rss in samples),
        round(slope, 1),
        tuple(objects),
    )


def short_request(index: int) -> Request:
    """The index-th request, of a few tokens."""
    pixels = np.full((20, 20, 3), index % 256, dtype=np.uint8)
    pixels[0, :4, 0] = [index >> shift & 255 for shift in (0, 8, 16, 24)]
    new_picture = TiledImage(1, 1, 20, 20, 448, (pixels,))
    return Request(
        f"Number {index}?",
        images=(new_picture,) if index % 10 == 0 else (),
        max_new_tokens=4,
        sampling=Sampling(temperature=1.0) if index % 3 == 0 else Sampling(),
        constraint=Regex("[a-z]{2}") if index % 50 == 1 else None,
        stop=("zz",) if index % 11 == 0 else (),
        logprobs=2 if index % 13 == 0 else None,
        request_id=f"soak-{index}",
    )


def main() -> None:
    """Prints the samples and the slope."""
    result = soak(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    print("resident set, MiB:", *result.rss_mib)
    print("objects:", *result.objects)
    print(
        f"{result.num_requests} requests in {result.seconds:.0f} s: {result.slope_bytes} bytes and "
        f"{result.objects_per_request:.3f} objects per request"
    )


if __name__ == "__main__":
    main()
