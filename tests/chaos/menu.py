"""The tasks that a chaos run hands in, each with the only right answer to it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from contract.prompt_book import load_prompt_books
from ovis_engine import Engine, EngineConfig, Request, bundled_model_path, tile_image

ROOT = Path(__file__).parent.parent.parent
MODEL = "ovis2-reader"
SAMPLES = ROOT / "ovis_engine" / "models" / MODEL / "samples"
PICTURES = (ROOT / "examples" / "receipt.png", *sorted(SAMPLES.glob("sample*.png")))

#: Output tokens of a picture, where the task names none.
_PICTURE_TOKENS = 320


@dataclass(frozen=True)
class Dish:
    """One kind of task.

    Attributes:
        name: for the report.
        body: what is posted, without metadata.
        text: the right answer; None where the task must fail.
        code: the error that it must fail with; None where it must succeed.
        weight: how often it is ordered, against the others.
    """

    name: str
    body: dict[str, Any] = field(repr=False)
    text: str | None = None
    code: str | None = None
    weight: int = 1


def build_menu() -> tuple[Dish, ...]:
    """Every dish; the right texts are those that the engine gives alone. Loads the model for some seconds."""
    with Engine.from_pretrained(bundled_model_path(MODEL), EngineConfig(dtype="float32")) as engine:
        pictures = [_pictures(engine, [path], weight=4) for path in PICTURES]
        several = [_pictures(engine, PICTURES[1:3], weight=3), _pictures(engine, PICTURES[2:5], weight=3)]
        texts = [_text(engine, prompt) for prompt in ("hello", "Read all.", "TOTAL $24.25")]
    return (*pictures, *several, *texts, *_bad())


def _pictures(engine: Engine, paths: Sequence[Path], *, weight: int) -> Dish:
    tiles = tuple(tile_image(Image.open(path), side=engine.side, max_partition=1) for path in paths)
    request = Request(
        prompt=load_prompt_books()["ovis2-reader"].ocr.image, images=tiles, max_new_tokens=_PICTURE_TOKENS
    )
    body = {"kind": "image", "model": MODEL, "inputs": [_inline(path.read_bytes()) for path in paths]}
    name = f"{len(paths)} pictures" if len(paths) > 1 else "picture"
    return Dish(name, body, text=engine.submit(request).result().text, weight=weight)


def _text(engine: Engine, prompt: str) -> Dish:
    options = {"max_new_tokens": 8}
    body = {"kind": "text", "model": MODEL, "operation": "ask", "prompt": prompt, "options": options}
    answer = engine.submit(Request(prompt=prompt, max_new_tokens=8)).result()
    return Dish("text", body, text=answer.text, weight=2)


def _bad() -> list[Dish]:
    noise = io.BytesIO()
    Image.effect_noise((400, 400), 80).save(noise, "JPEG")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    missing = {"kind": "image", "model": MODEL, "input": {"s3": "s3://ovis/uploads/missing.png"}}
    long = {
        "kind": "text",
        "model": MODEL,
        "operation": "ask",
        "prompt": "x" * 4000,
        "options": {"max_new_tokens": 320},
    }
    return [
        Dish("no picture", _picture_body(b"this is no picture"), code="not_an_image"),
        Dish("half a picture", _picture_body(noise.getvalue()[:8000]), code="truncated_image"),
        Dish("pixel bomb", _picture_body(bomb.getvalue()), code="limit_exceeded"),
        Dish("missing object", missing, code="input_unavailable"),
        Dish("long prompt", long, code="context_too_long"),
    ]


def _picture_body(data: bytes) -> dict[str, Any]:
    return {"kind": "image", "model": MODEL, "input": _inline(data)}


def _inline(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode(), "media_type": "image/png"}
