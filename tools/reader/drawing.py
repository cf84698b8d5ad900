"""Draws pages that are laid out, and spoils them as paper, light and cameras do."""

from __future__ import annotations

import io
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tools.reader.layout import SIDE, Page

Colour = tuple[int, int, int]

#: Share of scenes on a ground of one colour.
PLAIN_SHARE = 0.3

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Wear:
    """How badly pages are treated; shares are probabilities per page.

    Attributes:
        tinted_share: Paper, and on its own draw ink, that are not pure white and black.
        dark_share: Light print on dark ground.
        blur_share: Blurred a little.
        noise_share: Grain.
        uneven_share: Light that falls off across the page.
        jpeg_share: Saved as JPEG of quality 45 to 95.
    """

    tinted_share: float = 0.6
    dark_share: float = 0.0
    blur_share: float = 0.25
    noise_share: float = 0.3
    uneven_share: float = 0.12
    jpeg_share: float = 0.25


#: As pages of the first domain: dark print on light ground, mild wear.
MILD = Wear()
#: What training pages go through.
HARD = Wear(dark_share=0.3, blur_share=0.3, noise_share=0.35, uneven_share=0.25, jpeg_share=0.35)


def draw_page(random: Random, page: Page, wear: Wear) -> Image.Image:
    """The page's RGB picture, at its own size."""
    ground, ink = _colours(random, wear)
    picture = Image.new("RGB", (page.width, page.height), ground)
    pen, font = ImageDraw.Draw(picture), page.face.at(page.size_px)
    for number, line in enumerate(page.lines):
        pen.text((page.left, page.top + number * page.pitch), line, font=font, fill=ink, anchor="ls")
    if page.slant_deg:
        picture = picture.rotate(page.slant_deg, Image.Resampling.BICUBIC, fillcolor=ground)
    return _spoil(random, picture, wear, page.scale)


def draw_scene(random: Random) -> Image.Image:
    """A picture with shapes and light but without print."""
    width, height = random.randint(200, 700), random.randint(200, 700)
    coarse = np.random.default_rng(random.getrandbits(64)).integers(0, 256, (random.randint(2, 12), 9, 3))
    if random.random() < PLAIN_SHARE:
        coarse[:] = coarse[0, 0]
    scene = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(scene)
    for _ in range(random.randint(0, 8)):
        across, down = sorted(random.choices(range(width), k=2)), sorted(random.choices(range(height), k=2))
        box = (across[0], down[0], across[1] + 40, down[1] + 40)
        shape = random.choice((pen.ellipse, pen.rectangle, pen.line))
        shape(box, fill=tuple(random.choices(range(256), k=3)))
    scene = scene.filter(ImageFilter.GaussianBlur(random.uniform(0, 4)))
    return _spoil(random, scene, HARD, max(width, height) / SIDE)


def _colours(random: Random, wear: Wear) -> tuple[Colour, Colour]:
    """Ground and ink."""
    light = _tint(random, 185, 255) if random.random() < wear.tinted_share else WHITE
    dark = _tint(random, 0, 90) if random.random() < wear.tinted_share else BLACK
    return (dark, light) if random.random() < wear.dark_share else (light, dark)


def _tint(random: Random, low: int, high: int) -> Colour:
    level, spread = random.randint(low, high), random.choice((0, 0, 14))
    red, green, blue = (max(0, min(255, level + random.randint(-spread, spread))) for _ in range(3))
    return red, green, blue


def _spoil(random: Random, picture: Image.Image, wear: Wear, scale: float) -> Image.Image:
    if random.random() < wear.blur_share:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.8) * scale))
    if random.random() < wear.uneven_share:
        picture = _light_unevenly(random, picture)
    if random.random() < wear.noise_share:
        picture = _add_grain(random, picture, random.uniform(1, 12) * max(1.0, scale**0.5))
    if random.random() < wear.jpeg_share:
        saved = io.BytesIO()
        picture.save(saved, "JPEG", quality=random.randint(45, 95))
        with Image.open(saved) as opened:
            picture = opened.convert("RGB")
    return picture


def _light_unevenly(random: Random, picture: Image.Image) -> Image.Image:
    """Multiplies by a smooth field between 0.65 and 1."""
    field = bytes(random.randint(166, 255) for _ in range(9))
    shade = Image.frombytes("L", (3, 3), field).resize(picture.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(picture, Image.merge("RGB", (shade, shade, shade)))


def _add_grain(random: Random, picture: Image.Image, strength: float) -> Image.Image:
    """Adds normal noise of that standard deviation in levels, the same to all channels."""
    pixels: npt.NDArray[np.float32] = np.asarray(picture, np.float32)
    grain = np.random.default_rng(random.getrandbits(64)).standard_normal(pixels.shape[:2], np.float32)
    return Image.fromarray((pixels + grain[..., None] * strength).clip(0, 255).astype(np.uint8))
