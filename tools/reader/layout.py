"""Lays a page out: what is written where, and which patch of the tile holds which symbols. No pixels.

Geometry is in pixels of two planes: the page's own picture, and the tile that the engine fits it into. Sizes that a
reader would notice (advance, line pitch) are drawn at random in tile pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from ovis_engine.tiling import plan_tiles
from tools.reader.fonts import Face
from tools.reader.vocabulary import LINE_END, MAX_LINES, MAX_PLACES, PAGE_END, Symbol, code_of
from tools.reader.writing import Kind, write_lines

#: Side of a tile and of a patch in pixels, and patches along a side.
SIDE, PATCH = 336, 14
PATCHES = SIDE // PATCH

#: Shares of a font's size: a line's height over and under its baseline, the middle of its letters above it.
ASCENT, DESCENT, MIDDLE = 0.80, 0.26, 0.33
#: Least distance of two baselines in tile pixels, over a patch's height: two lines never meet in one patch.
MIN_PITCH = 16.0
#: Tries to fit a page before another is begun.
MAX_TRIES = 1000


class LayoutError(Exception):
    """No page with these wishes fits."""


@dataclass(frozen=True)
class PageWishes:
    """What pages to lay out.

    Attributes:
        faces: Fonts, chosen evenly.
        advances: Ranges of a character's advance in tile pixels, one chosen evenly, then a value in it.
        kinds: What is written, chosen evenly.
        max_lines: Most lines.
        full_share: Share of pages with as many lines as fit.
        slant_share: Share of pages that are turned a little.
        max_slant_deg: Most degrees by which they are turned, either way.
        empty_share: Share of pages without print.
    """

    faces: tuple[Face, ...]
    advances: tuple[tuple[float, float], ...] = ((14.0, 17.0), (10.0, 14.0), (17.0, 26.0))
    kinds: tuple[Kind, ...] = ("receipt", "words", "random")
    max_lines: int = 20
    full_share: float = 0.5
    slant_share: float = 0.0
    max_slant_deg: float = 0.0
    empty_share: float = 0.0


@dataclass(frozen=True)
class Page:
    """A page that is laid out.

    Attributes:
        width: Width of its picture in pixels.
        height: Height of its picture in pixels.
        face: Its font.
        size_px: The font's size in the picture.
        pitch: Distance of baselines in the picture, in pixels.
        left: Left end of the lines in the picture.
        top: First baseline in the picture.
        slant_deg: Degrees, counter-clockwise, by which the picture is turned about its middle after it is written.
        lines: Its lines as drawn, spaces included.
        text: Its transcript: runs of spaces count as one, none at the ends of a line.
        symbols: Symbols by (row, column) of their patch, one or two, in reading order.
    """

    width: int
    height: int
    face: Face
    size_px: int
    pitch: float
    left: float
    top: float
    slant_deg: float
    lines: tuple[str, ...]
    text: str
    symbols: dict[tuple[int, int], tuple[Symbol, ...]] = field(repr=False)

    @property
    def scale(self) -> float:
        """Picture pixels per tile pixel."""
        return max(self.width, self.height) / SIDE

    @property
    def advance(self) -> float:
        """A character's advance in the picture, in pixels."""
        return self.face.at(self.size_px).getlength("M")


def lay_out(random: Random, wishes: PageWishes, lines: tuple[str, ...] | None = None) -> Page:
    """A page at random.

    Args:
        random: Source of all chance.
        wishes: What it shall be like.
        lines: What to write instead of random text.

    Raises:
        LayoutError: If nothing that was tried fits.
    """
    for _ in range(MAX_TRIES):
        page = _try(random, wishes, lines)
        if page is not None:
            return page
    raise LayoutError(f"no page fits after {MAX_TRIES} tries")


def lay_out_block(random: Random, wishes: PageWishes, *, columns: int, rows: int) -> Page:
    """A page of full lines for several tiles, to be measured only: it has no symbols.

    Its picture is as small as print of the smallest advance allows, so that a reader's tiles need not shrink it.
    """
    face = random.choice(wishes.faces)
    size_px = math.ceil(wishes.advances[0][0] / face.advance)
    advance, pitch = face.at(size_px).getlength("M"), MIN_PITCH + 0.5
    lines = write_lines(random, random.choice(wishes.kinds), rows, columns)
    lines = [f"{line} {more}"[:columns].rstrip() for line, more in zip(lines, reversed(lines), strict=True)]
    text = "\n".join(" ".join(line.split()) for line in lines)
    width, height = math.ceil((columns + 2) * advance), math.ceil((rows + 0.5) * pitch)
    return Page(width, height, face, size_px, pitch, advance / 2, pitch, 0.0, tuple(lines), text, {})


