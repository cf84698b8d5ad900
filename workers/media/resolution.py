"""How many pixels a page that is drawn at any size is rendered with: those that the model's grid will keep."""

from __future__ import annotations

from ovis_engine.tiling import Grid, choose_grid

#: Dots per inch above which print gains nothing by more: small pages are not blown up to fill the grid.
MAX_DPI = 300

POINTS_PER_INCH = 72

#: A page narrower than this many points is drawn as if it had them.
_SMALLEST_PT = 1e-3


def rendered_size(width_pt: float, height_pt: float, *, side: int, max_partition: int) -> tuple[int, int]:
    """Pixels (width, height) with which a page is rendered.

    The picture fits its own grid: no cut of `choose_grid` for it is longer than ``side``, so nothing that was rendered
    is shrunk away. ``MAX_DPI`` bounds it from above, one pixel from below.

    Args:
        width_pt: Width of the page in points, as shown.
        height_pt: Height of the page in points.
        side: Side of a tile in pixels, at least 1.
        max_partition: Most cuts of the grid, at least 1.
    """
    width_pt, height_pt = max(width_pt, _SMALLEST_PT), max(height_pt, _SMALLEST_PT)
    # Pages longer than this in both directions have the same grid however large they are.
    endless = side * max_partition / min(width_pt, height_pt)
    scale = min(MAX_DPI / POINTS_PER_INCH, endless)
    # Each round can only choose a grid of as many or fewer cuts, and shrinks the picture to it.
    for _ in range(max_partition + 1):
        size = _pixels(width_pt, scale), _pixels(height_pt, scale)
        fitting = min(
            scale, _scale_to_fit(width_pt, height_pt, choose_grid(*size, side=side, max_partition=max_partition), side)
        )
        if fitting == scale:
            break
        scale = fitting
    return _pixels(width_pt, scale), _pixels(height_pt, scale)


def _scale_to_fit(width_pt: float, height_pt: float, grid: Grid, side: int) -> float:
    return min(grid.cols * side / width_pt, grid.rows * side / height_pt)


def _pixels(points: float, scale: float) -> int:
    # The product of a quotient may come out a hair below the whole number that it is.
    return max(1, int(points * scale + 1e-6))
