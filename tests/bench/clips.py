"""Clips for the video benchmark, made with PyAV: moving texture whose picture number can be told from its pixels."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

#: The clip that the issue names: one minute of full HD.
SECONDS, WIDTH, HEIGHT, RATE = 60, 1920, 1080, 30

#: Side of the texture's squares in pixels.
SQUARE = 30


def write_clip(file: Path, *, gop: int) -> None:
    """Writes an H.264 clip with a keyframe every ``gop`` frames and B-frames between."""
    random = np.random.default_rng(0)
    squares = random.integers(0, 256, (HEIGHT // SQUARE, WIDTH // SQUARE + 40, 3), np.uint8)
    texture = np.kron(squares, np.ones((SQUARE, SQUARE, 1), np.uint8))
    options = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", "preset": "veryfast", "crf": "28"}
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SECONDS * RATE):
            left = number % (texture.shape[1] - WIDTH)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[:, left : left + WIDTH]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
