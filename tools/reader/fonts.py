"""Finds and opens the fonts that pages are drawn with; README.md names the packages that bring them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

#: The fonts that figures for "training fonts" are about.
CORE = (
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "LiberationMono-Regular.ttf",
    "LiberationMono-Bold.ttf",
    "FreeMono.ttf",
    "FreeMonoBold.ttf",
    "Courier Prime.otf",
    "Courier Prime Bold.otf",
)
#: More fonts to train on, so that unseen ones look less strange.
EXTRA = (
    "Inconsolata.otf",
    "FiraCode-Regular.ttf",
    "FiraCode-Bold.ttf",
    "Anonymous Pro.ttf",
    "Anonymous Pro B.ttf",
    "Courier Prime Code.otf",
    "Courier Prime Sans.otf",
    "Courier Prime Sans Bold.otf",
)
#: Never trained on.
UNSEEN = ("JetBrainsMono-Regular.ttf", "NotoSansMono-Regular.ttf", "Hack-Regular.ttf")

#: Size in pixels at which a font's proportions are measured.
_MEASURED_PX = 100


class FontsMissingError(Exception):
    """Fonts that a page needs are not installed."""


@dataclass(frozen=True)
class Face:
    """A monospaced font.

    Attributes:
        name: Its file's name.
        path: Its file.
        advance: A character's advance as a share of the font's size.
    """

    name: str
    path: Path
    advance: float

    def at(self, size_px: int) -> ImageFont.FreeTypeFont:
        """The font at a size, in pixels."""
        return _opened(self.path, size_px)


def find_faces(names: tuple[str, ...]) -> tuple[Face, ...]:
    """Looks fonts up by file name under the folders in ``FONT_DIRS`` (colons between), or the system's.

    Raises:
        FontsMissingError: If one is not there.
    """
    paths = _installed(os.environ.get("FONT_DIRS", "/usr/share/fonts"))
    missing = [name for name in names if name not in paths]
    if missing:
        raise FontsMissingError(f"fonts not found: {', '.join(missing)} (tools/reader/README.md names their packages)")
    return tuple(face_of(paths[name]) for name in names)


def face_of(path: Path) -> Face:
    """The font in a file."""
    return Face(path.name, path, _opened(path, _MEASURED_PX).getlength("M") / _MEASURED_PX)


@cache
def _installed(folders: str) -> dict[str, Path]:
    return {path.name: path for folder in folders.split(":") for path in sorted(Path(folder).rglob("*.[to]tf"))}


@cache
def _opened(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    # Basic layout: no ligatures, so that every character keeps its place.
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
