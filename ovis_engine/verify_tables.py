"""Checks of the parity tables that need no weights: grids, cuts and sizes, and what happens at the edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ovis_engine.errors import ImageCountMismatchError, SystemMessageNotSupportedError
from ovis_engine.prompt import Prompter, Turn, picture_layout, place_images
from ovis_engine.tiling import TiledImage, plan_tiles

Checked = tuple[str, list[str]]


def check_grid_table(table: dict[str, Any]) -> Iterator[Checked]:
    """Checks grid, cut sizes, resized sizes and layout of every picture size in ``grid_table.json``."""
    for side, entries in table["sides"].items():
        for entry in entries:
            width, height = entry["size"]
            plan = plan_tiles(width, height, side=int(side), max_partition=entry["max_partition"])
            found = {
                "grid": list(plan.grid),
                "crops": [[box[2] - box[0], box[3] - box[1]] for box in plan.boxes],
                "resized": [list(size) for size in plan.sizes],
                "layout": picture_layout(*plan.grid),
            }
            wanted = {
                "grid": entry["grid"],
                "crops": [tile["crop"] for tile in entry["tiles"]],
                "resized": [tile["resized"] for tile in entry["tiles"]],
                "layout": entry["layout"],
            }
            failures = [f"{key} is {value}" for key, value in found.items() if value != wanted[key]]
            yield f"grid of {width}x{height} at {side} px, {entry['max_partition']} parts", failures


def check_facts(facts: dict[str, Any], prompter: Prompter, *, side: int) -> Iterator[Checked]:
    """Checks one model's edges in ``facts.json``: as the reference, or as wanted where that crashes or misleads."""
    for entry in facts.get("preprocess_extremes", ()):
        width, height = entry["size"]
        wanted = entry if entry["ok"] else entry["expected_no_crash"]
        plan = plan_tiles(width, height, side=side, max_partition=entry["max_partition"])
        found = (list(plan.grid), len(plan.sizes))
        name = f"extreme {width}x{height}, {entry['max_partition']} parts"
        yield name, [] if found == (wanted["grid"], wanted["shape"][0]) else [f"grid and tiles are {found}"]
    if "more_placeholders_than_images" in facts:
        yield "more marks than pictures", _refuses_marks("<image><image>")
        yield "fewer marks than pictures", _refuses_marks("none")
    if "empty_query" in facts:
        yield "empty query", _encodes(prompter, "", facts["empty_query"]["input_ids"])
    if "special_token_typed_by_user" in facts:
        fact = facts["special_token_typed_by_user"]
        yield "special token typed by the user", _keeps_text(prompter, fact["text"])
    if "pad_token_typed_by_user_is_masked" in facts:
        fact = facts["pad_token_typed_by_user_is_masked"]
        yield "pad token typed by the user", _keeps_text(prompter, fact["text"])
    if "system_prompt" in facts:
        yield "system message", _refuses_system(prompter)


def _refuses_system(prompter: Prompter) -> list[str]:
    try:
        prompter.encode((Turn("system", ("Be brief.",)), Turn("user", ("Hello.",))))
    except SystemMessageNotSupportedError:
        return []
    return ["no error"]


def _refuses_marks(text: str) -> list[str]:
    picture = TiledImage(1, 1, 1, 1, 1, (np.zeros((1, 1, 3), np.uint8),))
    try:
        place_images(text, [picture])
    except ImageCountMismatchError:
        return []
    return ["no error"]


def _encodes(prompter: Prompter, query: str, wanted: list[int]) -> list[str]:
    found = list(prompter.encode((Turn("user", (query,)),)).token_ids)
    return [] if found == wanted else [f"input_ids are {found}"]


def _keeps_text(prompter: Prompter, text: str) -> list[str]:
    """Text with a special token in it must decode to itself: a real special token would vanish."""
    plain = prompter.encode((Turn("user", ("",)),)).token_ids
    typed = prompter.encode((Turn("user", (text,)),)).token_ids
    start = next(i for i, (a, b) in enumerate(zip(plain, typed, strict=False)) if a != b)
    end = len(typed) - (len(plain) - start)
    found = prompter.decode(typed[start:end])
    return [] if found == text else [f"encodes to {found!r}"]
