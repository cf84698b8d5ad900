"""What one part is about: its pictures, page or frames as tiles, and text that comes with them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import redis
from redis.exceptions import RedisError

from contract.blobs import BlobStore
from contract.catalogue import ModelCard
from contract.errors import StoreUnavailable
from contract.results import Usage
from contract.task import Attempt, ObjectInput, UrlInput
from contract.units import ClipUnit, PageUnit, SummaryUnit
from ovis_engine import TiledImage
from ovis_engine.video import Sampling
from workers.captions import Caption, read_captions
from workers.media.answers import Prepared
from workers.media.pool import MediaPool


@dataclass(frozen=True)
class PartInputs:
    """What a part is about.

    Attributes:
        images: Its pictures, page or frames, in order; none of a page whose own text is the answer.
        is_film: Whether they are frames.
        has_ink: False where none of them has anything to read; always True for frames.
        text: The page's own text, where it was wanted and there is some.
        captions: What the clips before a summary gave.
        counts: Images, pages and frames, for the bill.
        start_s, end_s: The stretch of the video that the frames are from; it ends with the video at the latest.
        turned: Makes the same inputs with the one picture turned clockwise by 90, 180 or 270 degrees, cut into at most
            so many tiles; None where there isn't just one.
    """

    images: tuple[TiledImage, ...] = ()
    is_film: bool = False
    has_ink: bool = True
    text: str | None = None
    captions: tuple[Caption, ...] = ()
    counts: Usage = field(default_factory=Usage)
    start_s: float | None = None
    end_s: float | None = None
    turned: Callable[[int, int], TiledImage] | None = None


@dataclass(frozen=True)
class InputReader:
    """Reads inputs through the media processes. Any thread."""

    client: redis.Redis
    blobs: BlobStore
    media: MediaPool
    side: int
    card: ModelCard

    def read(self, attempt: Attempt, go_on: Callable[[], None] | None = None) -> PartInputs:
        """Fetch, decode and tile what the part covers.

        Args:
            attempt: Whose part it is.
            go_on: Called every second while a media process is waited for; what it raises ends the reading. So does
                it when the inputs are turned.

        Raises:
            FleetError: What was wrong with an input, or a store that is away.
        """
        if go_on is not None:
            return replace(self, media=self.media.asking(go_on)).read(attempt)
        unit = attempt.unit
        if isinstance(unit, SummaryUnit):
            return PartInputs(captions=self._captions(attempt))
        if attempt.spec.kind == "video":
            return self._film(attempt, unit if isinstance(unit, ClipUnit) else None)
        if attempt.spec.kind == "document":
            return self._page(attempt, unit.page if isinstance(unit, PageUnit) else 1)
        return self._pictures(attempt)

    def _page(self, attempt: Attempt, page: int) -> PartInputs:
        spec = attempt.spec
        layer = spec.options.text_layer
        partition = spec.max_partition(self.card)
        prepared = self._prepare(
            spec.inputs[0], partition, page=page, want_text=layer == "hint", text_suffices=layer == "only"
        )

        def turned(angle: int, most: int) -> TiledImage:
            return _tiles(self._prepare(spec.inputs[0], min(partition, most), page=page, rotate=angle))

        return PartInputs(
            () if prepared.image is None else (prepared.image,),
            has_ink=prepared.has_ink,
            text=prepared.text,
            counts=Usage(pages=1),
            turned=turned,
        )

    def _pictures(self, attempt: Attempt) -> PartInputs:
        """The task's pictures; several are prepared side by side."""
        spec, inputs = attempt.spec, attempt.spec.inputs
        partition = spec.max_partition(self.card)
        if not inputs:
            return PartInputs()
        if len(inputs) > 1:
            with ThreadPoolExecutor(min(4, len(inputs)), thread_name_prefix="prepare") as threads:
                prepared = list(threads.map(lambda source: self._prepare(source, partition), inputs))
        else:
            prepared = [self._prepare(inputs[0], partition)]

        def turned(angle: int, most: int) -> TiledImage:
            return _tiles(self._prepare(inputs[0], min(partition, most), rotate=angle))

        return PartInputs(
            tuple(map(_tiles, prepared)),
            has_ink=any(one.has_ink for one in prepared),
            counts=Usage(images=len(inputs)),
            turned=turned if len(inputs) == 1 else None,
        )

    def _film(self, attempt: Attempt, clip: ClipUnit | None) -> PartInputs:
        spec, options = attempt.spec, attempt.spec.options
        start_s, end_s = (clip.start_s, clip.end_s) if clip else (options.start_s or 0.0, options.end_s)
        url, trusted = self._address(spec.inputs[0])
        frames = self.media.frames(
            url,
            trusted=trusted,
            side=self.side,
            max_partition=spec.max_partition(self.card),
            sampling=Sampling(options.num_frames, options.fps, start_s, end_s),
        )
        end_s = frames.duration_s if end_s is None else min(end_s, frames.duration_s)
        return PartInputs(
            frames.images,
            is_film=True,
            counts=Usage(frames=len(frames.images)),
            start_s=start_s,
            # A film's frames may outlast what its header says by half a hundredth of a second.
            end_s=max(start_s, round(end_s, 3)),
        )

    def _captions(self, attempt: Attempt) -> tuple[Caption, ...]:
        try:
            return read_captions(self.client, self.blobs, attempt.task_id, attempt.part)
        except RedisError as exc:
            raise StoreUnavailable("the queue can't be reached; try again later") from exc

    def _prepare(
        self,
        source: UrlInput | ObjectInput,
        max_partition: int,
        *,
        page: int | None = None,
        rotate: int = 0,
        want_text: bool = False,
        text_suffices: bool = False,
    ) -> Prepared:
        url, trusted = self._address(source)
        return self.media.prepare(
            url,
            trusted=trusted,
            side=self.side,
            max_partition=max_partition,
            page=page,
            rotate=rotate,
            want_text=want_text,
            text_suffices=text_suffices,
        )

    def _address(self, source: UrlInput | ObjectInput) -> tuple[str, bool]:
        """Where the bytes are, and whether the URL is one of ours."""
        if isinstance(source, ObjectInput):
            return self.blobs.presigned_get(source.bucket, source.key), True
        return source.url, False


def _tiles(prepared: Prepared) -> TiledImage:
    """The tiles of what was prepared with them in any case."""
    assert prepared.image is not None
    return prepared.image
