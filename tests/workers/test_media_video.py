"""Clips in media processes: the very frames, and files that mean harm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from contract.errors import DamagedVideo, FleetError, LimitExceeded, MediaProcessDied, NotAVideo
from ovis_engine.video import Sampling, sample_indices
from tests.corpus.clips import CLIPS, HEIGHT, WIDTH, clip, number_of
from tests.corpus.pictures import FINE, noise
from tests.workers.media_web import BODIES, SENT, serving
from workers.media.answers import Frames, VideoProbe
from workers.media.broken import blamed_on, is_ours
from workers.media.pool import MediaPool
from workers.media.protocol import Prepare, Probe, Sample, Work
from workers.settings import WorkerSettings

CARD = Sampling()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def pool() -> Iterator[MediaPool]:
    settings = WorkerSettings(media_processes=1, media_cpu_s=5, media_memory_bytes=1 << 30, media_max_frames=100)
    pool = MediaPool(settings, on_death=lambda _: None)
    yield pool
    pool.close()


def frames(pool: MediaPool, url: str, sampling: Sampling = CARD) -> Frames:
    return pool.frames(url, trusted=True, side=448, max_partition=1, sampling=sampling)


def numbers(found: Frames) -> list[int]:
    return [number_of(image.tiles[0]) for image in found.images]


@pytest.mark.parametrize(
    ("container", "codec", "rotation"),
    [*(("mp4", "libx264", turn) for turn in (0, 90, 180, 270)), ("matroska", "libx264", 0), ("webm", "libvpx-vp9", 0)],
)
def test_the_model_cards_frames_are_read(pool: MediaPool, web: str, container: str, codec: str, rotation: int) -> None:
    BODIES["clip"] = clip(90, container=container, codec=codec, rotation=rotation)
    found = frames(pool, f"{web}/clip")
    wanted = list(sample_indices(90))
    assert [number_of(np.rot90(image.tiles[0], -rotation // 90)) for image in found.images] == wanted
    assert found.times_s == pytest.approx([number / 30 for number in wanted], abs=0.001)
    assert found.duration_s == pytest.approx(3.0, abs=0.01)
    turned = rotation in (90, 270)
    assert {image.tiles[0].shape for image in found.images} == {(448, 89, 3) if turned else (89, 448, 3)}


def test_frames_at_uneven_times_are_those_that_are_shown(pool: MediaPool, web: str) -> None:
    # Thirty frames of one second, then one that stands for nine.
    BODIES["uneven"] = clip(32, times=[*range(30), 30, 299])
    assert numbers(frames(pool, f"{web}/uneven", Sampling(num_frames=10)))[1:-1] == [30] * 8


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (Sampling(num_frames=4), [11, 33, 56, 78]),
        (Sampling(fps=1.0), [15, 45, 75]),
        (Sampling(fps=1000.0), list(range(90))),
        (Sampling(fps=10.0, num_frames=3), [15, 45, 75]),
        (Sampling(start_s=1.0, num_frames=2), [45, 75]),
        (Sampling(start_s=1.0, end_s=2.0, num_frames=3), [35, 45, 55]),
        (Sampling(end_s=0.1), [0, 1, 2]),
        (Sampling(start_s=2.9, end_s=500.0), [87, 88, 89]),
    ],
)
def test_sampling_chooses_the_frames(pool: MediaPool, web: str, sampling: Sampling, wanted: list[int]) -> None:
    BODIES["three seconds"] = BODIES["three%20seconds"] = clip(90)
    found = frames(pool, f"{web}/three%20seconds", sampling)
    assert numbers(found) == wanted
    assert found.times_s == pytest.approx([number / 30 for number in wanted], abs=0.001)


def test_a_clip_is_probed_and_fetched_once(pool: MediaPool, web: str) -> None:
    BODIES["probed"] = clip(75, rate=25, rotation=90)
    SENT.clear()
    assert pool.probe(f"{web}/probed", trusted=True) == VideoProbe(3.0, HEIGHT, WIDTH, 75, 25.0)
    frames(pool, f"{web}/probed?signature=2")
    assert SENT["probed"] == 1


def test_a_stretch_beyond_the_end_is_an_error(pool: MediaPool, web: str) -> None:
    BODIES["short"] = clip(30)
    with pytest.raises(DamagedVideo, match="no frame from 7 s"):
        frames(pool, f"{web}/short", Sampling(start_s=7.0))


def test_too_many_frames_are_refused(pool: MediaPool, web: str) -> None:
    BODIES["many"] = clip(120)
    with pytest.raises(LimitExceeded, match="120 frames are asked for; the limit is 100"):
        frames(pool, f"{web}/many", Sampling(fps=30.0))


def test_a_picture_is_no_video(pool: MediaPool, web: str) -> None:
    BODIES["picture"] = noise("PNG")
    with pytest.raises(NotAVideo):
        frames(pool, f"{web}/picture")


def test_a_reader_that_fails_unforeseen_is_told_and_starts_afresh(web: str) -> None:
    deaths: list[str] = []
    pool = MediaPool(WorkerSettings(media_processes=1), on_death=deaths.append)
    try:
        before = pool.pids()
        BODIES["kept"] = BODIES["odd"] = clip(30)
        SENT.clear()
        assert len(frames(pool, f"{web}/kept").images) == 12
        for _ in range(2):
            with pytest.raises(DamagedVideo, match=r"reader fail \(ValueError\)"):
                frames(pool, f"{web}/odd", Sampling(fps=float("nan")))
            assert len(frames(pool, f"{web}/kept").images) == 12
        assert SENT["kept"] == 3, "a fresh process keeps nothing"
        assert (deaths, pool.pids()) == ([], before)
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (OSError(28, "No space left on device"), True),
        (ImportError("no module named av"), True),
        (RuntimeError("can't start new thread"), True),
        (RecursionError("maximum recursion depth exceeded"), False),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"), False),
        (AttributeError("'NoneType' object has no attribute 'width'"), False),
        (AssertionError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_speaks_of_this_machine_is_not_the_callers_fault(error: Exception, ours: bool) -> None:
    assert is_ours(error) is ours


@pytest.mark.parametrize(
    ("work", "data", "code"),
    [
        (Probe(), b"%PDF-1.7", "damaged_document"),
        (Probe(), b"\0\0\0\x20ftypisom", "damaged_video"),
        (Prepare(448, 1, None, 0, False), b"GIF89a", "truncated_image"),
        (Prepare(448, 1, 3, 0, False), b"GIF89a", "damaged_document"),
        (Sample(448, 1, CARD), b"RIFF", "damaged_video"),
    ],
)
def test_the_error_of_a_failed_reader_says_what_was_read_and_no_more(work: Work, data: bytes, code: str) -> None:
    with pytest.raises(KeyError) as raised:
        {}["a word of the file's"]
    broke = blamed_on(work, data, raised.value)
    assert broke.error.code == code
    assert "KeyError" in str(broke)
    assert "word" not in f"{broke} {broke.where}"
    assert broke.where.startswith("test_media_video.py:")


@pytest.mark.parametrize("name", list(CLIPS))
def test_a_hostile_clip_ends_as_a_typed_error(pool: MediaPool, web: str, name: str) -> None:
    build, codes = CLIPS[name]
    BODIES["hostile"] = build()
    found = set()
    for look in (lambda: pool.probe(f"{web}/hostile", trusted=True), lambda: frames(pool, f"{web}/hostile")):
        try:
            look()
        except FleetError as exc:
            found.add(exc.code)
    assert (found or {FINE}) <= codes
    assert MediaProcessDied.code not in found
