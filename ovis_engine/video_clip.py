"""Opens a clip with PyAV and reads what its headers say. No torch."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import av

from ovis_engine.errors import DamagedVideoError, NoVideoFramesError, NoVideoStreamError, VideoTooLargeError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

#: Containers that are read. Playlists are not: they make the reader open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"

#: Units of a container's times in a second.
MICROSECONDS = 1_000_000

#: Frames a second above which a header is not believed; high-speed cameras' files play at ordinary rates.
MAX_RATE = 1000


def clip_facts(source: Path | bytes, *, max_pixels: int | None) -> tuple[float, int, int, int, float]:
    """Seconds, width and height turned upright, number of frames, and frames a second of a clip.

    Raises:
        NoVideoStreamError, NoVideoFramesError, VideoTooLargeError, av.error.FFmpegError: As `Picker.pick`.
    """
    with opened(source) as container:
        stream = moving_pictures(container, max_pixels)
        rate = average_rate(stream)
        total = count_frames(container, stream, rate)
        first = next(container.decode(stream), None)
        if first is None or total < 1:
            raise NoVideoFramesError("the clip has no frames")
        turned = round(first.rotation / 90) % 2 == 1
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        seconds = duration_s(container, total, rate)
    return seconds, width, height, total, float(rate)


def opened(source: Path | bytes) -> InputContainer:
    """Open a clip for reading; close it with ``with``."""
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    file = BytesIO(source) if isinstance(source, bytes) else str(source)
    # Titles may be in any encoding; nobody reads them here.
    return av.open(file, mode="r", options=options, metadata_errors="replace")


def average_rate(stream: VideoStream) -> Fraction:
    """Frames a second, above 0.

    Raises:
        NoVideoFramesError: The stream has none.
        VideoTooLargeError: More than ``MAX_RATE``.
    """
    rate = stream.average_rate or stream.guessed_rate
    if not rate or rate < 0:
        raise NoVideoFramesError("the clip has no frames")
    if rate > MAX_RATE:
        raise VideoTooLargeError(f"the clip has {float(rate):g} frames a second; the limit is {MAX_RATE}")
    return Fraction(rate)


def moving_pictures(container: InputContainer, max_pixels: int | None) -> VideoStream:
    """The first video stream that is no cover picture.

    Args:
        container: The opened clip.
        max_pixels: Most pixels of a frame; None is no limit.

    Raises:
        NoVideoStreamError: There is none.
        DamagedVideoError: Nothing here decodes it.
        VideoTooLargeError: Its frames are too large.
    """
    for stream in container.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        context: VideoCodecContext | None = stream.codec_context
        if context is None:
            raise DamagedVideoError("the clip is packed by a codec that is not known here")
        if max_pixels is not None:
            if context.width * context.height > max_pixels:
                raise VideoTooLargeError(
                    f"the clip's frames have {context.width} x {context.height} pixels; the limit is {max_pixels}"
                )
            context.options = {"max_pixels": str(max_pixels)}  # for sizes that change on the way
        return stream
    raise NoVideoStreamError("the file holds no moving pictures")


def count_frames(container: InputContainer, stream: VideoStream, rate: Fraction) -> int:
    """Number of frames as the model card's reader counts them: from rate and duration, in hundredths of a second."""
    if container.duration:
        hundredths = (container.duration + MICROSECONDS // 200) // (MICROSECONDS // 100)
        return int(Fraction(hundredths, 100) * rate)
    count = sum(packet.size > 0 for packet in container.demux(stream))
    container.seek(0)
    return count


def duration_s(container: InputContainer, total: int, rate: Fraction) -> float:
    """Seconds that a clip of ``total`` frames lasts: what its container says, or as long as its frames are shown."""
    return container.duration / MICROSECONDS if container.duration else float(total / rate)
