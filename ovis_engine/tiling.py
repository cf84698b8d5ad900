"""Picture to tiles, as the reference does it. Needs Pillow and numpy only: media processes import it without torch.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93 (``preprocess_image``). Tiles are resized but neither
normalised nor padded, so that they cross a pipe as uint8; `ovis_engine.vision` does the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovis_engine.errors import InvalidTilesError, RequestError

#: A grid is good when its tiles keep more than this share of the picture's area (the reference's constant).
COVERING_THRESHOLD = 0.9

#: Modes that ``convert("RGB")`` would clip to near white instead of scaling.
WIDE_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})

#: Inexact resizing first shrinks by whole factors, as long as this many times the wanted pixels are left.
REDUCING_GAP = 1.5

UInt8Array = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


class Grid(NamedTuple):
    """Rows and columns that a picture is cut into, both at least 1."""

    rows: int
    cols: int


class TilePlan(NamedTuple):
    """How a picture is cut: its grid, and per tile (thumbnail first) the box cut out and the size (w, h) it gets."""

    grid: Grid
    boxes: tuple[Box, ...]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class TiledImage:
    """A picture as the model will see it.

    Attributes:
        rows: Rows of the grid, at least 1.
        cols: Columns of the grid, at least 1.
        width: Width of the original picture in pixels.
        height: Height of the original picture in pixels.
        side: Side of the square that each tile is fitted into, in pixels.
        tiles: uint8 arrays (h, w, 3) with 1 <= h, w <= side. One for a 1x1 grid; else the thumbnail of the whole
            picture first, then the cuts row by row. They must not be changed afterwards.

    Raises:
        InvalidTilesError: If the tiles do not agree with the grid and side.
    """

    rows: int
    cols: int
    width: int
    height: int
    side: int
    tiles: tuple[UInt8Array, ...]

    def __post_init__(self) -> None:
        expected = num_tiles(self.rows, self.cols)
        if len(self.tiles) != expected:
            raise InvalidTilesError(
                f"a {self.rows}x{self.cols} grid has {expected} tiles, but {len(self.tiles)} were given"
            )
        for tile in self.tiles:
            sound = tile.dtype == np.uint8 and tile.ndim == 3 and tile.shape[2] == 3
            if not (sound and min(tile.shape[:2]) >= 1 and max(tile.shape[:2]) <= self.side):
                raise InvalidTilesError(
                    f"a tile must be uint8 (h, w, 3) within {self.side} px, not {tile.dtype} {tile.shape}"
                )

    @cached_property
    def tile_digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each tile's side, shape and pixels: equal tiles share one digest."""
        return tuple(_tile_digest(tile, self.side) for tile in self.tiles)

    @cached_property
    def content_hash(self) -> str:
        """Hex SHA-256 over the grid and all tiles: equal for pictures that the model cannot tell apart."""
        digest = hashlib.sha256(f"{self.rows}x{self.cols}@{self.side}".encode())
        for tile_digest in self.tile_digests:
            digest.update(tile_digest)
        return digest.hexdigest()


def tile_image(image: Image.Image, *, side: int, max_partition: int, exact: bool = True) -> TiledImage:
    """Cuts a picture into tiles and fits each into a square.

    Args:
        image: Any decoded picture; EXIF orientation and alpha are ignored, as in the reference.
        side: Side of a tile in pixels, as the model wants it.
        max_partition: Most cuts allowed, at least 1; the thumbnail comes on top.
        exact: Whether the pixels must be the reference's. If not, the picture is resized once for all cuts, by a
            cheaper filter, in less than half the time; grid and number of tiles stay the same.

    Returns:
        The picture's grid and uint8 tiles.

    Raises:
        RequestError: If side or max_partition is below 1.
    """
    rgb = to_rgb(image)
    plan = plan_tiles(rgb.width, rgb.height, side=side, max_partition=max_partition)
    # A picture with fewer pixels than cuts has no common size for them.
    quickly = not exact and rgb.width >= plan.grid.cols and rgb.height >= plan.grid.rows
    tiles = _resize_together(rgb, plan) if quickly else _resize_each(rgb, plan)
    return TiledImage(plan.grid.rows, plan.grid.cols, rgb.width, rgb.height, side, tiles)


def plan_tiles(width: int, height: int, *, side: int, max_partition: int) -> TilePlan:
    """Says how a picture of a size will be cut and resized, without its pixels.

    Args:
        width: Picture width in pixels, at least 1.
        height: Picture height in pixels, at least 1.
        side: Side of a tile in pixels, at least 1.
        max_partition: Most cuts allowed, at least 1.

    Raises:
        RequestError: If any argument is below 1.
    """
    grid = choose_grid(width, height, side=side, max_partition=max_partition)
    boxes = [(0, 0, width, height)]
    if grid != (1, 1):
        boxes.extend(_at_least_one_pixel(box, width, height) for box in _cut(width, height, grid))
    sizes = tuple(_fitted_size(box[2] - box[0], box[3] - box[1], side) for box in boxes)
    return TilePlan(grid, tuple(boxes), sizes)


