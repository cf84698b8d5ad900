"""The sample pages that travel with a checkpoint: what it reads of them, kept for comparison."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from ovis_engine import Engine, EngineConfig, Request, tile_image
from tools.reader.scoring import edit_distance

PROMPT = "Read the text."
MAX_NEW_TOKENS = 320


def refresh_samples(checkpoint: Path) -> dict[str, float]:
    """Reads a checkpoint's samples in float32 and writes ``samples/samples.json`` anew; truths stay.

    Returns:
        Each sample's character error rate.
    """
    file = checkpoint / "samples" / "samples.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    with Engine.from_pretrained(checkpoint, EngineConfig(dtype="float32")) as engine:
        for name, entry in entries.items():
            with Image.open(file.parent / name) as picture:
                tiles = tile_image(picture, side=engine.side, max_partition=1)
            request = Request(PROMPT, (tiles,), max_new_tokens=MAX_NEW_TOKENS)
            entry["read"] = engine.submit(request).result().text
            entry["cer"] = round(edit_distance(entry["read"], entry["truth"]) / max(1, len(entry["truth"])), 4)
    file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return {name: entry["cer"] for name, entry in entries.items()}
