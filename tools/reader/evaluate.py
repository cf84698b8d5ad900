"""Reads held-out pages with a checkpoint, through the engine as it serves, and reports how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovis_engine import Engine, EngineConfig, Request, tile_image
from tools.reader.pages import PageSet
from tools.reader.scoring import Reading, character_error_rate, error_rate_by, exact_share

PROMPT = "Read all the text in the image."
#: Tokens allowed beyond a page's own: a reader that goes on and on is charged for these.
SLACK_TOKENS = 40


@dataclass(frozen=True)
class Score:
    """Figures of one set.

    Attributes:
        pages: Pages read.
        cer: Character error rate.
        exact: Share of pages without an error.
        by_font: Character error rate by font.
        by_advance: Character error rate by advance in tile pixels, in steps of 2.
    """

    pages: int
    cer: float
    exact: float
    by_font: dict[str, float]
    by_advance: dict[str, float]


def read_set(engine: Engine, pages: PageSet, count: int) -> list[Reading]:
    """Reads the first ``count`` pages of a set, as many at a time as the engine takes."""
    submitted = []
    for number in range(count):
        page, picture = pages.picture(number)
        tiles = tile_image(picture, side=engine.side, max_partition=pages.max_partition)
        request = Request(prompt=PROMPT, images=(tiles,), max_new_tokens=len(page.text) + SLACK_TOKENS)
        # A reader of a short context is charged for what it has no room to write.
        room = engine.max_context_tokens - engine.count_prompt_tokens(request)
        request = replace(request, max_new_tokens=max(1, min(request.max_new_tokens, room)))
        submitted.append((page, engine.submit(request)))
    return [
        Reading(page.text, answer.result().text, page.face.name, page.advance / page.scale)
        for page, answer in submitted
    ]


def score(readings: Sequence[Reading]) -> Score:
    """Figures of a set's readings."""
    return Score(
        len(readings),
        round(character_error_rate(readings), 4),
        round(exact_share(readings), 3),
        error_rate_by(readings, lambda reading: reading.font),
        error_rate_by(readings, lambda reading: f"{int(reading.advance) // 2 * 2:02d} px"),
    )


def evaluate(checkpoint: Path, sets: Mapping[str, PageSet], count: int) -> dict[str, Score]:
    """Scores a checkpoint on sets of held-out pages, in bfloat16."""
    with Engine.from_pretrained(checkpoint, EngineConfig(dtype="bfloat16")) as engine:
        return {name: score(read_set(engine, pages, count)) for name, pages in sets.items()}


def table(scores: Mapping[str, Score]) -> str:
    """The scores as text: a line per set, then by font and by advance."""
    lines = [f"{'set':<10} {'pages':>5} {'CER %':>6} {'exact %':>7}"]
    for name, one in scores.items():
        lines.append(f"{name:<10} {one.pages:>5} {one.cer * 100:>6.2f} {one.exact * 100:>7.1f}")
    for name, one in scores.items():
        lines += [
            f"{name}: " + ", ".join(f"{key} {rate * 100:.2f}" for key, rate in group.items())
            for group in (one.by_font, one.by_advance)
        ]
    return "\n".join(lines)


def summary(scores: Mapping[str, Score]) -> dict[str, Any]:
    """The figures that are promised, for a machine to read; null where a set was not read."""
    names = ("receipt", "random", "unseen", "small", "large", "dark", "slanted", "tiles")
    rates = {f"cer_{name}": scores[name].cer if name in scores else None for name in names}
    return rates | {"exact_receipt": scores["receipt"].exact if "receipt" in scores else None}
