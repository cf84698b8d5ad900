"""First stage: the tower and its head learn to name the visual words of every patch. No language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from ovis_engine.checkpoint import OvisModel
from ovis_engine.tiling import UInt8Array, tile_image
from ovis_engine.vision import VisualEncoder, to_pixels
from tools.reader.layout import PATCHES, SIDE, Page
from tools.reader.pages import PageSet, scene_instead
from tools.reader.vocabulary import (
    BLANK,
    FIRST_PLACE,
    FIRST_SYMBOL,
    LINE,
    MAX_SHARES,
    NUM_WORDS,
    SECOND_SYMBOL,
    Symbol,
    words_of,
)

#: Weight of a blank patch in the loss; there are several of them to each that is written on.
BLANK_WEIGHT = 0.25

Symbols = dict[tuple[int, int], tuple[Symbol, ...]]


class TowerStage:
    """Trains `VisualEncoder` but its embedding table."""

    def __init__(self, model: OvisModel, pages: PageSet, *, batch: int) -> None:
        self._model, self._pages, self._batch = model, pages, batch

    def parameters(self) -> dict[str, nn.Parameter]:
        """As `Stage.parameters`."""
        return {f"encoder.{name}": value for name, value in self._model.encoder.named_parameters() if name != "table"}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """As `Stage.loss`."""
        tiles, symbols = [], []
        for number in range(step * self._batch, (step + 1) * self._batch):
            tile, page = training_tile(self._pages, number)
            tiles.append(tile)
            symbols.append(page.symbols if page else {})
        words, shares = targets(symbols)
        logits = word_logits(self._model.encoder, to_pixels(tiles, self._model.config))
        return divergence(logits, words, shares), rates(logits.detach(), words, shares)


def training_tile(pages: PageSet, number: int) -> tuple[UInt8Array, Page | None]:
    """A training page, or a scene in its place (None), as the engine tiles it: exactly, or quickly as services may."""
    scene = scene_instead(pages, number)
    page, picture = pages.picture(number) if scene is None else (None, scene)
    return tile_of(picture, exact=number % 4 > 0), page


def tile_of(picture: Image.Image, *, exact: bool = True) -> UInt8Array:
    """The one tile of a picture."""
    return tile_image(picture, side=SIDE, max_partition=1, exact=exact).tiles[0]


def word_logits(encoder: VisualEncoder, pixels: Tensor) -> Tensor:
    """Logits (n, patches, words) in float32; the layers run in bfloat16 where torch thinks it safe."""
    with torch.autocast("cpu", torch.bfloat16):
        logits: Tensor = encoder.head_norm(encoder.head_linear(encoder.features(pixels)))
    return logits.float()


def targets(pages: Sequence[Symbols]) -> tuple[Tensor, Tensor]:
    """What every patch shall say.

    Returns:
        Words (n, patches, MAX_SHARES), int64, and their shares, float32; unused places hold word 0 with share 0.
    """
    words = torch.full((len(pages), PATCHES * PATCHES, MAX_SHARES), BLANK)
    shares = torch.zeros(words.shape)
    shares[..., 0] = 1.0
    for number, symbols in enumerate(pages):
        for (row, column), held in symbols.items():
            patch = row * PATCHES + column
            for slot, (word, share) in enumerate(words_of(held)):
                words[number, patch, slot] = word
                shares[number, patch, slot] = share
    return words, shares


def divergence(logits: Tensor, words: Tensor, shares: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of what is said from what shall be said, blank patches weighing less."""
    said = torch.log_softmax(logits, -1).gather(2, words)  # (n, patches, MAX_SHARES)
    lost = (shares * (torch.log(shares.clamp(min=1e-9)) - said)).sum(-1)
    weights = torch.where(words[..., 0] == BLANK, BLANK_WEIGHT, 1.0)
    return (lost * weights).sum() / weights.sum()


def rates(logits: Tensor, words: Tensor, shares: Tensor) -> dict[str, float]:
    """Share of written patches whose symbol, line, place, second symbol are right, and all of these; false marks."""
    written, two = words[..., 0] != BLANK, shares[..., 3] > 0
    right: dict[str, Tensor] = {}
    for name, slot, low, high in (
        ("symbol", 0, FIRST_SYMBOL, LINE),
        ("line", 1, LINE, FIRST_PLACE),
        ("place", 2, FIRST_PLACE, SECOND_SYMBOL),
        ("second", 3, SECOND_SYMBOL, NUM_WORDS),
    ):
        right[name] = logits[..., low:high].argmax(-1) + low == words[..., slot]
    marked = logits.argmax(-1) != BLANK
    whole = right["symbol"] & right["line"] & right["place"] & marked & (right["second"] | ~two)
    found = {name: hits[two if name == "second" else written] for name, hits in right.items()}
    found |= {"whole": whole[written], "false": marked[~written]}
    return {name: hits.float().mean().nan_to_num(1.0).item() for name, hits in found.items()}
