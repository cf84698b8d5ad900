"""What media processes find out, as the worker sees it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ovis_engine.tiling import TiledImage

#: Largest denominator of a rate in a clip's header that is told from a float.
_MAX_DENOMINATOR = 1_000_000

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
        own_text: Whether each page has text of its own, where that was looked for; None for a page that was not looked
            at, for want of time or of interest. A page whose text can't be read, which will fail alone, has some.
    """

    format: DocumentFormat
    pages: tuple[PageSize, ...]
    own_text: tuple[bool | None, ...] | None = None

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

    @property
    def rate(self) -> Fraction:
        """Frames a second, as the clip's header has it: a float is no third."""
        if self.fps >= 1:
            return Fraction(self.fps).limit_denominator(_MAX_DENOMINATOR)
        return 1 / Fraction(1 / self.fps).limit_denominator(_MAX_DENOMINATOR)


@dataclass(frozen=True)
class Prepared:
    """A picture or page, ready for the model.

    Attributes:
        image: Its tiles; None where the page's own text was all that was wanted.
        has_ink: False where there is nothing to read: blank paper, slightly noisy at most.
        text: The page's own text where it was wanted and there is some; lines end with a line feed.
    """

    image: TiledImage | None
    has_ink: bool
    text: str | None = None


@dataclass(frozen=True)
class Frames:
    """Frames of a clip in order of time.

    Attributes:
        images: Their tiles; at least one frame.
        times_s: When each is shown, in seconds from the clip's start.
        duration_s: How long the whole clip is, in seconds, above 0.
    """

    images: tuple[TiledImage, ...]
    times_s: tuple[float, ...]
    duration_s: float
