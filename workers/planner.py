"""Plans a task: opens its file in a media process, and says which parts it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from contract.blobs import BlobStore
from contract.catalogue import CATALOGUE
from contract.errors import InvalidRequest, LimitExceeded, NotADocument, NotAVideo
from contract.pages import select_pages
from contract.task import Job, ObjectInput, TaskOptions, TaskSpec
from contract.units import ClipUnit, PageUnit, Unit
from ovis_engine.errors import NoVideoFramesError
from ovis_engine.video import Sampling
from workers.media.answers import DocumentProbe, VideoProbe
from workers.media.pool import MediaPool

#: A rest of a video that is shorter than this share of a clip is looked at with the clip before it.
_SHORT_REST = 0.1


@dataclass(frozen=True)
class Plan:
    """The parts of a task.

    Attributes:
        units: What each covers, in order; at least one.
        cost: Visual plus output tokens that one part may take.
        summary_cost: The same for the summary that follows the last part; None where none follows.
    """

    units: tuple[Unit, ...]
    cost: int
    summary_cost: int | None = None


@dataclass(frozen=True)
class Planner:
    """Plans by looking into files. ``plan`` may be called from many threads at once.

    Attributes:
        max_parts: Most parts that a task may have.
    """

    media: MediaPool
    blobs: BlobStore
    max_parts: int

    def plan(self, job: Job, go_on: Callable[[], None]) -> Plan:
        """Find out the parts of the job's task.

        Args:
            job: What to plan.
            go_on: Called every second of the look and of the wait for it; what it raises ends both.

        Raises:
            FleetError: What is wrong with the file or with what is wanted of it, or what of ours was away.
        """
        spec, card = job.spec, CATALOGUE[job.spec.model]
        source = spec.inputs[0]
        trusted = isinstance(source, ObjectInput)
        url = self.blobs.presigned_get(source.bucket, source.key) if isinstance(source, ObjectInput) else source.url
        probe = self.media.asking(go_on).probe(url, trusted=trusted)
        plan = Plan((), spec.estimated_cost(card))
        plan = replace(plan, units=units_of(spec, probe, self.max_parts))
        if spec.kind == "video":
            plan = replace(plan, summary_cost=spec.max_new_tokens(card))
        return plan


def units_of(spec: TaskSpec, probe: DocumentProbe | VideoProbe, max_parts: int) -> tuple[Unit, ...]:
    """The units of a planned task over a file, at most ``max_parts``.

    Raises:
        CallerError: The file is of another kind, doesn't have what is wanted of it, or would be too many parts.
    """
    if spec.kind == "document":
        return _pages(probe, spec.options, max_parts)
    return _clips(probe, spec.options, max_parts)


def _pages(probe: DocumentProbe | VideoProbe, options: TaskOptions, max_parts: int) -> tuple[Unit, ...]:
    if not isinstance(probe, DocumentProbe):
        raise NotADocument("the file is a video; hand it in as a task of kind video")
    pages = select_pages(options.pages, len(probe.pages))
    _check_count(len(pages), max_parts)
    return tuple(PageUnit(page=page) for page in pages)


def _clips(probe: DocumentProbe | VideoProbe, options: TaskOptions, max_parts: int) -> tuple[Unit, ...]:
    if not isinstance(probe, VideoProbe):
        raise NotAVideo(f"the file is no video but {probe.format}")
    assert options.clip_s is not None
    start_s = round(options.start_s or 0.0, 3)
    end_s = round(probe.duration_s if options.end_s is None else min(options.end_s, probe.duration_s), 3)
    if start_s >= end_s or not _shows_a_frame(probe, start_s):
        message = f"nothing lies between {start_s:g} s and {end_s:g} s: the video lasts {probe.duration_s:g} s"
        raise InvalidRequest(message, "/options/start_s")
    # Before any is made: a header may claim a million years.
    _check_count(count_clips(start_s, end_s, options.clip_s), max_parts)
    clips = clip_ranges(start_s, end_s, options.clip_s)
    while not _shows_a_frame(probe, clips[-1].start_s):
        clips.pop()
    return *clips[:-1], ClipUnit(start_s=clips[-1].start_s, end_s=end_s)


def _shows_a_frame(probe: VideoProbe, start_s: float) -> bool:
    """Whether a frame is left from ``start_s`` on: the last one of a slow film ends before the film does."""
    try:
        return Sampling(start_s=start_s).count(probe.num_frames, probe.rate) > 0
    except NoVideoFramesError:
        return False


def _check_count(count: int, max_parts: int) -> None:
    if count > max_parts:
        raise LimitExceeded(f"the task would have {count} parts; the limit is {max_parts}")


def count_clips(start_s: float, end_s: float, clip_s: float) -> int:
    """How many clips `clip_ranges` gives."""
    return max(1, int((end_s - start_s) / clip_s + 1 - _SHORT_REST))


def clip_ranges(start_s: float, end_s: float, clip_s: float) -> list[ClipUnit]:
    """The clips of a stretch, without gaps; the last takes a short rest with it.

    Args:
        start_s: Where the stretch begins, in seconds.
        end_s: Where it ends, above ``start_s`` by a millisecond at least.
        clip_s: Length of a clip, at least a second.
    """
    count = count_clips(start_s, end_s, clip_s)
    bounds = [round(start_s + index * clip_s, 3) for index in range(count)]
    return [ClipUnit(start_s=a, end_s=b) for a, b in zip(bounds, [*bounds[1:], round(end_s, 3)], strict=True)]