def choose_grid(width: int, height: int, *, side: int, max_partition: int) -> Grid:
    """Chooses the grid whose fitted tiles keep enough of the picture with the fewest tiles.

    Args:
        width: Picture width in pixels, at least 1.
        height: Picture height in pixels, at least 1.
        side: Side of a tile in pixels, at least 1.
        max_partition: Most cuts allowed, at least 1.

    Returns:
        The grid as (rows, cols).

    Raises:
        RequestError: If any argument is below 1.
    """
    if min(width, height, side, max_partition) < 1:
        raise RequestError(
            f"width, height, side and max_partition must be at least 1, not {width}, {height}, {side}, {max_partition}"
        )
    rated = [
        (_covering_ratio(width, height, grid, side), grid)
        for grid in (
            Grid(rows, cols) for rows in range(1, max_partition + 1) for cols in range(1, max_partition // rows + 1)
        )
    ]
    good = [entry for entry in rated if entry[0] > COVERING_THRESHOLD]
    if good:
        return min(good, key=lambda entry: (entry[1].rows * entry[1].cols, -entry[0]))[1]
    return min(rated, key=lambda entry: (-entry[0], entry[1].rows * entry[1].cols))[1]


def num_tiles(rows: int, cols: int) -> int:
    """Number of tiles of a grid: one, or all cuts and the thumbnail."""
    return 1 if rows * cols == 1 else rows * cols + 1


def num_visual_tokens(rows: int, cols: int, tokens_per_tile: int) -> int:
    """Number of sequence positions that a picture takes, indicator tokens included."""
    indicators = 3 if rows * cols == 1 else rows * cols + 2
    return num_tiles(rows, cols) * tokens_per_tile + indicators


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture to 8-bit RGB.

    16-bit, 32-bit and float pictures are scaled to 8 bit first: ``I;16`` by its full range; ``I`` and ``F`` by the
    smallest of the ranges 0..1 (``F`` only), 0..255 and 0..65535 that holds their values, else by their own range.
    Every other mode goes through ``convert("RGB")`` as in the reference.
    """
    if image.mode not in WIDE_MODES:
        return image.convert("RGB")
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = _value_range(values, image.mode)
    scaled = np.clip(np.rint((values - low) / (high - low) * 255.0), 0, 255).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _value_range(values: npt.NDArray[np.float64], mode: str) -> tuple[float, float]:
    """Range of pixel values that maps to 0..255."""
    if mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = float(values.min()), float(values.max())
    for limit in (1.0, 255.0, 65535.0):
        if low >= 0.0 and high <= limit and (limit > 1.0 or mode == "F"):
            return 0.0, limit
    return low, max(high, np.nextafter(low, np.inf))


def _covering_ratio(width: int, height: int, grid: Grid, side: int) -> float:
    """Share of the picture's area that is left once each cut is shrunk to fit the side."""
    covered = 0.0
    for left, upper, right, lower in _cut(width, height, grid):
        longer, shorter = max(right - left, lower - upper), min(right - left, lower - upper)
        # Same operations in the same order as the reference: ties are broken by the last bit.
        covered += shorter / longer * side * side if longer > side else longer * shorter
    return covered / (width * height)


def _cut(width: int, height: int, grid: Grid) -> Iterator[Box]:
    """Boxes (left, upper, right, lower) of a grid, row by row; the last row and column take the rest."""
    cut_height, cut_width = height // grid.rows, width // grid.cols
    for row in range(grid.rows):
        lower = height if row == grid.rows - 1 else (row + 1) * cut_height
        for col in range(grid.cols):
            right = width if col == grid.cols - 1 else (col + 1) * cut_width
            yield col * cut_width, row * cut_height, right, lower


def _at_least_one_pixel(box: Box, width: int, height: int) -> Box:
    """Widens an empty box to one pixel inside the picture (the reference crashes on it)."""
    left, upper = min(box[0], width - 1), min(box[1], height - 1)
    return left, upper, max(box[2], left + 1), max(box[3], upper + 1)


def _fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Size with the longer side at ``side`` pixels; the other is floored, at least 1 pixel."""
    if width > height:
        return side, max(1, int(height / width * side))
    if height > width:
        return max(1, int(width / height * side)), side
    return side, side


def _resize_each(rgb: Image.Image, plan: TilePlan) -> tuple[UInt8Array, ...]:
    """The reference's way: every tile is cut out first, then resized."""
    whole = (0, 0, *rgb.size)
    cuts = (rgb if box == whole else rgb.crop(box) for box in plan.boxes)
    return tuple(
        np.asarray(cut.resize(size, Image.Resampling.BICUBIC)) for cut, size in zip(cuts, plan.sizes, strict=True)
    )


def _resize_together(rgb: Image.Image, plan: TilePlan) -> tuple[UInt8Array, ...]:
    """Resizes the picture once to the size of all cuts side by side; the thumbnail comes from that."""
    rows, cols = plan.grid
    width, height = plan.sizes[-1]
    canvas = rgb.resize((cols * width, rows * height), Image.Resampling.HAMMING, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(canvas)
    cuts = [
        np.ascontiguousarray(pixels[row * height : (row + 1) * height, col * width : (col + 1) * width])
        for row in range(rows)
        for col in range(cols)
    ]
    if len(cuts) == 1:
        return tuple(cuts)
    return np.asarray(canvas.resize(plan.sizes[0], Image.Resampling.HAMMING, reducing_gap=REDUCING_GAP)), *cuts


def _tile_digest(tile: UInt8Array, side: int) -> bytes:
    height, width, _ = tile.shape
    digest = hashlib.sha256(f"{height}x{width}@{side}".encode())
    digest.update(np.ascontiguousarray(tile).data)
    return digest.digest()
