"""Clips: numbered ones for tests, and hostile ones with the error codes that each may end as."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.corpus.pictures import FINE, LIMIT, cut

NOT_A_VIDEO, DAMAGED, NOT_A_DOCUMENT = "not_a_video", "damaged_video", "not_a_document"

WIDTH, HEIGHT, BIT = 320, 64, 32


def numbered(number: int) -> np.ndarray:
    """A picture whose ten columns are the bits of its number, white for one."""
    bits = [(number >> place) & 1 for place in range(WIDTH // BIT)]
    row = np.repeat(np.array(bits, np.uint8) * 255, BIT)
    return np.repeat(np.broadcast_to(row, (HEIGHT, WIDTH))[..., None], 3, axis=2)


def number_of(pixels: np.ndarray) -> int:
    """The number of an upright picture of any size."""
    bit = pixels.shape[1] / (WIDTH // BIT)
    columns = [pixels[pixels.shape[0] // 2, int((place + 0.5) * bit), 0] for place in range(WIDTH // BIT)]
    return sum(int(column > 127) << place for place, column in enumerate(columns))


def clip(
    count: int,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    rate: int = 30,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    front: bool = False,
    title: str = "",
) -> bytes:
    """A clip of numbered pictures; ``times`` gives their times in frames; ``front`` puts the index first."""
    x264 = {"g": "12", "sc_threshold": "0", "qp": "20", "bf": "3" if times is None else "0"}
    options = x264 if codec == "libx264" else {}
    file_options = {"movflags": "faststart"} if front else {}
    # The muxer reads the file again to put the index first: it needs one with a name.
    with (
        tempfile.NamedTemporaryFile() as written,
        av.open(written.name, "w", format=container, options=file_options) as file,
    ):
        if title:
            file.metadata["title"] = title
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        file.start_encoding()
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(numbered(number)), format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        file.close()
        return Path(written.name).read_bytes()


def sound() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def avi_of_size(width: int, height: int) -> bytes:
    """An AVI whose headers claim a size; its frames have another."""
    data = bytearray(clip(5, container="avi", codec="mpeg4"))
    format_at = data.index(b"strf") + 8
    data[format_at + 4 : format_at + 12] = struct.pack("<ii", width, height)
    main_at = data.index(b"avih") + 8
    data[main_at + 32 : main_at + 40] = struct.pack("<ii", width, height)
    return bytes(data)


def raw_avi_of_size(width: int, height: int) -> bytes:
    """The same with unpacked frames, which have no size of their own."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as file:
        stream = file.add_stream("rawvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr24"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="bgr24")))
        file.mux(stream.encode())
    data = bytearray(buffer.getvalue())
    format_at = data.index(b"strf") + 8
    data[format_at + 4 : format_at + 12] = struct.pack("<ii", width, height)
    return bytes(data)


def avi_of_rate(scale: int, rate: int) -> bytes:
    data = bytearray(clip(5, container="avi", codec="mpeg4"))
    stream_at = data.index(b"strh") + 8
    data[stream_at + 20 : stream_at + 28] = struct.pack("<II", scale, rate)
    return bytes(data)


def mp4_that_lasts(duration: int) -> bytes:
    """The movie's, track's and media's headers claim a duration."""
    data = bytearray(clip(30, front=True))
    for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = data.index(box) + at
        data[place : place + 4] = struct.pack(">I", duration)
    return bytes(data)


def titled_in_latin_1(container: str, codec: str) -> bytes:
    return clip(5, container=container, codec=codec, title="Cafe film").replace(b"Cafe", b"Caf\xe9")


def of_unknown_codec(container: str, codec: str, name: bytes) -> bytes:
    return clip(5, container=container, codec=codec).replace(name, name[:-4] + b"ZZZ4")


def scrambled() -> bytes:
    data = bytearray(clip(60, front=True))
    start = data.index(b"mdat") + 4
    data[start:] = bytes(reversed(data[start:]))
    return bytes(data)


#: Name -> (how to make it, the codes that looking at it and reading its frames may end as).
CLIPS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "sound only": (sound, {NOT_A_VIDEO}),
    "no frames": (lambda: clip(0), {NOT_A_VIDEO, DAMAGED}),
    "mp4 header only": (lambda: clip(30)[:32], {DAMAGED}),
    "truncated mp4": (lambda: cut(clip(90), 0.5), {DAMAGED}),
    "truncated mp4, index first": (lambda: cut(clip(300, front=True), 0.5), {DAMAGED}),
    "truncated webm": (lambda: cut(clip(60, container="webm", codec="libvpx"), 0.5), {DAMAGED, FINE}),
    "scrambled": (scrambled, {DAMAGED}),
    "avi of 65 535 x 65 535": (lambda: avi_of_size(65_535, 65_535), {LIMIT, DAMAGED, FINE}),
    "avi of -1 x 2^31 - 1": (lambda: avi_of_size(-1, 2**31 - 1), {LIMIT, DAMAGED, FINE}),
    "raw avi of 16 000 x 16 000": (lambda: raw_avi_of_size(16_000, 16_000), {LIMIT}),
    "raw avi of 8 000 x 8 000": (lambda: raw_avi_of_size(8_000, 8_000), {DAMAGED}),
    "a million frames a second": (lambda: avi_of_rate(1, 1_000_000), {LIMIT}),
    "a frame a month": (lambda: avi_of_rate(2_592_000, 1), {FINE, DAMAGED}),
    "rate of nothing": (lambda: avi_of_rate(0, 0), {FINE, DAMAGED, LIMIT}),
    "claims 400 hours": (lambda: mp4_that_lasts(0x7FFFFFFF), {DAMAGED, FINE}),
    "claims no time": (lambda: mp4_that_lasts(0), {FINE, DAMAGED}),
    "avi with a title in Latin-1": (lambda: titled_in_latin_1("avi", "mpeg4"), {FINE}),
    "mp4 with a title in Latin-1": (lambda: titled_in_latin_1("mp4", "libx264"), {FINE}),
    "matroska with a title in Latin-1": (lambda: titled_in_latin_1("matroska", "libx264"), {FINE}),
    "avi of an unknown codec": (lambda: of_unknown_codec("avi", "mpeg4", b"FMP4"), {DAMAGED}),
    "mp4 of an unknown codec": (lambda: of_unknown_codec("mp4", "libx264", b"avc1"), {DAMAGED}),
    "matroska of an unknown codec": (
        lambda: of_unknown_codec("matroska", "libx264", b"V_MPEG4/ISO/AVC"),
        {DAMAGED},
    ),
    "playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", {NOT_A_VIDEO, NOT_A_DOCUMENT}),
    "concat script": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", {NOT_A_VIDEO, NOT_A_DOCUMENT}),
    "subtitles": (lambda: b"WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n", {NOT_A_VIDEO, NOT_A_DOCUMENT}),
    "matroska of noise": (lambda: b"\x1aE\xdf\xa3" + bytes(range(256)) * 40, {DAMAGED}),
}
