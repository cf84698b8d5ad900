"""Finds single frames of a clip with PyAV: seeks to keyframes, skips what nothing refers to. No torch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import av

from ovis_engine.errors import DamagedVideoError, NoVideoFramesError, NoVideoStreamError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Containers that are read. Playlists are not: they make the reader open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"

#: Packets read ahead of the decoder, to know which packet is shown next: more than any codec reorders.
LOOKAHEAD = 40

#: Most frames by which a keyframe's place in the file may precede its time.
REORDERED = 16

#: Frames that a file may have fewer than its header says.
MISSING_FRAMES = 2

#: Units of a container's times in a second.
MICROSECONDS = 1_000_000


def pick_frames(file: Path, choose: Callable[[int], Sequence[int]]) -> list[VideoFrame]:
    """Decodes the frames with certain numbers, counted at the clip's average rate.

    Args:
        file: A local video file.
        choose: Given the number of frames in the clip, the ascending numbers that are wanted.

    Returns:
        One frame per number. Frame n is the one shown half a frame after its time n / rate.

    Raises:
        NoVideoStreamError: If the file holds no moving pictures.
        NoVideoFramesError: If no frame can be decoded.
        DamagedVideoError: If the file ends long before its header says.
        av.error.FFmpegError: If it cannot be opened or decoded otherwise.
    """
    with _opened(file) as container:
        stream = _moving_pictures(container)
        rate = stream.average_rate or stream.guessed_rate
        numbers = choose(_count_frames(container, stream, rate)) if rate else ()
        if not rate or not numbers:
            raise NoVideoFramesError("the clip has no frames")
        start, base = Fraction(container.start_time or 0, MICROSECONDS), Fraction(stream.time_base or 1)
        limits = [int((start + (number + Fraction(1, 2)) / rate) / base) for number in numbers]
        frame_ticks = max(1, int(1 / rate / base))
    # Two decoders with a thread each are faster than one with two, which stand still around every seek.
    half = (len(limits) + 1) // 2
    parts = [part for part in (limits[:half], limits[half:]) if part]
    with ThreadPoolExecutor(len(parts)) as pool:
        picked = pool.map(lambda part: _pick_part(file, part, frame_ticks), parts)
        return [frame for part in picked for frame in part]


def _opened(file: Path) -> InputContainer:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    return av.open(str(file), options=options)


def _pick_part(file: Path, limits: Sequence[int], frame_ticks: int) -> list[VideoFrame]:
    with _opened(file) as container:
        stream = _moving_pictures(container)
        stream.codec_context.thread_count = 1
        return _Scan(container, stream, frame_ticks).pick(limits)


def _moving_pictures(container: InputContainer) -> VideoStream:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise NoVideoStreamError("the file holds no moving pictures")


def _count_frames(container: InputContainer, stream: VideoStream, rate: Fraction) -> int:
    """Number of frames as the model card's reader counts them: from rate and duration, in hundredths of a second."""
    if container.duration:
        hundredths = (container.duration + MICROSECONDS // 200) // (MICROSECONDS // 100)
        return int(Fraction(hundredths, 100) * rate)
    count = sum(packet.size > 0 for packet in container.demux(stream))
    container.seek(0)
    return count


class _Scan:
    """Decodes the last frame before each of some ascending limits in a stream's time."""

    def __init__(self, container: InputContainer, stream: VideoStream, frame_ticks: int) -> None:
        """Takes over an opened stream; frame_ticks is the time of a frame in its time base."""
        self._container, self._stream, self._frame_ticks = container, stream, frame_ticks
        self._limits: Sequence[int] = ()
        # Times at which the packets since the last seek are shown: all sorted, and those given to the decoder.
        self._known: list[int] = []
        self._fed: set[int | None] = set()

    def pick(self, limits: Sequence[int]) -> list[VideoFrame]:
        """Decodes; a stream that ends early shows its last frame on, one that begins late its first."""
        chosen: list[VideoFrame] = []
        for keyframe, group in groupby(limits, self._keyframe_before):
            self._limits = list(group)
            # The first group is often read from where the file was opened.
            if keyframe is not None and (chosen or keyframe > (self._stream.start_time or 0)):
                self._container.seek(self._limits[0], stream=self._stream)
            frames = self._pick_group()
            if frames[0] is None and keyframe is not None:
                # The keyframe stands before the limit in the file, but is shown after it.
                self._container.seek(max(0, self._limits[0] - REORDERED * self._frame_ticks), stream=self._stream)
                frames = self._pick_group()
            for frame in frames:
                held = frame or (chosen[-1] if chosen else None)
                if held is None:
                    raise NoVideoFramesError("no frame of the clip can be decoded")
                chosen.append(held)
        self._check_end(chosen[-1], limits[-1])
        return chosen

    def _pick_group(self) -> list[VideoFrame | None]:
        """The frames for the current limits, decoded from where the container stands; None for what comes too late."""
        self._known.clear()
        self._fed.clear()
        picked: list[VideoFrame | None] = [None] * len(self._limits)
        first: VideoFrame | None = None
        for frame in self._decode():
            first = first or frame
            # A frame stands for every limit after it, until a later one does.
            for place in range(bisect_right(self._limits, frame.pts or 0), len(picked)):
                picked[place] = frame
        begins = (self._stream.start_time or 0) + self._frame_ticks
        if first is not None and (first.pts or 0) <= begins:
            picked = [frame or first for frame in picked]
        return picked

    def _decode(self) -> Iterator[VideoFrame]:
        """Yields frames up to the last limit, without most of those that are neither wanted nor referred to."""
        context = self._stream.codec_context
        for packet in self._read_ahead():
            context.skip_frame = "DEFAULT" if self._may_be_wanted(packet) else "NONREF"
            yield from packet.decode()
            self._fed.add(packet.pts)
            if self._have_all():
                break
        else:
            return  # the demuxer's last packet has emptied the decoder
        yield from context.decode(None)

    def _read_ahead(self) -> Iterator[Packet[VideoStream]]:
        """Yields packets once those that may be shown right after them are known."""
        window: deque[Packet[VideoStream]] = deque()
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                insort(self._known, packet.pts)
            window.append(packet)
            if len(window) > LOOKAHEAD:
                yield window.popleft()
        yield from window

    def _may_be_wanted(self, packet: Packet[VideoStream]) -> bool:
        """Whether a limit lies between a packet's frame and the next one."""
        if packet.pts is None:
            return True
        place = bisect_right(self._known, packet.pts)
        if place == len(self._known):
            return True
        return bisect_right(self._limits, packet.pts) != bisect_right(self._limits, self._known[place])

    def _have_all(self) -> bool:
        """Whether the decoder was given the frame before every limit. Packets may come in another order than frames."""
        for limit in self._limits:
            place = bisect_left(self._known, limit)
            if not 0 < place < len(self._known) or self._known[place - 1] not in self._fed:
                return False
        return True

    def _keyframe_before(self, limit: int) -> int | None:
        """Decoding time of the last keyframe before a limit; None where the container has no index."""
        entries = self._stream.index_entries
        place = entries.search_timestamp(limit) if len(entries) else -1
        return None if place < 0 else entries[place].timestamp

    def _check_end(self, last: VideoFrame, limit: int) -> None:
        """Tells a clip that was cut short from one whose sound is a little longer than its pictures."""
        if not self._stream.duration:
            return
        end = min((self._stream.start_time or 0) + self._stream.duration, limit)
        newest = max([last.pts or 0, *self._known[-1:]])
        if newest + (1 + MISSING_FRAMES) * self._frame_ticks < end:
            raise DamagedVideoError("the clip ends before its header says")
