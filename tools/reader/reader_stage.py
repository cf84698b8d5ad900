"""Third stage: the language model gets used to what the tower really says. The tower stays as it is."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn

from ovis_engine.checkpoint import OvisModel
from ovis_engine.vision import to_pixels
from tools.reader.copying import copy_out, lesson_loss, transcript_of
from tools.reader.pages import PageSet
from tools.reader.prompts import choose_prompt, prompt_ids
from tools.reader.tower_stage import training_tile, word_logits
from tools.reader.vocabulary import BLANK
from tools.reader.words_stage import text_parameters

#: Patches that are kept beside as many as the fullest page has written ones: the least blank of the rest.
KEPT_BLANKS = 48
#: Share of steps that keep all patches, as serving does.
WHOLE_SHARE = 0.15
#: Weight of the pointing heads' loss.
POINTING = 0.1
#: Page numbers of this stage begin here, so that it sees other pages than the tower's own stage.
FIRST_PAGE = 10**9


class ReaderStage:
    """Trains the language model and the embedding table on drawn pages."""

    def __init__(self, model: OvisModel, pages: PageSet, *, batch: int) -> None:
        self._model, self._pages, self._batch = model, pages, batch

    def parameters(self) -> dict[str, nn.Parameter]:
        """As `Stage.parameters`."""
        return text_parameters(self._model)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """As `Stage.loss`."""
        random = Random(f"{self._pages.name}/reader/{step}")
        tiles, transcripts, most = [], [], 0
        for number in range(step * self._batch, (step + 1) * self._batch):
            tile, page = training_tile(self._pages, FIRST_PAGE + number)
            symbols = page.symbols if page else {}
            tiles.append(tile)
            transcripts.append(transcript_of(page.text if page else "", symbols))
            most = max(most, len(symbols))
        with torch.no_grad():
            words = word_logits(self._model.encoder, to_pixels(tiles, self._model.config)).softmax(-1)
        kept = words.shape[1] if random.random() < WHOLE_SHARE else most + KEPT_BLANKS
        words, patches = keep_least_blank(words, kept)
        prompt = prompt_ids(choose_prompt(random), with_system=random.random() < 0.9)
        with torch.autocast("cpu", torch.bfloat16):
            copied = copy_out(self._model, prompt, words, patches, transcripts)
            return lesson_loss(copied, patches, transcripts, None, POINTING)


def keep_least_blank(words: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The patches (n, kept, words) that are least surely blank, and their numbers (n, kept), rising."""
    kept = min(kept, words.shape[1])
    patches = words[..., BLANK].topk(kept, dim=1, largest=False).indices.sort(1).values
    return words.gather(1, patches[..., None].expand(-1, -1, words.shape[-1])), patches
