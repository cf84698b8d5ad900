"""How finely a page is rendered, whether it has ink, and in which order names are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from contract.errors import LimitExceeded, TruncatedImage
from ovis_engine.tiling import choose_grid
from tests.corpus.pictures import encoded, gif
from workers.media.archive import natural_key
from workers.media.decode import decode_image
from workers.media.ink import has_ink
from workers.media.picture_pages import PicturePages
from workers.media.resolution import MAX_DPI, POINTS_PER_INCH, rendered_size
from workers.media.visible import visible

POINTS = st.floats(1e-3, 3e6, allow_nan=False)


@given(width=POINTS, height=POINTS, side=st.sampled_from([336, 384, 448]), partition=st.integers(1, 16))
@settings(max_examples=100, deadline=None)
def test_no_pixel_is_rendered_that_the_grid_throws_away(width: float, height: float, side: int, partition: int) -> None:
    cols_px, rows_px = rendered_size(width, height, side=side, max_partition=partition)
    grid = choose_grid(cols_px, rows_px, side=side, max_partition=partition)
    assert cols_px <= max(1, grid.cols * side)
    assert rows_px <= max(1, grid.rows * side)
    assert cols_px * rows_px <= partition * side * side
    assert cols_px <= max(1, width / POINTS_PER_INCH * MAX_DPI + 1e-3)


@pytest.mark.parametrize(
    ("size", "partition", "wanted"),
    [
        ((595, 842), 1, (316, 448)),
        ((595, 842), 9, (949, 1344)),
        ((842, 595), 9, (1344, 949)),
        ((2_834_646, 2_834_646), 9, (1344, 1344)),
        ((72, 72), 9, (300, 300)),
    ],
)
def test_pages_fill_their_grid_up_to_the_dots_that_print_has(
    size: tuple[float, float], partition: int, wanted: tuple[int, int]
) -> None:
    assert rendered_size(*size, side=448, max_partition=partition) == wanted


def paper(level: int = 250, *, noise: float = 0.0, size: tuple[int, int] = (600, 400), seed: int = 0) -> np.ndarray:
    rows, cols = size
    values = level + np.random.default_rng(seed).normal(0, noise, (rows, cols, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def printed(text: str, ink: tuple[int, int, int], background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    page = Image.new("RGB", (400, 500), background)
    ImageDraw.Draw(page).text((180, 200), text, fill=ink)
    return np.asarray(page)


@given(
    level=st.integers(0, 255),
    noise=st.floats(0, 3),
    seed=st.integers(0, 1000),
    rows=st.integers(1, 200),
    cols=st.integers(1, 200),
)
@settings(max_examples=60, deadline=None)
def test_paper_with_slight_noise_is_blank(level: int, noise: float, seed: int, rows: int, cols: int) -> None:
    # Tiny pictures are given the benefit of the doubt: a few noisy pixels are a share of them that counts.
    if rows * cols >= 2000 or noise == 0:
        assert not has_ink(paper(level, noise=noise, size=(max(rows, 3), max(cols, 3)), seed=seed))


@given(pixel=arrays(np.uint8, (3,)), rows=st.integers(1, 80), cols=st.integers(1, 80))
@settings(max_examples=50, deadline=None)
def test_paper_of_any_colour_is_blank(pixel: np.ndarray, rows: int, cols: int) -> None:
    assert not has_ink(np.broadcast_to(pixel, (rows, cols, 3)))


def test_unevenly_lit_paper_is_blank() -> None:
    shade = np.linspace(200, 240, 800)[None, :, None] + np.random.default_rng(1).normal(0, 2, (600, 800, 3))
    assert not has_ink(shade.astype(np.uint8))


@pytest.mark.parametrize(
    ("ink", "background"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((225, 225, 225), (255, 255, 255)),
        ((255, 255, 0), (255, 255, 255)),
        ((255, 0, 0), (0, 0, 0)),
        ((40, 40, 40), (0, 0, 0)),
        ((0, 0, 255), (0, 255, 0)),
    ],
)
def test_print_of_any_colour_is_ink(ink: tuple[int, int, int], background: tuple[int, int, int]) -> None:
    assert has_ink(printed("Page 7", ink, background))


def test_faint_print_on_noisy_paper_is_ink() -> None:
    page = printed("a faint line of print", (205, 205, 205)).astype(float)
    noisy = np.clip(page - 5 + np.random.default_rng(2).normal(0, 2.5, page.shape), 0, 255)
    assert has_ink(noisy.astype(np.uint8))


@given(x=st.integers(0, 330), y=st.integers(0, 430), level=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_word_anywhere_is_ink(x: int, y: int, level: int) -> None:
    page = Image.new("L", (400, 500), 255)
    ImageDraw.Draw(page).text((x, y), "word", fill=level)
    assert has_ink(np.asarray(page.convert("RGB")))


def test_photographs_are_ink() -> None:
    sky = np.broadcast_to(np.linspace(80, 220, 500)[:, None, None], (500, 400, 3)).astype(np.uint8)
    grain = paper(128, noise=60)
    assert has_ink(sky)
    assert has_ink(grain)


def scan(mode: str, *, ink: bool = True) -> bytes:
    """A printed or a blank sheet in a mode of Pillow's, as a file."""
    sheet = Image.new("L", (400, 300), 255)
    if ink:
        ImageDraw.Draw(sheet).text((40, 40), "Invoice 4711\nTotal 9.50", fill=0)
    grey, kind = np.asarray(sheet), "TIFF"
    if mode == "I;16":
        image = Image.fromarray(np.where(grey > 128, 60_000, 3_000).astype(np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.where(grey > 128, 60_000, 3_000).astype(np.int32))
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode in ("LA", "RGBA", "white RGBA"):  # what is drawn is in the alpha channel alone
        shade = Image.new("L", sheet.size, 255 if mode.startswith("white") else 0)
        bands = (shade,) * (1 if mode == "LA" else 3)
        image, kind = Image.merge(mode.split()[-1], (*bands, Image.fromarray(255 - grey))), "PNG"
    else:
        image = sheet.convert(mode)
    return encoded(image, kind)


SCANS = ["I;16", "I", "F", "LA", "RGBA", "white RGBA", "1", "L", "P", "CMYK"]


@pytest.mark.parametrize("mode", SCANS)
def test_a_printed_sheet_of_any_mode_has_ink_that_the_model_sees(mode: str) -> None:
    picture = decode_image(scan(mode), max_pixels=10**6)
    assert picture.mode == mode.split()[-1]
    rgb, inked = visible(picture)
    assert inked
    assert rgb.mode == "RGB"
    assert np.ptp(np.asarray(rgb)) > 150


@pytest.mark.parametrize("mode", SCANS)
def test_a_blank_sheet_of_any_mode_has_none(mode: str) -> None:
    assert not visible(decode_image(scan(mode, ink=False), max_pixels=10**6))[1]


def test_transparency_is_left_out_where_the_colours_say_something() -> None:
    printed_sheet = Image.open(io.BytesIO(scan("L"))).convert("RGBA")
    printed_sheet.putalpha(Image.linear_gradient("L").resize(printed_sheet.size))
    rgb, inked = visible(printed_sheet)
    assert inked
    assert np.array_equal(np.asarray(rgb), np.asarray(printed_sheet)[..., :3])


def pages_of_gif(data: bytes, *, max_pixels: int = 10**6) -> PicturePages:
    return PicturePages(data, max_pages=5, max_pixels=max_pixels)


def corner(pages: PicturePages, number: int) -> object:
    page = pages.picture(number, side=336, max_partition=1, max_pixels=10**6)
    return page.convert("RGB").getpixel((0, 0))


def test_the_frames_of_a_gif_are_counted_without_drawing_them() -> None:
    pages = pages_of_gif(gif(9, 9, [(1, 1)] * 4, broken=2))
    assert pages.num_pages == 4, "one that can't be drawn hides none behind it"
    assert corner(pages, 1) == (255, 255, 255)
    for number in (2, 4, 3):
        with pytest.raises(TruncatedImage):
            corner(pages, number)
    assert corner(pages, 1) == (255, 255, 255)
    with pytest.raises(LimitExceeded, match="limit of 5"):
        pages_of_gif(gif(9, 9, [(1, 1)] * 6))


def test_a_gif_with_a_canvas_beyond_the_limit_is_not_opened() -> None:
    with pytest.raises(LimitExceeded, match="1001 x 1000 = 1001000 pixels; the limit is 1000000"):
        pages_of_gif(gif(1001, 1000, [(1, 1)] * 3))


def test_a_frame_that_enlarges_the_canvas_beyond_the_limit_fails_alone() -> None:
    pages = pages_of_gif(gif(9, 9, [(1, 1), (1, 1), (2_000, 2_000), (1, 1)]))
    for number in (3, 4):
        with pytest.raises(LimitExceeded, match="2000 x 2000"):
            corner(pages, number)
    assert corner(pages, 2) == (255, 255, 255)


def test_names_are_in_the_order_that_people_expect() -> None:
    names = ["b/2.png", "b/10.png", "B/1.png", "a10/1.png", "a9/1.png", "x", "10", "9", "٣"]
    assert sorted(names, key=natural_key) == [
        "٣",
        "9",
        "10",
        "a9/1.png",
        "a10/1.png",
        "B/1.png",
        "b/2.png",
        "b/10.png",
        "x",
    ]


@given(st.lists(st.integers(0, 10**30), min_size=2, max_size=5), st.booleans())
def test_numbers_in_names_are_ordered_by_value(numbers: list[int], padded: bool) -> None:
    names = [f"page {number:040}" if padded else f"page {number}" for number in numbers]
    assert sorted(names, key=natural_key) == [names[numbers.index(number)] for number in sorted(numbers)]


def test_a_number_of_any_length_is_ordered() -> None:
    long, longer = "1" + "0" * 5_000, "9" * 5_001
    assert sorted([longer, "2", long], key=natural_key) == ["2", long, longer]


@given(st.lists(st.text(max_size=8), unique_by=str.casefold))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    assert sorted(ordered) == sorted(names)
