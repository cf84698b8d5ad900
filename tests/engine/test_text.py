"""Text as it comes: deltas add up, hold no half character, and nothing past a stop string."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ovis_engine import bundled_model_path
from ovis_engine.text import REPLACEMENT, Delta, Detokenizer, GrowingText, TextWatch

MODELS = Path(__file__).parents[1] / "parity" / "models"
TOKENIZERS = [*sorted(MODELS.iterdir()), bundled_model_path()]


@pytest.fixture(scope="module", params=TOKENIZERS, ids=lambda path: path.name)
def detokenizer(request: pytest.FixtureRequest) -> Detokenizer:
    return Detokenizer(Tokenizer.from_file(str(request.param / "tokenizer.json")))


def ids_of(detokenizer: Detokenizer) -> st.SearchStrategy[list[int]]:
    """Any tokens, with single bytes and special tokens more often than their share."""
    size = detokenizer._tokenizer.get_vocab_size()
    rare = sorted(detokenizer.special_ids | detokenizer.byte_ids)
    return st.lists(st.one_of(st.integers(0, size - 1), st.sampled_from(rare), st.integers(0, 270)), max_size=60)


def watched(detokenizer: Detokenizer, ids: list[int], stops: list[str]) -> tuple[TextWatch, list[Delta], bool]:
    """Feeds tokens until a stop; returns the watch, its deltas and whether it stopped."""
    deltas: list[Delta] = []
    watch = TextWatch(detokenizer, stops, deltas.append)
    stopped = any(watch.take(token_id) for token_id in ids)
    stopped = watch.finish(len(ids)) or stopped
    return watch, deltas, stopped


@given(data=st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_pieces_of_any_tokens_add_up_to_the_whole_text(detokenizer: Detokenizer, data: st.DataObject) -> None:
    ids = data.draw(ids_of(detokenizer))
    growing = GrowingText(detokenizer)
    pieces = [growing.take(token_id) for token_id in ids]
    assert len(growing._pending) <= 60
    assert "".join([*pieces, growing.finish()]) == detokenizer.decode(ids)


@given(data=st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_deltas_are_the_text_before_the_first_stop_string(detokenizer: Detokenizer, data: st.DataObject) -> None:
    ids = data.draw(ids_of(detokenizer))
    whole = detokenizer.decode(ids)
    places = st.integers(0, max(0, len(whole) - 1))
    inner = st.builds(lambda start, size: whole[start : start + size], places, st.integers(1, 6))
    stops = [stop for stop in data.draw(st.lists(st.one_of(inner, st.text("ab \n", max_size=3)), max_size=3)) if stop]
    watch, deltas, stopped = watched(detokenizer, ids, stops)
    found = min(((place + len(stop), place) for stop in stops if (place := whole.find(stop)) >= 0), default=None)
    assert stopped == (found is not None)
    assert watch.text == (whole if found is None else whole[: found[1]])
    assert "".join(delta.text for delta in deltas) == watch.text
    assert [delta.offset for delta in deltas] == [
        sum(len(before.text) for before in deltas[:index]) for index in range(len(deltas))
    ]
    assert all(delta.text.encode() for delta in deltas)
    assert all(one.num_output_tokens <= other.num_output_tokens for one, other in pairwise(deltas))


def test_a_character_of_several_tokens_comes_as_one(detokenizer: Detokenizer) -> None:
    text = "Preis: 3 €, 你好 🚢 naïve"
    ids = detokenizer._tokenizer.encode(text, add_special_tokens=False).ids
    watch, deltas, _ = watched(detokenizer, ids, [])
    assert watch.text == detokenizer.decode(ids)
    assert REPLACEMENT not in watch.text
    assert all(REPLACEMENT not in delta.text for delta in deltas)
    assert len(deltas) > 3


def test_garbage_does_not_pile_up() -> None:
    detokenizer = Detokenizer(Tokenizer.from_file(str(MODELS / "ovis2-tiny" / "tokenizer.json")))
    lone = next(index for index in range(300) if detokenizer.decode([index]) == REPLACEMENT)
    growing = GrowingText(detokenizer)
    pieces = [growing.take(lone) for _ in range(500)]
    assert len(growing._pending) < 20
    assert "".join([*pieces, growing.finish()]) == detokenizer.decode([lone] * 500)


def test_a_possible_beginning_of_a_stop_string_is_held_back() -> None:
    detokenizer = Detokenizer(Tokenizer.from_file(str(MODELS / "ovis2-tiny" / "tokenizer.json")))
    ids = [detokenizer._tokenizer.token_to_id(letter) for letter in "ABCABDABC"]
    watch, deltas, stopped = watched(detokenizer, ids, ["ABD"])
    assert stopped
    assert watch.text == "ABC"
    assert [(delta.text, delta.offset) for delta in deltas] == [("ABC", 0)]
    unstopped, deltas, stopped = watched(detokenizer, ids[:5], ["ABD"])
    assert not stopped
    assert unstopped.text == "ABCAB"
    assert [(delta.text, delta.offset) for delta in deltas] == [("ABC", 0), ("AB", 3)]
