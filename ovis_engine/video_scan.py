"""Finds single frames of a clip with PyAV: seeks to keyframes, skips what nothing refers to. No torch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import av
import numpy as np

from ovis_engine.errors import DamagedVideoError, NoVideoFramesError
from ovis_engine.tiling import UInt8Array
from ovis_engine.video_clip import MICROSECONDS, average_rate, count_frames, duration_s, moving_pictures, opened
from ovis_engine.video_times import decode_in_order, is_cut_short, times_are_guessed

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Packets read ahead of the decoder, to know which packet is shown next: more than any codec reorders.
LOOKAHEAD = 40

#: Most frames by which a keyframe's place in the file may precede its time.
REORDERED = 16

#: Frames that a file may have fewer than its header says.
MISSING_FRAMES = 2

T = TypeVar("T")


class Picker(Generic[T]):
    """Decodes the frames with certain numbers, counted at the clip's average rate, and keeps something of each."""

    def __init__(
        self,
        choose: Callable[[int, Fraction], Sequence[int]],
        keep: Callable[[VideoFrame], T],
        *,
        max_pixels: int | None = None,
    ) -> None:
        """Says what is wanted.

        Args:
            choose: Given the number of frames in the clip and its rate, the ascending numbers that are wanted.
            keep: Called with each wanted frame, from two threads; frames are not held longer.
            max_pixels: Most pixels of a frame; None is no limit.
        """
        self._choose, self._keep, self._max_pixels = choose, keep, max_pixels

    def pick(self, source: Path | bytes) -> tuple[float, list[tuple[float, T]]]:
        """Reads a clip.

        Args:
            source: A local video file, or its bytes.

        Returns:
            How long the clip is in seconds; and per number its time in seconds and what was kept. Frame n is the one
            shown half a frame after its time n / rate.

        Raises:
            NoVideoStreamError: If the file holds no moving pictures.
            NoVideoFramesError: If no frame can be decoded.
            VideoTooLargeError: If it has too many pixels or frames a second.
            DamagedVideoError: If the file ends long before its header says.
            av.error.FFmpegError: If it cannot be opened or decoded otherwise.
        """
        with opened(source) as container:
            stream = moving_pictures(container, self._max_pixels)
            rate = average_rate(stream)
            total = count_frames(container, stream, rate)
            numbers = self._choose(total, rate)
            seconds = duration_s(container, total, rate)
            start, base = Fraction(container.start_time or 0, MICROSECONDS), Fraction(stream.time_base or 1)
            # The frame shown at a moment is the last one whose time is at most that: below the next tick.
            limits = [int((start + (number + Fraction(1, 2)) / rate) / base) + 1 for number in numbers]
            frame_ticks = max(1, int(1 / rate / base))
        # Two decoders with a thread each are faster than one with two, which stand still around every seek.
        half = (len(limits) + 1) // 2
        parts = [part for part in (limits[:half], limits[half:]) if part]
        with ThreadPoolExecutor(len(parts)) as pool:
            picked = pool.map(lambda part: self._pick_part(source, part, frame_ticks), parts)
            kept = [one for part in picked for one in part]
        return seconds, [(float(number / rate), one) for number, one in zip(numbers, kept, strict=True)]

    def _pick_part(self, source: Path | bytes, limits: Sequence[int], frame_ticks: int) -> list[T]:
        with opened(source) as container:
            stream = moving_pictures(container, self._max_pixels)
            stream.codec_context.thread_count = 1
            return _Scan(container, stream, frame_ticks, self._keep).pick(limits)


def upright(frame: VideoFrame) -> UInt8Array:
    """A frame as uint8 RGB (height, width, 3), turned as its file says."""
    # The model card's reader converts colours with bicubic chroma.
    pixels = frame.to_ndarray(format="rgb24", interpolation=av.video.reformatter.Interpolation.BICUBIC)
    # The library gives the angle counterclockwise, as numpy takes it.
    return np.rot90(pixels, round(frame.rotation / 90))


