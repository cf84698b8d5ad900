"""Endless repetition is found; tables and lines of dashes are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovis_engine import Engine, Regex, RepetitionRule, Request, bundled_model_path
from ovis_engine.chat import QwenChat
from ovis_engine.prompt import Prompter
from ovis_engine.repetition import RepetitionGuard
from tests.engine.conftest import TINY

RULE = RepetitionRule()


def first_hit(tokens: Sequence[int], rule: RepetitionRule = RULE) -> int | None:
    """Number of tokens after which the output counts as endless."""
    guard = RepetitionGuard(rule)
    return next((index for index, token in enumerate(tokens, start=1) if guard.take(token)), None)


def by_hand(tokens: Sequence[int], rule: RepetitionRule) -> int | None:
    for end in range(1, len(tokens) + 1):
        for period in range(1, rule.max_period + 1):
            size = max(period * rule.min_repeats, rule.min_tokens)
            tail = tokens[end - size : end] if size <= end else ()
            if tail and all(one == other for one, other in zip(tail, tail[period:], strict=False)):
                return end
    return None


@given(
    tokens=st.lists(st.integers(0, 2), max_size=60),
    rule=st.builds(RepetitionRule, st.integers(1, 6), st.integers(2, 4), st.integers(2, 12)),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_guard_finds_what_a_plain_search_finds(tokens: list[int], rule: RepetitionRule) -> None:
    assert first_hit(tokens, rule) == by_hand(tokens, rule)


@pytest.mark.parametrize(("period", "size"), [(1, 256), (8, 256), (40, 320), (128, 1024)])
def test_a_piece_said_over_and_over_is_found_at_the_documented_length(period: int, size: int) -> None:
    lead = list(range(1000, 1100))
    tokens = lead + [index % period for index in range(2000)]
    assert first_hit(tokens) == len(lead) + size


def test_a_piece_longer_than_the_largest_period_is_not_looked_for() -> None:
    assert first_hit([index % 129 for index in range(5000)]) is None


@pytest.mark.parametrize("model", ["reader", "tiny"])
@pytest.mark.parametrize(
    "text",
    [
        "| | | | |\n" * 20,
        "| Item | Qty | Price |\n|---|---|---|\n" + "| | | |\n" * 20 + "| Total | | 3 |\n",
        "-" * 80 + "\nTotal 3.00\n" + "=" * 80 + "\n",
        ("-" * 40 + "\nA 1.00\n") * 6,
        "<tr><td></td><td></td></tr>\n" * 8,
        "0.00 " * 30,
        "........................ 12\n" * 8,
    ],
    ids=["empty rows", "table", "lines", "receipt", "html", "zeros", "contents"],
)
def test_what_documents_really_repeat_is_left_alone(model: str, text: str) -> None:
    path = bundled_model_path() if model == "reader" else TINY
    ids = Prompter.from_checkpoint(path, QwenChat()).tokenizer.encode(text).ids
    assert first_hit(ids) is None


def test_the_engine_stops_an_endless_row_and_can_be_told_not_to(engine: Engine) -> None:
    """A pattern that allows nothing but one line over and over stands for a model that is stuck."""
    stuck = Request("Go.", constraint=Regex("(ab c\\n){100}"), max_new_tokens=900, request_id="stuck")
    ended = engine.submit(stuck).result(60)
    assert ended.finish_reason == "repetition"
    assert 256 <= ended.num_output_tokens < 400
    assert ended.text.startswith("ab c\nab c\n")
    # A caller may want it earlier, or never.
    strict = replace(stuck, repetition=RepetitionRule(max_period=16, min_repeats=3, min_tokens=12), request_id="strict")
    assert engine.submit(strict).result(60).num_output_tokens < 40
    free = engine.submit(replace(stuck, repetition=None, request_id="free")).result(60)
    assert (free.finish_reason, free.text) == ("stop", "ab c\n" * 100)
