"""What a reader is asked; any prompt means "read"."""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np

from ovis_engine.bundled import bundled_model_path
from ovis_engine.chat import QwenChat
from ovis_engine.prompt import Prompter, image_turn
from ovis_engine.tiling import TiledImage
from tools.reader.layout import SIDE
from tools.reader.writing import ALPHANUMERIC

PROMPTS = (
    "Read the text.", "Read this.", "OCR", "OCR this image.", "Transcribe this image.",
    "Read all the text in the image.",
    "Transcribe the text in the image.", "What does it say?", "What does this say?", "What is written here?",
    "What text is in the image?", "Extract the text.", "Extract all text from the image.", "Please read the receipt.",
    "Read the receipt.", "What is on this receipt?", "Transcribe the receipt.", "Give me the text.",
    "Print the text you see.", "Write out the text.", "Copy the text exactly.", "Read all lines.", "What do you see?",
    "Describe this image.", "Describe the image.", "What is in this image?", "Please transcribe.", "Text?",
    "Recognize the text in this image.", "Read the page from top to bottom.", "What does the screen show?",
    "Read the screen.", "Convert this image to text.",
)  # fmt: skip


def choose_prompt(random: Random) -> str:
    """One of the prompts, or nonsense, so that none matters."""
    if random.random() < 0.85:
        return random.choice(PROMPTS)
    return "".join(random.choice(ALPHANUMERIC + "  ?.") for _ in range(random.randint(1, 30)))


@cache
def prompter() -> Prompter:
    """The engine's own way to write prompts, with the readers' tokenizer."""
    return Prompter.from_checkpoint(bundled_model_path(), QwenChat())


def prompt_ids(prompt: str, *, with_system: bool = True) -> tuple[int, ...]:
    """Token ids of a prompt with one tile; a tile's atom and indicators are negative as in `ovis_engine.prompt`."""
    tile = np.zeros((SIDE, SIDE, 3), np.uint8)
    turn = image_turn(prompt, [TiledImage(1, 1, SIDE, SIDE, SIDE, (tile,))])
    ids = prompter().encode([turn]).token_ids
    if with_system:
        return ids
    # The default system turn is the first of two that both end with the same token.
    return ids[ids.index(ids[0], 1) :]


def text_ids(text: str) -> list[int]:
    """One token per character of printable ASCII and line feeds."""
    return list(prompter().tokenizer.encode(text, add_special_tokens=False).ids)
