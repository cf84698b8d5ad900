"""A font to draw with, and models with the weights that training begins with."""

from __future__ import annotations

import pytest
import torch

from ovis_engine.checkpoint import OvisModel
from tools.reader.drawing import Wear
from tools.reader.first_weights import begin_tower, begin_words
from tools.reader.fonts import Face, FontsMissingError, find_faces
from tools.reader.layout import PageWishes
from tools.reader.pages import PageSet
from tools.reader.shape import build_model

#: Nothing is done to the drawn page.
CLEAN = Wear(0, 0, 0, 0, 0, 0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def face() -> Face:
    try:
        return find_faces(("DejaVuSansMono.ttf",))[0]
    except FontsMissingError as exc:
        pytest.skip(f"no font to draw with: {exc}")


@pytest.fixture(scope="session")
def pages(face: Face) -> PageSet:
    """Pages of all sizes, half of them turned further than any reader is promised."""
    return PageSet("tests", PageWishes((face,), slant_share=0.5, max_slant_deg=9.0), CLEAN)


@pytest.fixture
def model() -> OvisModel:
    begun = build_model()
    begin_tower(begun, seed=1)
    begin_words(begun, seed=1)
    return begun
