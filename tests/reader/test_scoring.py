"""Figures of readers, by cases whose answers are known."""

from __future__ import annotations

import json

import pytest

from ovis_engine import Engine, EngineConfig, bundled_model_path
from tests.reader.conftest import CLEAN
from tools.reader.evaluate import read_set, score, summary, table
from tools.reader.fonts import Face
from tools.reader.layout import PageWishes
from tools.reader.pages import PageSet
from tools.reader.scoring import Reading, character_error_rate, edit_distance, error_rate_by, exact_share


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),
        ("a\nb", "a b", 1),
    ],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_the_error_rate_weighs_pages_by_their_length() -> None:
    readings = [Reading("a" * 90, "a" * 90, "one", 14.0), Reading("b" * 10, "", "two", 11.0)]
    assert character_error_rate(readings) == pytest.approx(0.1)
    assert exact_share(readings) == 0.5
    assert error_rate_by(readings, lambda reading: reading.font) == {"one": 0.0, "two": 1.0}


def test_a_summary_says_what_was_measured_and_null_for_the_rest() -> None:
    one = score([Reading("abcd", "abce", "Mono", 15.0)])
    figures = summary({"receipt": one})
    assert (figures["cer_receipt"], figures["exact_receipt"], figures["cer_tiles"]) == (0.25, 0.0, None)
    assert json.loads(json.dumps(figures)) == figures
    assert "receipt        1  25.00     0.0" in table({"receipt": one})


def test_the_bundled_reader_reads_drawn_pages_through_the_engine(face: Face) -> None:
    wishes = PageWishes((face,), advances=((15.0, 16.0),), kinds=("receipt",), max_lines=4)
    with Engine.from_pretrained(bundled_model_path(), EngineConfig(dtype="bfloat16")) as engine:
        readings = read_set(engine, PageSet("tests/scoring", wishes, CLEAN), 4)
    assert [reading.truth for reading in readings if not reading.truth] == []
    assert character_error_rate(readings) < 0.1
