"""The sets of pages: what is trained on and what is held out, numbered, each page from a seed of its own.

A page's seed is a text that begins with its set's name; the name of the training set is no held-out set's, so no seed
is shared, whatever the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from tools.reader.drawing import HARD, MILD, Wear, draw_page, draw_scene
from tools.reader.fonts import CORE, EXTRA, UNSEEN, find_faces
from tools.reader.layout import Page, PageWishes, lay_out, lay_out_block

TRAINING = "training"

#: Share of training pictures that show no print at all.
SCENE_SHARE = 0.015


@dataclass(frozen=True)
class PageSet:
    """A numbered series of pages.

    Attributes:
        name: Begins every seed.
        wishes: How they are laid out.
        wear: How they are treated.
        block: Columns and rows of pages that are full, for several tiles; None for pages of one tile.
        max_partition: Most cuts that a reader may make.
    """

    name: str
    wishes: PageWishes
    wear: Wear
    block: tuple[int, int] | None = None
    max_partition: int = 1

    def chance(self, number: int) -> Random:
        """The source of all that is random in a page."""
        return Random(f"{self.name}/{number}")  # texts are hashed whole: nearby numbers share nothing

    def layout(self, number: int) -> Page:
        """A page without its picture; the same page that `picture` draws."""
        return self._laid_out(self.chance(number))

    def picture(self, number: int) -> tuple[Page, Image.Image]:
        """A page and its picture."""
        random = self.chance(number)
        page = self._laid_out(random)
        return page, draw_page(random, page, self.wear)

    def _laid_out(self, random: Random) -> Page:
        if self.block is None:
            return lay_out(random, self.wishes)
        columns, rows = self.block
        return lay_out_block(random, self.wishes, columns=columns, rows=rows)


def training_set() -> PageSet:
    """What the model is trained on. Raises `FontsMissingError` as `find_faces`."""
    # Core fonts twice: their figures are promised first.
    faces = find_faces(CORE + CORE + EXTRA)
    # The middle twice: its figures are promised first.
    advances = ((14.0, 17.0), (14.0, 17.0), (10.0, 14.0), (17.0, 26.0))
    wishes = PageWishes(faces, advances, full_share=0.75, slant_share=0.35, max_slant_deg=2.3, empty_share=0.01)
    return PageSet(TRAINING, wishes, HARD)


def scene_instead(training: PageSet, number: int) -> Image.Image | None:
    """A picture without print that takes the place of a training page; mostly None."""
    random = Random(f"{training.name}/scene/{number}")
    return draw_scene(random) if random.random() < SCENE_SHARE else None


def held_out_sets() -> dict[str, PageSet]:
    """The sets that figures are taken on. Raises `FontsMissingError` as `find_faces`."""
    core, middle = find_faces(CORE), ((14.0, 17.0),)
    receipts = PageWishes(core, middle, ("receipt",), max_lines=11)
    sets = {
        "receipt": (receipts, MILD),
        "random": (PageWishes(core, middle, ("random",), max_lines=11), MILD),
        "unseen": (PageWishes(find_faces(UNSEEN), middle, max_lines=11), MILD),
        "small": (PageWishes(core, ((10.0, 14.0),), ("receipt",)), MILD),
        "large": (PageWishes(core, ((17.0, 26.0),), ("receipt",)), MILD),
        "dark": (receipts, Wear(dark_share=1.0)),
        "slanted": (PageWishes(core, middle, ("receipt",), max_lines=11, slant_share=1, max_slant_deg=2), MILD),
    }
    found = {name: PageSet(f"held-out/{name}", wishes, wear) for name, (wishes, wear) in sets.items()}
    small = PageWishes(core, ((10.0, 14.0),), ("receipt",))
    return found | {"tiles": PageSet("held-out/tiles", small, MILD, block=(40, 40), max_partition=4)}
