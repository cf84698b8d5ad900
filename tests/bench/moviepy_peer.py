"""Runs in moviepy's own environment, which its pin of Pillow keeps apart: times the model card's frame sampling.

    python moviepy_peer.py CLIP

Each line on standard input makes it read the clip once more; each output line is the seconds that took.
"""

from __future__ import annotations

import sys
import time

from moviepy import VideoFileClip
from PIL import Image

NUM_FRAMES = 12


def read_frames(file: str) -> list[Image.Image]:
    """The code of the model card."""
    with VideoFileClip(file) as clip:
        total_frames = int(clip.fps * clip.duration)
        stride = total_frames / NUM_FRAMES
        sampled = [min(total_frames - 1, int((stride * i + stride * (i + 1)) / 2)) for i in range(NUM_FRAMES)]
        return [Image.fromarray(clip.get_frame(index / clip.fps)) for index in sampled]


if __name__ == "__main__":
    for _ in sys.stdin:
        started = time.perf_counter()
        assert len(read_frames(sys.argv[1])) == NUM_FRAMES
        print(time.perf_counter() - started, flush=True)
