"""Frames of a clip, chosen as the models' card does. Importing it loads neither torch nor a video library.

Two readers give the same frames: `PyAvReader` decodes only what it must, `MoviePyReader` is the model card's own way.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ovis_engine.errors import DamagedVideoError, NoVideoFramesError, NoVideoStreamError
from ovis_engine.tiling import UInt8Array

#: Frames that the models were trained on, per clip.
NUM_FRAMES = 12


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are read. As it is: the model card's.

    Attributes:
        num_frames: Most frames, at least 1; None means ``NUM_FRAMES``, or as many as ``fps`` gives.
        fps: Frames per second of the stretch, above 0; evenly spread, at most ``num_frames``.
        start_s: Where the stretch begins, in seconds from the clip's start.
        end_s: Where it ends; None means with the clip.
    """

    num_frames: int | None = None
    fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None


class VideoReader(Protocol):
    """Reads frames of a clip."""

    def read_frames(self, file: Path, num_frames: int = NUM_FRAMES) -> list[Image.Image]:
        """Reads evenly spread frames.

        Args:
            file: A local video file.
            num_frames: Most frames to read, at least 1.

        Returns:
            RGB pictures in order of time, turned upright; all frames of the clip if it has no more.

        Raises:
            NoVideoStreamError: If the file holds no moving pictures.
            NoVideoFramesError: If no frame can be decoded.
            DamagedVideoError: If the file is no video or is damaged.
        """
        ...


class PyAvReader:
    """Seeks to the keyframe before each wanted frame and leaves out what no wanted frame needs."""

    def read_frames(self, file: Path, num_frames: int = NUM_FRAMES) -> list[Image.Image]:
        """As `VideoReader.read_frames`. Where frames come at uneven times, the one shown at a moment is taken."""
        import av

        from ovis_engine.video_scan import pick_frames

        try:
            frames = pick_frames(file, lambda total: sample_indices(total, num_frames))
            # The model card's reader converts colours with bicubic chroma.
            interpolation = av.video.reformatter.Interpolation.BICUBIC
            pictures = [frame.to_ndarray(format="rgb24", interpolation=interpolation) for frame in frames]
        except FileNotFoundError:
            raise
        except av.error.FFmpegError as exc:
            raise DamagedVideoError(f"the clip cannot be decoded ({type(exc).__name__})") from exc
        # The library gives the angle counterclockwise, as numpy takes it.
        return [
            _picture(np.rot90(picture, frame.rotation // 90)) for picture, frame in zip(pictures, frames, strict=True)
        ]


class MoviePyReader:
    """The model card's reader; needs moviepy, which is not a dependency (see ``docs/decisions/0005-moviepy.md``)."""

    def read_frames(self, file: Path, num_frames: int = NUM_FRAMES) -> list[Image.Image]:
        """As `VideoReader.read_frames`, for clips whose frames come at even times.

        Raises:
            ImportError: If moviepy is not installed.
        """
        from moviepy import VideoFileClip

        _check_with_moviepy(file)
        with warnings.catch_warnings():
            # It warns about frames that a container announces and lacks, and repeats the last one; and it leaves pipes
            # of processes that have ended to the garbage collector.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            with VideoFileClip(str(file), audio=False) as clip:
                indices = sample_indices(int(clip.fps * clip.duration), num_frames)
                if not indices:
                    raise NoVideoFramesError("the clip has no frames")
                return [_picture(clip.get_frame(index / clip.fps)) for index in indices]


def sample_indices(total: int, num_frames: int = NUM_FRAMES) -> Sequence[int]:
    """Indices of the frames that stand for a clip of ``total`` frames: the middles of equal stretches."""
    if total <= num_frames:
        return range(total)
    stride = total / num_frames
    # The model card's expression: another order of operations rounds differently.
    return [min(total - 1, int((stride * index + stride * (index + 1)) / 2)) for index in range(num_frames)]


def _picture(pixels: UInt8Array) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels))


def _check_with_moviepy(file: Path) -> None:
    """Finds out whether moviepy can open a clip; where it can't, it would leave pipes behind."""
    from moviepy.video.io.ffmpeg_reader import ffmpeg_parse_infos

    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file.name}")
    try:
        found = ffmpeg_parse_infos(str(file), check_duration=True)
    except (OSError, KeyError, IndexError) as exc:
        raise DamagedVideoError("the file cannot be read as a video") from exc
    if not found.get("video_found"):
        raise NoVideoStreamError("the file holds no moving pictures")
