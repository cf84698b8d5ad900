"""How finely pictures are cut, and the finest cut whose visual tokens still fit. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovis_engine.tiling import choose_grid, num_tiles, num_visual_tokens

#: max_partition of the reference for one picture, for several, and for the frames of a clip.
SINGLE_IMAGE_PARTITION, SEVERAL_IMAGES_PARTITION, VIDEO_PARTITION = 9, 4, 1


@dataclass(frozen=True)
class Partition:
    """The max_partition that was asked for and the one that was used.

    Attributes:
        asked: Most cuts per picture that the caller wanted.
        used: Most cuts per picture that the pictures were tiled with, at most asked.
    """

    asked: int
    used: int

    @property
    def is_reduced(self) -> bool:
        """Whether the pictures were tiled more coarsely than asked."""
        return self.used < self.asked


@dataclass(frozen=True)
class Room:
    """What a request's pictures may take.

    Attributes:
        num_tokens: Positions for all pictures together, indicator tokens included.
        num_tiles: Tiles for all pictures together.
    """

    num_tokens: int
    num_tiles: int


def default_partition(num_images: int) -> int:
    """The reference's max_partition for a number of pictures that are not frames of a clip."""
    return SINGLE_IMAGE_PARTITION if num_images <= 1 else SEVERAL_IMAGES_PARTITION


def largest_partition(
    sizes: Sequence[tuple[int, int]], *, side: int, tokens_per_tile: int, room: Room, max_partition: int
) -> int | None:
    """The largest max_partition with which pictures fit.

    Args:
        sizes: Width and height of each picture in pixels, at least 1.
        side: Side of a tile in pixels.
        tokens_per_tile: Visual tokens of a tile.
        room: What the pictures may take.
        max_partition: Largest value to try, at least 1.

    Returns:
        A value from 1 to max_partition, or None if the pictures do not fit uncut either.

    Raises:
        RequestError: If a size or max_partition is below 1.
    """
    for partition in range(max_partition, 0, -1):
        grids = [choose_grid(width, height, side=side, max_partition=partition) for width, height in sizes]
        tokens = sum(num_visual_tokens(grid.rows, grid.cols, tokens_per_tile) for grid in grids)
        if tokens <= room.num_tokens and sum(num_tiles(*grid) for grid in grids) <= room.num_tiles:
            return partition
    return None
