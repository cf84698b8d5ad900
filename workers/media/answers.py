"""What media processes find out, as the worker sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ovis_engine.tiling import TiledImage

DocumentFormat = Literal["pdf", "office", "tiff", "gif", "webp", "zip", "picture"]


@dataclass(frozen=True)
class PageSize:
    """Size of a page, upright as it is shown: in points (1/72 inch) for ``pdf`` and ``office``, else in pixels.

    Zero by zero where the page is damaged: it will fail alone.
    """

    width: float
    height: float


@dataclass(frozen=True)
class DocumentProbe:
    """A document that was looked at and not rendered.

    Attributes:
        format: What it is.
        pages: Size of each page, in order; at least one.
    """

    format: DocumentFormat
    pages: tuple[PageSize, ...]

    @property
    def in_points(self) -> bool:
        """Whether pages are drawn at a resolution of our choice (`workers.media.resolution`)."""
        return self.format in ("pdf", "office")


@dataclass(frozen=True)
class VideoProbe:
    """A clip of which only the first frame was decoded.

    Attributes:
        duration_s: How long it is, in seconds, above 0.
        width, height: Pixels of a frame, turned upright.
        num_frames: Frames as the model card counts them: duration times average rate. An estimate where they come at
            uneven times.
        fps: Average frames a second.
    """

    duration_s: float
    width: int
    height: int
    num_frames: int
    fps: float


@dataclass(frozen=True)
class Prepared:
    """A picture or page, ready for the model.

    Attributes:
        image: Its tiles.
        has_ink: False where there is nothing to read: blank paper, slightly noisy at most.
        text: The page's own text where it was wanted and there is some; lines end with a line feed.
    """

    image: TiledImage
    has_ink: bool
    text: str | None = None


@dataclass(frozen=True)
class Frames:
    """Frames of a clip in order of time.

    Attributes:
        images: Their tiles; at least one frame.
        times_s: When each is shown, in seconds from the clip's start.
    """

    images: tuple[TiledImage, ...]
    times_s: tuple[float, ...]
