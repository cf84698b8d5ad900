"""``python -m tests.bench media``: tiling against the library's processor, frame reading against moviepy."""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

from ovis_engine.tiling import tile_image
from ovis_engine.video import PyAvReader, read_frames
from tests.bench.clips import write_clip
from tests.bench.peers import CACHE, peer_python

#: Size of the picture, which the models cut into nine tiles and a thumbnail.
PICTURE_SIZE = (2000, 1500)
SIDE, MAX_PARTITION, NUM_TILES = 448, 9, 10

Times = dict[str, list[float]]


def main(arguments: Sequence[str]) -> None:
    """Measures and prints a table and a last line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench media", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    ratios = _report(
        "tiling", _measure_tiling(3 * rounds), {"tiling_over_library": "exact", "fast_tiling_over_library": "fast"}
    )
    for gop in (250, 60):
        times = _measure_video(gop, rounds)
        ratios |= _report(f"video, GOP {gop}", times, {f"video_over_moviepy_gop{gop}": "PyAV"})
    print(json.dumps(ratios))


def _report(title: str, times: Times, ratios: dict[str, str]) -> dict[str, float]:
    """Prints medians; returns how many times faster each named way is than the first one."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{title:<16} {name:<22} {seconds * 1000:8.1f} ms")
    baseline = next(iter(medians.values()))
    return {key: round(baseline / medians[name], 2) for key, name in ratios.items()}


def _measure_tiling(rounds: int) -> Times:
    """Times tiling of one decoded JPEG; the library's way also normalises and pads, ours does so in the engine."""
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize(PICTURE_SIZE, Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
    picture = Image.open(encoded)
    picture.load()
    library = Ovis2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        crop_to_patches=True,
        max_patches=MAX_PARTITION,
        use_covering_area_grid=True,
    )
    ways: dict[str, Callable[[], int]] = {
        "library, PIL": lambda: len(library(picture, return_tensors="np")["pixel_values"]),
        "exact": lambda: len(tile_image(picture, side=SIDE, max_partition=MAX_PARTITION).tiles),
        "fast": lambda: len(tile_image(picture, side=SIDE, max_partition=MAX_PARTITION, exact=False).tiles),
        "decoding the JPEG": lambda: NUM_TILES * (Image.open(encoded).convert("RGB").size == PICTURE_SIZE),
    }
    times: Times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            assert way() == NUM_TILES
            times[name].append(time.perf_counter() - started)
    return times


def _measure_video(gop: int, rounds: int) -> Times:
    """Times reading twelve frames of a clip, by moviepy in its own process and environment and by us."""
    clip = CACHE / f"clip-gop{gop}.mp4"
    if not clip.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        write_clip(clip.with_suffix(".part.mp4"), gop=gop)
        clip.with_suffix(".part.mp4").rename(clip)
    times: Times = {"moviepy": [], "PyAV": []}
    with _moviepy(clip) as read_with_moviepy:
        for _ in range(rounds):
            times["moviepy"].append(read_with_moviepy())
            started = time.perf_counter()
            assert len(read_frames(PyAvReader(), clip)) == 12
            times["PyAV"].append(time.perf_counter() - started)
    return times


@contextmanager
def _moviepy(clip: Path) -> Iterator[Callable[[], float]]:
    """Starts moviepy's process; gives a function that makes it read the clip and returns the seconds."""
    command = [str(peer_python("moviepy")), str(Path(__file__).with_name("moviepy_peer.py")), str(clip)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        read()  # imports and disk cache
        yield read
        process.stdin.close()
