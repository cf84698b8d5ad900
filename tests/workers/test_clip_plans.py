"""Which clips a film is planned as, and what an estimate says of them: pure functions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalogue import CATALOGUE
from contract.errors import InvalidRequest, LimitExceeded
from contract.estimates import Estimate, Pace
from contract.task import TaskOptions, TaskSpec, UrlInput
from contract.units import ClipUnit
from ovis_engine.video import Sampling
from workers.media.answers import VideoProbe
from workers.planner import clip_ranges, units_of
from workers.sizing import estimate


@pytest.mark.parametrize(
    ("start_s", "end_s", "clip_s", "bounds"),
    [
        (0, 30, 10, [(0, 10), (10, 20), (20, 30)]),
        (0, 30.5, 10, [(0, 10), (10, 20), (20, 30.5)]),
        (5, 27, 10, [(5, 15), (15, 25), (25, 27)]),
        (0, 3, 10, [(0, 3)]),
        (0, 0.04, 10, [(0, 0.04)]),
    ],
    ids=["even", "a short rest joins", "a rest of its own", "one clip", "hardly any"],
)
def test_clips_cover_the_stretch_without_gaps(
    start_s: float, end_s: float, clip_s: float, bounds: list[tuple[float, float]]
) -> None:
    assert clip_ranges(start_s, end_s, clip_s) == [ClipUnit(start_s=a, end_s=b) for a, b in bounds]


def film(duration_s: float, fps: float) -> VideoProbe:
    return VideoProbe(duration_s, 64, 48, int(duration_s * fps), fps)


def clips_task(**options: float) -> TaskSpec:
    return TaskSpec(
        kind="video",
        model="ovis2-4b",
        operation="caption",
        prompt="p",
        inputs=(UrlInput(url="https://example.com/film"),),
        options=TaskOptions(**options),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("probe", "options", "bounds"),
    [
        (film(10.9, 0.5), {"clip_s": 1.0}, [*((second, second + 1) for second in range(9)), (9, 10.9)]),
        (film(4.0, 10), {"clip_s": 2.0, "end_s": 86_400.0}, [(0, 2), (2, 4.0)]),
        (film(4.0, 10), {"clip_s": 2.0, "start_s": 3.9996}, None),
        (film(10.9, 0.5), {"clip_s": 1.0, "start_s": 10.5}, None),
        (film(10.0, 10), {"clip_s": 1.0, "end_s": 0.0004}, None),
        (film(10.0, 10), {"clip_s": 1.0, "start_s": 5.0, "end_s": 5.0001}, None),
    ],
    ids=["slow frames", "beyond the end", "at the end", "behind the last frame", "hardly any", "nothing"],
)
def test_every_clip_of_a_plan_has_a_frame_and_the_estimate_counts_them(
    probe: VideoProbe, options: dict[str, float], bounds: list[tuple[float, float]] | None
) -> None:
    spec = clips_task(**options)
    if bounds is None:
        for look in (lambda: units_of(spec, probe, 100), lambda: sized(spec, probe)):
            with pytest.raises(InvalidRequest, match="nothing lies between"):
                look()
        return
    assert units_of(spec, probe, 100) == tuple(ClipUnit(start_s=a, end_s=b) for a, b in bounds)
    assert sized(spec, probe).parts == len(bounds) + 1


@given(
    start_s=st.floats(0, 50),
    length_s=st.floats(0.002, 50),
    clip_s=st.floats(1, 30),
    duration_s=st.floats(0.1, 100),
    rate=st.fractions(Fraction(1, 20), 60, max_denominator=1001),
)
def test_clips_end_with_the_film_and_show_a_frame_each(
    start_s: float, length_s: float, clip_s: float, duration_s: float, rate: Fraction
) -> None:
    total = int(Fraction(round(duration_s, 2)) * rate)
    probe = VideoProbe(duration_s, 64, 48, total, float(rate))
    spec = clips_task(start_s=start_s, end_s=start_s + length_s, clip_s=clip_s)
    try:
        units = units_of(spec, probe, 100)
    except InvalidRequest:
        assert start_s + 0.001 >= min(total / rate, duration_s)
        return
    assert units[-1].end_s == round(min(start_s + length_s, duration_s), 3)  # type: ignore[union-attr]
    assert all(a.end_s == b.start_s for a, b in pairwise(units))  # type: ignore[union-attr]
    for unit in units:
        assert isinstance(unit, ClipUnit)
        assert Sampling(start_s=unit.start_s, end_s=unit.end_s).numbers(total, rate)


def test_a_film_that_claims_a_million_years_is_refused_before_its_clips_are_made() -> None:
    with pytest.raises(LimitExceeded, match="31557600000000 parts; the limit is 100"):
        units_of(clips_task(clip_s=1.0), VideoProbe(31_557_600_000_000.0, 64, 48, 10**15, 30.0), 100)


@pytest.mark.parametrize("clips", [{}, {"clip_s": 60.0}], ids=["whole", "by clips"])
def test_more_frames_than_a_part_may_look_at_are_no_estimate(clips: dict[str, float]) -> None:
    card, probe = CATALOGUE["ovis2-4b"], film(600.0, 30)
    count = 6000 if not clips else 600
    spec = clips_task(fps=10.0, **clips)
    assert estimate(spec, card, [probe], Pace(), max_parts=100, max_frames=count).frames == 6000
    with pytest.raises(LimitExceeded, match=f"{count} frames are asked for; the limit is {count - 1}"):
        estimate(spec, card, [probe], Pace(), max_parts=100, max_frames=count - 1)


def sized(spec: TaskSpec, probe: VideoProbe) -> Estimate:
    return estimate(spec, CATALOGUE[spec.model], [probe], Pace(), max_parts=100)
