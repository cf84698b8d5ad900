"""Frames of clips, by both readers. The clips are made here; their pictures carry their numbers."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovis_engine.errors import (
    DamagedVideoError,
    NoVideoFramesError,
    NoVideoStreamError,
    VideoError,
    VideoTooLargeError,
)
from ovis_engine.video import (
    ClipLimits,
    MoviePyReader,
    PyAvReader,
    Sampling,
    VideoReader,
    read_frames,
    sample_indices,
)

WIDTH, HEIGHT, BIT = 320, 64, 32

needs_moviepy = pytest.mark.skipif(
    importlib.util.find_spec("moviepy") is None, reason="moviepy is not installed (make test installs it)"
)
READERS = [
    pytest.param(PyAvReader(), id="PyAV"),
    pytest.param(MoviePyReader(), id="moviepy", marks=needs_moviepy),
]


def numbered(number: int) -> np.ndarray:
    """A picture whose ten columns are the bits of its number, white for one."""
    bits = [(number >> place) & 1 for place in range(WIDTH // BIT)]
    row = np.repeat(np.array(bits, np.uint8) * 255, BIT)
    return np.repeat(np.broadcast_to(row, (HEIGHT, WIDTH))[..., None], 3, axis=2)


def number_of(picture: Image.Image) -> int:
    columns = np.asarray(picture)[HEIGHT // 2, BIT // 2 :: BIT, 0]
    return sum(int(column > 127) << place for place, column in enumerate(columns))


def write(
    file: Path,
    count: int,
    *,
    gop: int = 12,
    rate: int = 30,
    b_frames: int = 3,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    codec: str = "libx264",
    muxing: dict[str, str] | None = None,
    sound_s: int = 0,
    last: int = 0,
) -> Path:
    """Writes a clip of numbered pictures.

    Args:
        times: Their times in frames, for uneven ones.
        b_frames: Frames between others that refer to them, where the codec has such.
        muxing: Options of the container.
        sound_s: Seconds of silence beside them.
        last: Frames that the last one stands for, if not one.
    """
    options = {"g": str(gop), "sc_threshold": "0", "bf": str(b_frames), "qp": "20"} if codec == "libx264" else {}
    if codec == "mpeg4":
        options = {"g": str(gop), "bf": str(b_frames), "qmin": "1", "qmax": "2"}
    with av.open(str(file), "w", options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac" if file.suffix == ".mp4" else "libopus", rate=48000) if sound_s else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(numbered(number)), format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        rest = stream.encode()
        if last:
            rest[-1].duration = round(last / rate / rest[-1].time_base)
        container.mux(rest)
        for second in range(sound_s):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, 48000 * second
            container.mux(sound.encode(silence))
        if sound is not None:
            container.mux(sound.encode())
    return file


@pytest.mark.parametrize(
    "module",
    ["ovis_engine.video", "ovis_engine.video_clip", "ovis_engine.video_scan", "ovis_engine.video_times"],
)
def test_media_processes_can_import_it_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'moviepy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(total=st.integers(0, 100_000), num_frames=st.integers(1, 64))
def test_indices_rise_within_the_clip_and_are_as_many_as_wanted(total: int, num_frames: int) -> None:
    indices = list(sample_indices(total, num_frames))
    assert len(indices) == min(total, num_frames)
    assert indices == sorted(set(indices))
    assert all(0 <= index < total for index in indices)


def test_indices_are_the_middles_of_equal_stretches() -> None:
    assert list(sample_indices(24, 12)) == list(range(1, 24, 2))
    assert list(sample_indices(5, 12)) == [0, 1, 2, 3, 4]
    assert list(sample_indices(1800, 12)) == list(range(75, 1800, 150))


@given(
    total=st.integers(1, 5_000),
    rate=st.fractions(Fraction(1, 10), 240),
    fps=st.none() | st.floats(0.01, 120),
    num_frames=st.none() | st.integers(1, 300),
    start_s=st.floats(0, 100),
    end_s=st.none() | st.floats(0, 100),
)
def test_frames_can_be_counted_without_their_numbers(
    total: int, rate: Fraction, fps: float | None, num_frames: int | None, start_s: float, end_s: float | None
) -> None:
    sampling = Sampling(num_frames, fps, start_s, end_s)
    try:
        numbers = sampling.numbers(total, rate)
    except NoVideoFramesError:
        with pytest.raises(NoVideoFramesError):
            sampling.count(total, rate)
    else:
        assert sampling.count(total, rate) == len(numbers) > 0


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("gop", [1, 7, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_the_very_frames_are_read(tmp_path: Path, reader: VideoReader, gop: int, b_frames: int) -> None:
    clip = write(tmp_path / "clip.mp4", 390, gop=gop, b_frames=b_frames)
    frames = read_frames(reader, clip)
    assert [number_of(frame) for frame in frames] == list(sample_indices(390))
    assert {frame.size for frame in frames} == {(WIDTH, HEIGHT)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("count", [1, 2, 11, 12, 13])
def test_a_short_clip_gives_all_its_frames(tmp_path: Path, reader: VideoReader, count: int) -> None:
    clip = write(tmp_path / "clip.mp4", count, rate=25)
    assert [number_of(frame) for frame in read_frames(reader, clip)] == list(sample_indices(count))


@needs_moviepy
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_both_readers_give_equal_pixels(tmp_path: Path, rotation: int, suffix: str) -> None:
    clip = write(tmp_path / f"clip{suffix}", 130, gop=40, rotation=rotation)
    ours, theirs = (read_frames(reader, clip) for reader in (PyAvReader(), MoviePyReader()))
    assert [frame.size for frame in ours] == [frame.size for frame in theirs]
    assert [frame.tobytes() for frame in ours] == [frame.tobytes() for frame in theirs]
    assert len(ours) == 12


def test_frames_at_uneven_times_are_taken_by_what_is_shown(tmp_path: Path) -> None:
    # Thirty frames of one second, then one that stands for nine.
    times = [*range(30), 30, 299]
    clip = write(tmp_path / "clip.mp4", len(times), times=times, gop=10, b_frames=0)
    frames = read_frames(PyAvReader(), clip, num_frames=10)
    assert [number_of(frame) for frame in frames][1:-1] == [30] * 8
    assert number_of(frames[0]) <= 16


#: Suffix, codec, frames that are reordered, options of the container.
OTHERS = [
    pytest.param(".ts", "libx264", 3, {}, id="ts"),
    pytest.param(".webm", "libvpx-vp9", 0, {}, id="webm"),
    pytest.param(".mp4", "libx264", 3, {"video_track_timescale": "30"}, id="mp4 whose ticks are frames"),
]
AVI = [
    pytest.param(".avi", "mjpeg", 0, {}, id="avi of pictures"),
    pytest.param(".avi", "mpeg4", 0, {}, id="avi"),
    pytest.param(".avi", "mpeg4", 2, {}, id="avi reordered"),
    pytest.param(".avi", "libx264", 3, {}, id="avi of H.264"),
]


@pytest.mark.parametrize(("suffix", "codec", "b_frames", "muxing"), [*OTHERS, *AVI])
@pytest.mark.parametrize("count", [48, 150])
def test_other_containers_and_codecs_give_the_very_frames(
    tmp_path: Path, suffix: str, codec: str, b_frames: int, muxing: dict[str, str], count: int
) -> None:
    clip = write(tmp_path / f"clip{suffix}", count, codec=codec, gop=30, b_frames=b_frames, muxing=muxing)
    found = [number_of(frame) for frame in read_frames(PyAvReader(), clip)]
    assert found == list(sample_indices(count))


@needs_moviepy
@pytest.mark.parametrize(("suffix", "codec", "b_frames", "muxing"), AVI)
def test_both_readers_give_equal_pixels_of_avi(
    tmp_path: Path, suffix: str, codec: str, b_frames: int, muxing: dict[str, str]
) -> None:
    clip = write(tmp_path / f"clip{suffix}", 60, codec=codec, gop=30, b_frames=b_frames, muxing=muxing)
    ours, theirs = (read_frames(reader, clip) for reader in (PyAvReader(), MoviePyReader()))
    assert [frame.tobytes() for frame in ours] == [frame.tobytes() for frame in theirs]
    assert len(ours) == 12


def test_a_header_that_claims_a_day_costs_no_memory(tmp_path: Path) -> None:
    # Given a small clip whose header says 1e8 milliseconds
    content = bytearray(write(tmp_path / "clip.mkv", 30).read_bytes())
    duration = content.index(b"\x44\x89\x88") + 3
    content[duration : duration + 8] = struct.pack(">d", 1e8)
    reader = PyAvReader(ClipLimits(max_frames=256))
    facts = reader.probe(bytes(content))
    # Then its frames are counted, and refused before they are listed
    sampling = Sampling(fps=30.0)
    assert sampling.count(facts.num_frames, Fraction(facts.fps)) == 3_000_000
    tracemalloc.start()
    try:
        with pytest.raises(VideoTooLargeError, match="the limit is 256"):
            reader.sample(bytes(content), sampling, lambda picture: picture)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def write_sound(file: Path) -> Path:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_sound_has_no_video_stream(tmp_path: Path, reader: VideoReader) -> None:
    with pytest.raises(NoVideoStreamError):
        read_frames(reader, write_sound(tmp_path / "sound.mp4"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"])
def test_what_is_no_video_is_an_error(tmp_path: Path, reader: VideoReader, content: bytes) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    with pytest.raises(VideoError):
        read_frames(reader, file)


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="clip"):
        read_frames(PyAvReader(), tmp_path / "clip.mp4")


def test_a_clip_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", 400, gop=12)
    moved = tmp_path / "moved.mp4"
    with av.open(str(whole)) as source, av.open(str(moved), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = moved.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedVideoError):
        read_frames(PyAvReader(), cut)


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".webm", "libvpx-vp9")], ids=["mkv", "webm"])
@pytest.mark.parametrize("sound_s", [0, 8], ids=["silent", "with sound"])
def test_a_stream_without_a_duration_that_was_cut_short_is_damaged(
    tmp_path: Path, suffix: str, codec: str, sound_s: int
) -> None:
    content = write(tmp_path / f"whole{suffix}", 240, codec=codec, gop=30, sound_s=sound_s).read_bytes()
    with pytest.raises(DamagedVideoError):
        PyAvReader().sample(content[: len(content) // 2], Sampling(), lambda picture: picture)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_last_frame_that_stays_for_long_ends_no_clip_early(tmp_path: Path, suffix: str) -> None:
    # Given thirty frames of one second, the last of which stays for nine more
    clip = write(tmp_path / f"clip{suffix}", 30, b_frames=0, last=270)
    found = [number_of(frame) for frame in read_frames(PyAvReader(), clip, num_frames=10)]
    assert found[2:] == [29] * 8


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
@pytest.mark.parametrize("sound_s", [0, 6], ids=["silent", "longer sound"])
def test_a_whole_clip_whose_sound_is_longer_shows_its_last_picture_on(
    tmp_path: Path, sound_s: int, tagged: bool
) -> None:
    # Given two seconds of pictures, beside six of sound or none
    content = write(tmp_path / "clip.mkv", 60, sound_s=sound_s).read_bytes()
    if not tagged:
        content = content.replace(b"DURATION", b"ELAPSED_")
    found = [number_of(frame) for _, frame in PyAvReader().sample(content, Sampling(), lambda picture: picture)]
    assert found == (list(sample_indices(60)) if not sound_s else [min(59, number) for number in sample_indices(180)])
