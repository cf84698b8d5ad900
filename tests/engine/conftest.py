"""Real tiny models and pictures for the engine's tests; nothing is faked or patched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ovis_engine.attention import set_attention
from ovis_engine.chat import QwenChat
from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.engine import Engine
from ovis_engine.prompt import Prompter
from ovis_engine.request import EngineConfig
from ovis_engine.tiling import TiledImage, tile_image

PARITY = Path(__file__).parents[1] / "parity"
TINY = PARITY / "models" / "ovis2-tiny"

#: Small sizes that are quick to allocate; two pages of slack over the largest request of the tests.
SMALL = EngineConfig(dtype="float32", kv_cache_tokens=16384, visual_pool_rows=64 * 256, max_batch_tokens=1024)


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """The tests share a small machine."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def parity() -> Path:
    return PARITY


@pytest.fixture(scope="session")
def tiny() -> Path:
    return TINY


@pytest.fixture(scope="session")
def tiny_prompter() -> Prompter:
    return Prompter.from_checkpoint(TINY, QwenChat())


@pytest.fixture
def tiny_model() -> OvisModel:
    """A model of one's own: an engine wraps its embedding."""
    return load_tiny()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_pretrained(TINY, SMALL) as started:
        yield started


def load_tiny() -> OvisModel:
    """Loads the tiny model as `Engine.from_pretrained` does."""
    model = load_model(TINY, device=torch.device("cpu"), dtype=torch.float32)
    set_attention(model.language_model)
    return model


def picture(name: str, max_partition: int = 9, *, side: int = 448) -> TiledImage:
    """A tiled picture of the parity set, for the tiny models."""
    with Image.open(PARITY / "images" / name) as image:
        return tile_image(image, side=side, max_partition=max_partition)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