def _try(random: Random, wishes: PageWishes, lines: tuple[str, ...] | None) -> Page | None:
    """One try; None if it does not fit."""
    width, height = _picture_size(random)
    scale = max(width, height) / SIDE
    face = random.choice(wishes.faces)
    low, high = random.choice(wishes.advances)
    size_px = max(6, round(random.uniform(low, high) * scale / face.advance))
    advance = face.at(size_px).getlength("M")
    if not low - 0.05 <= advance / scale <= high + 0.1:
        return None
    least = max(MIN_PITCH * scale, size_px * 1.02)
    pitch = random.uniform(least, least * random.choice((1.1, 1.3, 1.8)))
    columns = min(int((width - 3 * scale) // advance) - 1, MAX_PLACES - 1)
    room = int((height - (ASCENT + DESCENT) * size_px - 2) // pitch) + 1
    if columns < 3 or room < 1:
        return None
    if lines is None:
        most = min(wishes.max_lines, MAX_LINES, room)
        count = most if random.random() < wishes.full_share else random.randint(1, most)
        lines = tuple(write_lines(random, random.choice(wishes.kinds), count, columns))
    elif len(lines) > room or max(map(len, lines)) > columns:
        return None
    if random.random() < wishes.empty_share:
        lines = ()
    used = max(map(len, lines), default=0)
    left = random.uniform(scale, width - (used + 1) * advance - scale * 0.5)
    top = random.uniform(ASCENT * size_px + 1, height - DESCENT * size_px - 1 - (len(lines) - 1) * pitch)
    if scale == 1 and random.random() < 0.5:
        left, top, pitch = float(int(left)), float(int(top)), max(16.0, float(int(pitch)))
    slant = random.uniform(-1, 1) * wishes.max_slant_deg if random.random() < wishes.slant_share else 0.0
    return _page(width, height, face, size_px, pitch, left, top, slant, lines)


def _picture_size(random: Random) -> tuple[int, int]:
    """Width and height; at times the tile's own, so that nothing is resized."""
    longer = SIDE if random.random() < 0.4 else random.randint(280, 760)
    shorter = longer if random.random() < 0.5 else max(1, int(longer * random.uniform(0.5, 1.0)))
    return (longer, shorter) if random.random() < 0.4 else (shorter, longer)


def _page(
    width: int,
    height: int,
    face: Face,
    size_px: int,
    pitch: float,
    left: float,
    top: float,
    slant_deg: float,
    lines: tuple[str, ...],
) -> Page | None:
    """Labels a page; None if a symbol is off the picture or three meet in a patch."""
    advance = face.at(size_px).getlength("M")
    to_tile = _Placing(width, height, slant_deg)
    symbols: dict[tuple[int, int], tuple[Symbol, ...]] = {}
    for number, line in enumerate(lines):
        middle = top + number * pitch - MIDDLE * size_px
        for column, symbol in transcribed(line, number, last=number == len(lines) - 1):
            patch = to_tile.patch(left + (column + 0.5) * advance, middle)
            held = (*symbols.get(patch, ()), symbol)
            if not to_tile.inside(patch) or len(held) > 2 or held[0].line != number:
                return None
            symbols[patch] = held
    text = "\n".join(" ".join(line.split()) for line in lines)
    return Page(width, height, face, size_px, pitch, left, top, slant_deg, lines, text, symbols)


def transcribed(line: str, number: int, *, last: bool) -> list[tuple[int, Symbol]]:
    """A line's symbols with the column that each stands in; a run of spaces stands where it begins."""
    found: list[tuple[int, Symbol]] = []
    for column, character in enumerate(line):
        if character != " " or (found and line[column - 1] != " "):
            found.append((column, Symbol(code_of(character), number, len(found))))
    found.append((len(line), Symbol(PAGE_END if last else LINE_END, number, len(found))))
    return found


class _Placing:
    """Where points of a turned picture lie in its tile."""

    def __init__(self, width: int, height: int, slant_deg: float) -> None:
        self._middle = width / 2, height / 2
        self._turn = math.cos(math.radians(slant_deg)), math.sin(math.radians(slant_deg))
        (fitted,) = plan_tiles(width, height, side=SIDE, max_partition=1).sizes
        self._factors = fitted[0] / width, fitted[1] / height
        self._offsets = (SIDE - fitted[0]) // 2, (SIDE - fitted[1]) // 2

    def patch(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the patch that a point of the unturned picture ends up in."""
        (middle_x, middle_y), (cosine, sine) = self._middle, self._turn
        right, down = x - middle_x, y - middle_y
        x, y = middle_x + cosine * right + sine * down, middle_y - sine * right + cosine * down
        tile_x = self._offsets[0] + x * self._factors[0]
        tile_y = self._offsets[1] + y * self._factors[1]
        return math.floor(tile_y / PATCH), math.floor(tile_x / PATCH)

    def inside(self, patch: tuple[int, int]) -> bool:
        """Whether a patch is part of the tile."""
        return 0 <= patch[0] < PATCHES and 0 <= patch[1] < PATCHES