class _Scan(Generic[T]):
    """Decodes the last frame before each of some ascending limits in a stream's time."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, frame_ticks: int, keep: Callable[[VideoFrame], T]
    ) -> None:
        """Takes over an opened stream; frame_ticks is the time of a frame in its time base."""
        self._container, self._stream, self._frame_ticks, self._keep = container, stream, frame_ticks, keep
        self._guessed = times_are_guessed(container, stream)
        self._limits: Sequence[int] = ()
        # Time of the frame that was kept last; when the last frame that was found ends.
        self._kept_at = self._shown_until = 0
        # Times at which the packets since the last seek are shown: all sorted, and those given to the decoder.
        self._known: list[int] = []
        self._fed: set[int | None] = set()

    def pick(self, limits: Sequence[int]) -> list[T]:
        """Decodes; a stream that ends early shows its last frame on, one that begins late its first."""
        chosen: list[T] = []
        for keyframe, group in groupby(limits, self._keyframe_before):
            self._limits = list(group)
            # The first group is often read from where the file was opened.
            if keyframe is not None and (chosen or keyframe > (self._stream.start_time or 0)):
                self._container.seek(self._limits[0] - 1, stream=self._stream)
            kept = self._pick_group()
            if kept[0] is None and keyframe is not None:
                # The keyframe stands before the limit in the file, but is shown after it.
                self._container.seek(max(0, self._limits[0] - REORDERED * self._frame_ticks), stream=self._stream)
                kept = self._pick_group()
            for one in kept:
                held = one if one is not None else (chosen[-1] if chosen else None)
                if held is None:
                    raise NoVideoFramesError("no frame of the clip can be decoded")
                chosen.append(held)
        self._check_end(limits[-1])
        return chosen

    def _pick_group(self) -> list[T | None]:
        """What is kept for the current limits, read from where the container stands; None for what comes too late."""
        self._known.clear()
        self._fed.clear()
        picked: list[T | None] = []
        first: VideoFrame | None = None
        newest: VideoFrame | None = None
        for frame in self._decode():
            first = first or frame
            # Frames come in order of time: those limits that this one has reached get the one before it.
            self._fill(picked, newest, bisect_right(self._limits, frame.pts or 0))
            newest = frame
        self._fill(picked, newest, len(self._limits))
        begins = (self._stream.start_time or 0) + self._frame_ticks
        if first is not None and (first.pts or 0) <= begins and picked[0] is None:
            kept = self._keep(first)
            picked = [kept if one is None else one for one in picked]
        return picked

    def _fill(self, picked: list[T | None], frame: VideoFrame | None, count: int) -> None:
        """Extends ``picked`` to ``count`` entries with what is kept of a frame."""
        missing = count - len(picked)
        if missing <= 0:
            return
        if frame is not None:
            self._kept_at = frame.pts or 0
        picked += [None if frame is None else self._keep(frame)] * missing

    def _decode(self) -> Iterator[VideoFrame]:
        """Yields frames up to the last limit, without most of those that are neither wanted nor referred to."""
        if self._guessed:
            yield from self._decode_in_order()
            return
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

    def _decode_in_order(self) -> Iterator[VideoFrame]:
        for frame in decode_in_order(self._container, self._stream, self._frame_ticks):
            yield frame
            if (frame.pts or 0) >= self._limits[-1]:
                return

    def _read_ahead(self) -> Iterator[Packet[VideoStream]]:
        """Yields packets once those that may be shown right after them are known."""
        window: deque[Packet[VideoStream]] = deque()
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                insort(self._known, packet.pts)
                self._shown_until = max(self._shown_until, packet.pts + max(packet.duration or 0, self._frame_ticks))
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
        """Decoding time of the last keyframe before a limit; None where the container has no index that helps."""
        entries = self._stream.index_entries
        place = entries.search_timestamp(limit - 1) if len(entries) and not self._guessed else -1
        return None if place < 0 else entries[place].timestamp

    def _check_end(self, limit: int) -> None:
        """Tells a clip that was cut short from one whose sound is a little longer than its pictures."""
        end = max(self._kept_at + self._frame_ticks, self._shown_until) + MISSING_FRAMES * self._frame_ticks
        if end < limit and is_cut_short(self._container, self._stream, end):
            raise DamagedVideoError("the clip ends before its header says")
