"""Pictures to tiles, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovis_engine.errors import InvalidTilesError, RequestError
from ovis_engine.tiling import TiledImage, num_tiles, num_visual_tokens, plan_tiles, tile_image, to_rgb
from ovis_engine.verify_tables import check_grid_table
from tests.engine.conftest import picture, read_json

SIZES = st.integers(min_value=1, max_value=5000)


@pytest.mark.parametrize("module", ["ovis_engine", "ovis_engine.tiling", "ovis_engine.errors"])
def test_media_processes_can_import_it_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'tokenizers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_size_of_the_grid_table_is_cut_as_the_reference_does(parity: Path) -> None:
    checked = list(check_grid_table(read_json(parity / "grid_table.json")))
    assert len(checked) == 592
    assert [entry for entry in checked if entry[1]] == []


def test_the_grid_is_rows_by_columns() -> None:
    assert plan_tiles(1344, 448, side=448, max_partition=9).grid == (1, 3)
    assert plan_tiles(1920, 1080, side=448, max_partition=9).grid == (2, 4)


@given(width=SIZES, height=SIZES, max_partition=st.integers(min_value=1, max_value=16))
def test_any_size_gives_tiles_within_the_side(width: int, height: int, max_partition: int) -> None:
    plan = plan_tiles(width, height, side=448, max_partition=max_partition)
    assert plan.grid.rows * plan.grid.cols <= max_partition
    assert len(plan.boxes) == num_tiles(*plan.grid)
    for (left, upper, right, lower), size in zip(plan.boxes, plan.sizes, strict=True):
        assert 0 <= left < right <= width
        assert 0 <= upper < lower <= height
        assert max(size) == 448
        assert min(size) >= 1


@pytest.mark.parametrize("sizes", [(0, 5, 1), (5, 0, 1), (5, 5, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError):
        plan_tiles(sizes[0], sizes[1], side=448, max_partition=sizes[2])


@pytest.mark.parametrize(("size", "grid"), [((1000, 2), (1, 3)), ((2, 1000), (3, 1)), ((1, 1), (1, 1))])
def test_a_thin_picture_keeps_at_least_one_pixel(size: tuple[int, int], grid: tuple[int, int]) -> None:
    tiled = tile_image(Image.new("RGB", size, "red"), side=448, max_partition=9)
    assert (tiled.rows, tiled.cols) == grid
    assert all(min(tile.shape[:2]) >= 1 for tile in tiled.tiles)


def test_the_thumbnail_comes_first_and_cuts_follow_row_by_row() -> None:
    image = Image.new("RGB", (896, 896), "black")
    for index, colour in enumerate(["red", "lime", "blue", "white"]):
        image.paste(colour, (index % 2 * 448, index // 2 * 448, index % 2 * 448 + 448, index // 2 * 448 + 448))
    tiled = tile_image(image, side=448, max_partition=4)
    middles = [tuple(int(value) for value in tile[224, 224]) for tile in tiled.tiles[1:]]
    assert middles == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert tiled.tiles[0].shape == (448, 448, 3)


@pytest.mark.parametrize(
    ("mode", "dtype", "top"),
    [
        ("I;16", np.uint16, 65535),
        ("I", np.int32, 65535),
        ("I", np.int32, 255),
        ("F", np.float32, 1),
        ("F", np.float32, 255),
    ],
)
def test_wide_modes_are_scaled_to_eight_bits(mode: str, dtype: type, top: int) -> None:
    image = Image.fromarray(np.array([[0, top]], dtype=dtype))
    assert image.mode == mode
    assert np.asarray(to_rgb(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_an_even_wide_picture_is_no_division_by_zero() -> None:
    assert to_rgb(Image.fromarray(np.full((2, 2), -7, np.int32))).size == (2, 2)
    assert to_rgb(Image.fromarray(np.full((2, 2), np.nan, np.float32))).size == (2, 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr", "HSV", "LAB"])
def test_other_modes_are_converted_as_the_reference_does(mode: str) -> None:
    image = Image.linear_gradient("L").convert("RGB").convert(mode)
    assert to_rgb(image).tobytes() == image.convert("RGB").tobytes()


def test_equal_pictures_share_a_hash_and_others_do_not() -> None:
    assert picture("hd.jpg").content_hash == picture("hd.jpg").content_hash
    assert picture("hd.jpg").content_hash != picture("hd.jpg", 1).content_hash
    assert picture("frame0.jpg").content_hash != picture("frame1.jpg").content_hash


@pytest.mark.parametrize(
    "tiles",
    [
        (),
        (np.zeros((4, 4, 3), np.uint8),) * 2,
        (np.zeros((4, 4, 3), np.float32),),
        (np.zeros((4, 4), np.uint8),),
        (np.zeros((9, 4, 3), np.uint8),),
        (np.zeros((0, 4, 3), np.uint8),),
    ],
    ids=["none", "too many", "float", "gray", "too large", "empty"],
)
def test_tiles_that_disagree_with_their_header_are_refused(tiles: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(InvalidTilesError):
        TiledImage(1, 1, 4, 4, 8, tiles)


def test_token_counts_follow_the_layout() -> None:
    assert num_visual_tokens(1, 1, 256) == 259
    assert num_visual_tokens(2, 4, 256) == 9 * 256 + 10


@pytest.mark.parametrize("size", [(2000, 1500), (1001, 333), (448, 448), (90, 70), (3, 2000), (1, 1)])
def test_fast_tiling_keeps_the_grid_and_comes_close_to_the_exact_pixels(size: tuple[int, int]) -> None:
    image = Image.radial_gradient("L").resize(size, Image.Resampling.BICUBIC).convert("RGB")
    exact, fast = (tile_image(image, side=448, max_partition=9, exact=exact) for exact in (True, False))
    assert (fast.rows, fast.cols, len(fast.tiles)) == (exact.rows, exact.cols, len(exact.tiles))
    for one, other in zip(exact.tiles, fast.tiles, strict=True):
        assert max(abs(mine - its) for mine, its in zip(one.shape, other.shape, strict=True)) <= 4
        height, width = min(one.shape[0], other.shape[0]), min(one.shape[1], other.shape[1])
        difference = np.abs(one[:height, :width].astype(int) - other[:height, :width])
        assert difference.mean() < 4
