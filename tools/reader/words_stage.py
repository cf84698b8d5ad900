"""Second stage: the language model learns to copy from ground-truth visual words, made a little unsure. No pixels."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ovis_engine.checkpoint import OvisModel
from tools.reader.copying import Probes, copy_out, lesson_loss, transcript_of
from tools.reader.layout import PATCHES
from tools.reader.pages import PageSet
from tools.reader.prompts import choose_prompt, prompt_ids
from tools.reader.tower_stage import Symbols
from tools.reader.vocabulary import (
    BLANK,
    FIRST_PLACE,
    FIRST_SYMBOL,
    LINE,
    MAX_PLACES,
    NUM_SYMBOLS,
    NUM_WORDS,
    SECOND_PLACE,
    SECOND_SYMBOL,
    words_of,
)

Floats = npt.NDArray[np.float32]

#: Blank patches that are kept beside the written ones.
KEPT_BLANKS = 24
#: Weight of the pointing heads' loss.
POINTING = 0.3


class WordsStage:
    """Trains the language model and the embedding table."""

    def __init__(self, model: OvisModel, pages: PageSet, *, batch: int) -> None:
        self._model, self._pages, self._batch = model, pages, batch
        self._probes = Probes()
        self._probes.begin_with(model.encoder.table)

    def parameters(self) -> dict[str, nn.Parameter]:
        """As `Stage.parameters`."""
        return {**text_parameters(self._model), **{f"probes.{k}": v for k, v in self._probes.named_parameters()}}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """As `Stage.loss`."""
        random = Random(f"{self._pages.name}/words/{step}")
        pages = [self._pages.layout(number) for number in range(step * self._batch, (step + 1) * self._batch)]
        words, patches = unsure_words(random, [page.symbols for page in pages])
        transcripts = [transcript_of(page.text, page.symbols) for page in pages]
        prompt = prompt_ids(choose_prompt(random), with_system=random.random() < 0.6)
        with torch.autocast("cpu", torch.bfloat16):
            copied = copy_out(self._model, prompt, words, patches, transcripts)
            return lesson_loss(copied, patches, transcripts, self._probes, POINTING)


def text_parameters(model: OvisModel) -> dict[str, nn.Parameter]:
    """The language model's parameters and the visual embedding table."""
    return {
        name: value
        for name, value in model.named_parameters()
        if name.startswith("language_model.") or name == "encoder.table"
    }


def unsure_words(random: Random, pages: Sequence[Symbols]) -> tuple[Tensor, Tensor]:
    """What a fallible tower might say of pages.

    Returns:
        Probabilities (n, kept, words) and patch numbers (n, kept): all written patches and some blank ones.
    """
    chance = np.random.default_rng(random.getrandbits(64))
    kept = min(PATCHES**2, max(map(len, pages)) + KEPT_BLANKS)
    words = np.zeros((len(pages), kept, NUM_WORDS), np.float32)
    patches = np.zeros((len(pages), kept), np.int64)
    for number, symbols in enumerate(pages):
        written = {row * PATCHES + column: held for (row, column), held in symbols.items()}
        blank = random.sample(sorted(set(range(PATCHES**2)) - set(written)), kept - len(written))
        patches[number] = sorted([*written, *blank])
        for place, patch in enumerate(patches[number].tolist()):
            for word, share in words_of(written.get(patch, ())):
                words[number, place, word] = share
        _make_unsure(chance, words[number])
    return torch.from_numpy(words), torch.from_numpy(patches)


def _make_unsure(chance: np.random.Generator, words: Floats) -> None:
    """Moves shares to wrong words, in place, by a degree that differs from page to page."""
    level = chance.random() ** 2 * 0.6
    kinds = (
        (FIRST_SYMBOL, NUM_SYMBOLS, 0.25, False),
        (SECOND_SYMBOL, NUM_SYMBOLS, 0.25, False),
        (LINE, FIRST_PLACE - LINE, 0.15, True),
        (FIRST_PLACE, MAX_PLACES, 0.25, True),
        (SECOND_PLACE, MAX_PLACES, 0.25, True),
    )
    for start, size, share, neighbours in kinds:
        part = words[:, start : start + size]
        unsure = np.flatnonzero((part.sum(1) > 0) & (chance.random(len(part)) < share * level))
        right = part[unsure].argmax(1)
        if neighbours:
            wrong = np.clip(right + chance.choice((-1, 1), len(unsure)), 0, size - 1)
        else:
            wrong = chance.integers(0, size - 2, len(unsure))
        moved = part[unsure, right] * chance.random(len(unsure)).astype(np.float32) * 0.45
        part[unsure, right] -= moved
        part[unsure, wrong] += moved
    faint = chance.random(len(words)) < 0.4 * level
    lost = (chance.random(len(words)) * 0.6 * faint)[:, None].astype(np.float32)
    words *= 1 - lost
    words[:, BLANK] += lost[:, 0]
    words += chance.random((len(words), 1)).astype(np.float32) * 0.03 * level / NUM_WORDS
    words *= (1 + 0.3 * level * chance.standard_normal(words.shape, np.float32)).clip(0.2)
    words /= words.sum(1, keepdims=True)
