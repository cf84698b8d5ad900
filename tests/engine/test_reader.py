"""What the bundled reader makes of pictures that are not for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ovis_engine import Completion, Engine, EngineConfig, Request, bundled_model_path, tile_image
from tests.engine.conftest import PARITY

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.png"))
#: "At most a few characters", and a bound that a reader going round in circles would meet.
FEW, MANY = 12, 600


@pytest.fixture(scope="module")
def reader() -> Iterator[Engine]:
    with Engine.from_pretrained(bundled_model_path(), EngineConfig(dtype="bfloat16")) as started:
        yield started


def read(reader: Engine, image: Image.Image) -> Completion:
    tiles = tile_image(image, side=reader.side, max_partition=1)
    request = Request("Read all the text in the image.", (tiles,), max_new_tokens=MANY)
    return reader.submit(request).result(60)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_an_example_is_read_without_an_error(reader: Engine, example: Path) -> None:
    with Image.open(example) as image:
        assert read(reader, image).text == example.with_suffix(".txt").read_text().rstrip("\n")


@pytest.mark.parametrize("colour", ["white", "#f4efe2", "#808080", "black"])
@pytest.mark.parametrize("size", [(336, 336), (600, 400), (240, 500)], ids=str)
def test_a_blank_page_gives_no_text(reader: Engine, size: tuple[int, int], colour: str) -> None:
    completion = read(reader, Image.new("RGB", size, colour))
    assert (completion.text, completion.finish_reason) == ("", "stop")


def test_a_blank_page_with_grain_gives_no_text(reader: Engine) -> None:
    grain = np.random.default_rng(5).normal(225, 6, (420, 336, 1)).clip(0, 255).astype(np.uint8)
    assert read(reader, Image.fromarray(np.repeat(grain, 3, axis=2))).text == ""


def landscape() -> Image.Image:
    """A sky over hills with a sun and trees: soft edges, shades and textures as a photograph has, and no print."""
    rng = np.random.default_rng(11)
    down, across = np.mgrid[0:360, 0:480].astype(np.float32)
    hills = 210 + 30 * np.sin(across / 70) + 12 * np.sin(across / 23)
    sky = np.stack([150 + down / 5, 180 + down / 6, 235 - down / 12], axis=-1)
    ground = np.stack([70 + down / 8, 110 + down / 9, 60 + down / 20], axis=-1) + rng.normal(0, 12, (360, 480, 1))
    scene = np.where((down > hills)[..., None], ground, sky)
    sun = np.exp(-(((across - 360) ** 2 + (down - 70) ** 2) / 900))[..., None]
    scene = scene + sun * np.array([90, 70, -20])
    return Image.fromarray(scene.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))


def test_a_picture_without_text_gives_next_to_none_and_ends(reader: Engine) -> None:
    completion = read(reader, landscape())
    assert completion.finish_reason == "stop"
    assert len(completion.text) <= FEW


#: One pixel of a strong red: the whole tile is of that colour, which the bundled checkpoint never saw.
LOOPS = pytest.param("x1x1.png", marks=pytest.mark.xfail(reason="goes on and on over plain strong colours"))
NAMES = sorted(path.name for path in (PARITY / "images").glob("*.[pj]*g") if path.name != "x1x1.png")


@pytest.mark.parametrize("name", [*NAMES, LOOPS])
def test_no_picture_sends_the_reader_round_in_circles(reader: Engine, name: str) -> None:
    with Image.open(PARITY / "images" / name) as image:
        assert read(reader, image).finish_reason == "stop"
