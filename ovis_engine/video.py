"""Frames of a clip, chosen as the models' card does. Importing it loads neither torch nor a video library.

Two readers give the same frames: `PyAvReader` decodes only what it must, `MoviePyReader` is the model card's own way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from ovis_engine.errors import DamagedVideoError, NoVideoFramesError, NoVideoStreamError, VideoTooLargeError
from ovis_engine.tiling import UInt8Array

#: Frames that the models were trained on, per clip.
NUM_FRAMES = 12


T = TypeVar("T")

#: A local file, or a clip's bytes.
Source = Path | bytes


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

    def numbers(self, total: int, rate: Fraction) -> Sequence[int]:
        """Ascending numbers of the frames, of a clip of ``total`` frames at ``rate`` a second.

        Raises:
            NoVideoFramesError: If the clip has no frame in the stretch.
        """
        first, last = self._stretch(total, rate)
        return [first + number for number in sample_indices(last - first, self._most(last - first, rate))]

    def count(self, total: int, rate: Fraction) -> int:
        """How many ``numbers`` there are, without any of them. Raises as `numbers`."""
        first, last = self._stretch(total, rate)
        return min(last - first, self._most(last - first, rate))

    def _stretch(self, total: int, rate: Fraction) -> tuple[int, int]:
        """Number of the stretch's first frame, and of the one behind its last."""
        first = int(_exact(self.start_s) * rate)
        last = total if self.end_s is None else min(total, ceil(_exact(self.end_s) * rate))
        if first >= last:
            end = "its end" if self.end_s is None else f"{self.end_s:g} s"
            raise NoVideoFramesError(f"the clip has no frame from {self.start_s:g} s to {end}")
        return first, last

    def _most(self, available: int, rate: Fraction) -> int:
        if self.fps is None:
            return self.num_frames or NUM_FRAMES
        spread = max(1, round(available / rate * Fraction(self.fps)))
        return min(spread, self.num_frames or spread)


class VideoReader(Protocol):
    """Reads frames of a clip."""

    def sample(self, source: Path, sampling: Sampling, keep: Callable[[Image.Image], T]) -> list[tuple[float, T]]:
        """Reads frames and keeps of each what is needed.

        Args:
            source: A local video file.
            sampling: Which frames.
            keep: Called with each RGB picture, turned upright; maybe from several threads.

        Returns:
            When each frame is shown, in seconds from the clip's start, and what was kept of it; in order of time.

        Raises:
            NoVideoStreamError: If the file holds no moving pictures.
            NoVideoFramesError: If no frame can be decoded, or none is in the stretch.
            DamagedVideoError: If the file is no video or is damaged.
        """
        ...


@dataclass(frozen=True)
class ClipLimits:
    """What a reader may decode: pixels of a frame, and frames of a clip. None is no limit."""

    max_pixels: int | None = None
    max_frames: int | None = None


@dataclass(frozen=True)
class ClipFacts:
    """What a look at a clip shows: seconds, pixels of a frame turned upright, frames, frames a second."""

    duration_s: float
    width: int
    height: int
    num_frames: int
    fps: float


class PyAvReader:
    """Seeks to the keyframe before each wanted frame and leaves out what no wanted frame needs."""

    def __init__(self, limits: ClipLimits = ClipLimits()) -> None:
        """More than ``limits`` raises `VideoTooLargeError`."""
        self._limits = limits

    def sample(self, source: Source, sampling: Sampling, keep: Callable[[Image.Image], T]) -> list[tuple[float, T]]:
        """As `VideoReader.sample`, from bytes too. ``keep`` is called from two threads, a few frames at a time.

        Raises:
            VideoTooLargeError: If a limit is exceeded.
        """
        from ovis_engine.video_scan import Picker, upright

        def choose(total: int, rate: Fraction) -> Sequence[int]:
            count, most = sampling.count(total, rate), self._limits.max_frames
            if most is not None and count > most:
                raise VideoTooLargeError(f"{count} frames are asked for; the limit is {most}")
            return sampling.numbers(total, rate)

        picker = Picker(choose, lambda frame: keep(_picture(upright(frame))), max_pixels=self._limits.max_pixels)
        with _decoding(source):
            return picker.pick(source)

    def probe(self, source: Source) -> ClipFacts:
        """Looks at a clip; decodes its first frame only.

        Raises:
            NoVideoStreamError, NoVideoFramesError, DamagedVideoError, VideoTooLargeError: As `sample`.
        """
        from ovis_engine.video_scan import clip_facts

        with _decoding(source):
            return ClipFacts(*clip_facts(source, max_pixels=self._limits.max_pixels))


class MoviePyReader:
    """The model card's reader; needs moviepy, which is not a dependency (see ``docs/decisions/0005-moviepy.md``)."""

    def sample(self, source: Path, sampling: Sampling, keep: Callable[[Image.Image], T]) -> list[tuple[float, T]]:
        """As `VideoReader.sample`, for clips whose frames come at even times.

        Raises:
            ImportError: If moviepy is not installed.
        """
        from moviepy import VideoFileClip

        _check_with_moviepy(source)
        with warnings.catch_warnings():
            # It warns about frames that a container announces and lacks, and repeats the last one; and it leaves pipes
            # of processes that have ended to the garbage collector.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            with VideoFileClip(str(source), audio=False) as clip:
                indices = sampling.numbers(int(clip.fps * clip.duration), Fraction(clip.fps))
                times = [index / clip.fps for index in indices]
                return [(time, keep(_picture(clip.get_frame(time)))) for time in times]


def read_frames(reader: VideoReader, file: Path, num_frames: int = NUM_FRAMES) -> list[Image.Image]:
    """Reads evenly spread frames, at most ``num_frames``: RGB pictures in order of time. Raises as the reader does."""
    return [picture for _, picture in reader.sample(file, Sampling(num_frames=num_frames), lambda picture: picture)]


def sample_indices(total: int, num_frames: int = NUM_FRAMES) -> Sequence[int]:
    """Indices of the frames that stand for a clip of ``total`` frames: the middles of equal stretches."""
    if total <= num_frames:
        return range(total)
    stride = total / num_frames
    # The model card's expression: another order of operations rounds differently.
    return [min(total - 1, int((stride * index + stride * (index + 1)) / 2)) for index in range(num_frames)]


def _exact(seconds: float) -> Fraction:
    """The time that was meant: a tenth is no more than a tenth."""
    return Fraction(seconds).limit_denominator(1_000_000)


@contextmanager
def _decoding(source: Source) -> Iterator[None]:
    """FFmpeg's errors as ours; that of a file which isn't there stays what it is."""
    import av

    try:
        yield
    except av.error.FFmpegError as exc:
        if isinstance(exc, FileNotFoundError) and isinstance(source, Path):
            raise
        raise DamagedVideoError(f"the clip cannot be decoded ({type(exc).__name__})") from exc


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
