"""What a container says of its pictures' times, and what is done where that is missing or made up. No torch."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from ovis_engine.video_clip import MICROSECONDS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Seconds by which the last packet of a sound may begin before the sound ends: more than any codec's packet lasts.
LAST_PACKET_S = Fraction(1, 2)

#: Name of the tags in which Matroska files keep how long each stream is; some writers add a language.
DURATION_TAG = "DURATION"
#: How it is written: hours, minutes, seconds.
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def times_are_guessed(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the frames' times can't be trusted: AVI stores none, and where frames are reordered guesses go wrong."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def decode_in_order(container: InputContainer, stream: VideoStream, frame_ticks: int) -> Iterator[VideoFrame]:
    """Decodes all frames from where the container stands, which must be its beginning.

    Args:
        container: Whose packets come in the order of decoding, one a frame.
        stream: Of the container.
        frame_ticks: Time of a frame in the stream's time base.

    Yields:
        Frames in order of time; the n-th has the time at which the n-th packet is decoded.
    """
    times: deque[int] = deque()
    time = -frame_ticks
    for packet in container.demux(stream):
        # An empty one stands for a frame that was left out.
        if packet.size and packet.dts is not None:
            times.append(packet.dts)
        for frame in packet.decode():
            time = times.popleft() if times else time + frame_ticks
            frame.pts = time
            yield frame


def is_cut_short(container: InputContainer, stream: VideoStream, end: int) -> bool:
    """Whether a file whose pictures end here should have more of them.

    Args:
        container: The file, read to its end; it stands elsewhere afterwards.
        stream: The pictures.
        end: When the last one that was found ends, in the stream's time base, those few included that may be missing.
    """
    announced = _announced_end(container, stream)
    if announced is None or end >= announced:
        return False
    return bool(stream.duration) or not _others_last(container, stream)


def _announced_end(container: InputContainer, stream: VideoStream) -> int | None:
    """When the pictures end as the file says, in the stream's time base; None if it doesn't say."""
    if stream.duration:
        return (stream.start_time or 0) + stream.duration
    found = next((text for name, text in stream.metadata.items() if name.upper().startswith(DURATION_TAG)), "")
    clock = _CLOCK.match(found)
    seconds = Fraction(container.duration or 0, MICROSECONDS)
    if clock is not None:
        hours, minutes, rest = clock.groups()
        # A tag may be left from before the file was edited.
        seconds = min(seconds, int(hours) * 3600 + int(minutes) * 60 + Fraction(rest))
    return int(seconds / Fraction(stream.time_base or 1)) or None


def _others_last(container: InputContainer, stream: VideoStream) -> bool:
    """Whether something else, such as sound, goes on to the end that the container announces: the file is whole."""
    if len(container.streams) == 1 or not container.duration:
        return False
    late = Fraction(container.duration, MICROSECONDS) - LAST_PACKET_S
    container.seek(max(0, int(late * MICROSECONDS)))
    return any(
        packet.stream_index != stream.index and packet.pts is not None and packet.pts * packet.time_base >= late
        for packet in container.demux()
    )
