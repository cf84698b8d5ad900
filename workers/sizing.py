"""What a task would take, from the sizes of its inputs: the grid's maths, without pixels and without a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from contract.catalogue import ModelCard
from contract.errors import InvalidRequest, NotAnImage, NotAVideo
from contract.estimates import Estimate, Pace
from contract.results import Usage
from contract.task import TaskSpec
from contract.units import ClipUnit, PageUnit
from ovis_engine.errors import NoVideoFramesError
from ovis_engine.tiling import choose_grid, num_tiles
from ovis_engine.video import Sampling
from workers.media.answers import DocumentProbe, VideoProbe
from workers.media.resolution import rendered_size
from workers.planner import units_of

#: Most frames of a clip that any setting lets a worker read; a header may claim any number.
MOST_FRAMES = 4096


def estimate(
    spec: TaskSpec, card: ModelCard, probes: Sequence[DocumentProbe | VideoProbe], pace: Pace, *, max_parts: int
) -> Estimate:
    """What a task would take, each part run once.

    Args:
        spec: The task.
        card: Its model.
        probes: What its inputs are, in order.
        pace: How fast the model's parts went lately.
        max_parts: Most pages or clips that a task may have.

    Raises:
        FleetError: What is wrong with an input, or with what is wanted of it.
    """
    parts, usage = _count(spec, card, probes, max_parts)
    visual = usage.tiles * card.tokens_per_tile
    most = parts * spec.max_new_tokens(card)
    output = pace.output_of(parts, most)
    return Estimate(
        parts=parts,
        images=usage.images,
        pages=usage.pages,
        frames=usage.frames,
        tiles=usage.tiles,
        visual_tokens=visual,
        max_output_tokens=most,
        expected_output_tokens=output,
        expected_seconds=pace.seconds_of(None if output is None else visual + output),
    )


def _count(
    spec: TaskSpec, card: ModelCard, probes: Sequence[DocumentProbe | VideoProbe], max_parts: int
) -> tuple[int, Usage]:
    """How many parts there are, and what they count but for tokens and seconds."""
    if spec.kind == "video":
        [probe] = probes
        return _film(spec, card, probe, max_parts)
    if spec.kind == "document":
        [probe] = probes
        pages = [unit.page for unit in units_of(spec, probe, max_parts) if isinstance(unit, PageUnit)]
        assert isinstance(probe, DocumentProbe)
        return len(pages), Usage(pages=len(pages), tiles=sum(_tiles(spec, card, probe, page) for page in pages))
    for probe in probes:
        if isinstance(probe, VideoProbe):
            raise NotAnImage("the bytes are a video; hand it in as a task of kind video")
    pictures = [probe for probe in probes if isinstance(probe, DocumentProbe)]
    tiles = sum(_tiles(spec, card, picture, 1) for picture in pictures)
    return 1, Usage(images=len(pictures), tiles=tiles)


def _tiles(spec: TaskSpec, card: ModelCard, probe: DocumentProbe, page: int) -> int:
    size, partition = probe.pages[page - 1], spec.max_partition(card)
    if not (size.width and size.height):
        return 0  # damaged: it will fail alone
    if probe.in_points:
        width, height = rendered_size(size.width, size.height, side=card.tile_side, max_partition=partition)
    else:
        width, height = int(size.width), int(size.height)
    return num_tiles(*choose_grid(width, height, side=card.tile_side, max_partition=partition))


def _film(spec: TaskSpec, card: ModelCard, probe: DocumentProbe | VideoProbe, max_parts: int) -> tuple[int, Usage]:
    options = spec.options
    if not isinstance(probe, VideoProbe):
        raise NotAVideo(f"the file is no video but {probe.format}")
    stretches: list[tuple[float, float | None]] = [(options.start_s or 0.0, options.end_s)]
    if options.clip_s is not None:
        clips = [unit for unit in units_of(spec, probe, max_parts) if isinstance(unit, ClipUnit)]
        stretches = [(clip.start_s, clip.end_s) for clip in clips]
    rate = Fraction(probe.fps)
    try:
        frames = sum(
            min(MOST_FRAMES, Sampling(options.num_frames, options.fps, start_s, end_s).count(probe.num_frames, rate))
            for start_s, end_s in stretches
        )
    except NoVideoFramesError as exc:
        raise InvalidRequest(str(exc), "/options/start_s") from exc
    grid = choose_grid(probe.width, probe.height, side=card.tile_side, max_partition=spec.max_partition(card))
    parts = len(stretches) + (options.clip_s is not None)
    return parts, Usage(frames=frames, tiles=frames * num_tiles(*grid))
