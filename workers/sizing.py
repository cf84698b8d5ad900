"""What a task would take, from the sizes of its inputs: the grid's maths, without pixels and without a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from contract.catalogue import ModelCard
from contract.errors import InvalidRequest, LimitExceeded, NotAnImage, NotAVideo
from contract.estimates import Estimate, Pace
from contract.results import Usage
from contract.task import TaskSpec
from contract.units import ClipUnit, PageUnit
from ovis_engine.errors import NoVideoFramesError
from ovis_engine.tiling import choose_grid, num_tiles
from ovis_engine.video import Sampling
from workers.media.answers import DocumentProbe, VideoProbe
from workers.media.protocol import Probe
from workers.media.resolution import rendered_size
from workers.planner import units_of


def look_for(spec: TaskSpec) -> Probe:
    """What an estimate has to know of each of the task's inputs."""
    options = spec.options
    return Probe(as_picture=spec.kind == "image", own_text=options.text_layer == "only", pages=options.pages)


def estimate(
    spec: TaskSpec,
    card: ModelCard,
    probes: Sequence[DocumentProbe | VideoProbe],
    pace: Pace,
    *,
    max_parts: int,
    max_frames: int | None = None,
) -> Estimate:
    """What a task would take, each part run once.

    Args:
        spec: The task.
        card: Its model.
        probes: What its inputs are, in order, as `look_for` has them looked at.
        pace: How fast the model's parts went lately.
        max_parts: Most pages or clips that a task may have.
        max_frames: Most frames that one part may look at; None is no limit.

    Raises:
        FleetError: What is wrong with an input, or with what is wanted of it.
    """
    parts, asked, usage = _count(spec, card, probes, max_parts, max_frames)
    visual = usage.tiles * card.tokens_per_tile
    most = asked * spec.max_new_tokens(card)
    output = pace.output_of(asked, most)
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
    spec: TaskSpec,
    card: ModelCard,
    probes: Sequence[DocumentProbe | VideoProbe],
    max_parts: int,
    max_frames: int | None,
) -> tuple[int, int, Usage]:
    """How many parts there are, how many of them the model is asked, what they count but for tokens and seconds."""
    if spec.kind == "video":
        [probe] = probes
        parts, usage = _film(spec, card, probe, max_parts, max_frames)
        return parts, parts, usage
    if spec.kind == "document":
        [probe] = probes
        pages = [unit.page for unit in units_of(spec, probe, max_parts) if isinstance(unit, PageUnit)]
        assert isinstance(probe, DocumentProbe)
        return len(pages), *_pages(spec, card, probe, pages)
    tiles = 0
    for probe in probes:
        if not isinstance(probe, DocumentProbe) or probe.in_points or probe.format == "zip":
            raise NotAnImage("the bytes are no picture")
        tiles += _tiles(spec, card, probe, 1)
    return 1, 1, Usage(images=len(probes), tiles=tiles)


def _pages(spec: TaskSpec, card: ModelCard, probe: DocumentProbe, pages: Sequence[int]) -> tuple[int, Usage]:
    """Of how many pages the model is asked, and what all count: those whose own text is the answer have no tiles."""
    own_text = probe.own_text or (False,) * len(probe.pages)
    known = [own_text[page - 1] for page in pages if own_text[page - 1] is not None]
    without = 1 - sum(map(bool, known)) / len(known) if known else 1.0
    # A page that was not looked at counts as the others do on average.
    shares = [without if own_text[page - 1] is None else float(not own_text[page - 1]) for page in pages]
    tiles = sum(share * _tiles(spec, card, probe, page) for share, page in zip(shares, pages, strict=True))
    return round(sum(shares)), Usage(pages=len(pages), tiles=round(tiles))


def _tiles(spec: TaskSpec, card: ModelCard, probe: DocumentProbe, page: int) -> int:
    size, partition = probe.pages[page - 1], spec.max_partition(card)
    if not (size.width and size.height):
        return 0  # damaged: it will fail alone
    if probe.in_points:
        width, height = rendered_size(size.width, size.height, side=card.tile_side, max_partition=partition)
    else:
        width, height = int(size.width), int(size.height)
    return num_tiles(*choose_grid(width, height, side=card.tile_side, max_partition=partition))


def _film(
    spec: TaskSpec, card: ModelCard, probe: DocumentProbe | VideoProbe, max_parts: int, max_frames: int | None
) -> tuple[int, Usage]:
    options = spec.options
    if not isinstance(probe, VideoProbe):
        raise NotAVideo(f"the file is no video but {probe.format}")
    stretches: list[tuple[float, float | None]] = [(options.start_s or 0.0, options.end_s)]
    if options.clip_s is not None:
        clips = [unit for unit in units_of(spec, probe, max_parts) if isinstance(unit, ClipUnit)]
        stretches = [(clip.start_s, clip.end_s) for clip in clips]
    try:
        counts = [
            Sampling(options.num_frames, options.fps, start_s, end_s).count(probe.num_frames, probe.rate)
            for start_s, end_s in stretches
        ]
    except NoVideoFramesError as exc:
        raise InvalidRequest(str(exc), "/options/start_s") from exc
    if max_frames is not None and max(counts) > max_frames:
        raise LimitExceeded(f"{max(counts)} frames are asked for; the limit is {max_frames}")
    frames = sum(counts)
    grid = choose_grid(probe.width, probe.height, side=card.tile_side, max_partition=spec.max_partition(card))
    parts = len(stretches) + (options.clip_s is not None)
    return parts, Usage(frames=frames, tiles=frames * num_tiles(*grid))
